"""Contributions: images with captions that users send, kept until they are revoked."""
