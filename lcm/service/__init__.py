"""The HTTP service behind serve.py: settings, what a request may hold, bounded work, and what is answered."""
