"""Store one experiment in its folder: file names, encoding, and operations on the files."""
