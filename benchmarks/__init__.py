"""Speed and scale, measured beside what anyone could pick instead; `python -m benchmarks` writes the report."""
