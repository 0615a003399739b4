"""Captions, words and images: everything between the user's files and arrays."""
