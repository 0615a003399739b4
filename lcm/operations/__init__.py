"""Whole jobs: running notebooks, measuring speed."""
