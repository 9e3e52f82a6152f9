"""Stores: bytes under keys. Only this package writes result files to the file system."""
