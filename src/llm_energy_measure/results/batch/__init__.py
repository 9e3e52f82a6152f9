"""Many experiments: aggregate, verify, check and recover whole results directories."""
