"""One experiment in one folder: file names, encoding, and the commands on stored files."""
