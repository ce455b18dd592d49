"""Closures and values to bytes and back."""
