"""Bytes under keys: the one floor that touches the file system."""
