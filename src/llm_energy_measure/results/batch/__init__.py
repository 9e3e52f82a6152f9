"""Many experiments: aggregate, verify, check, recover, merge and salvage."""
