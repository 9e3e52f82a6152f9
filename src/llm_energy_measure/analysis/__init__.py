"""Compare configurations: observations, groups of repeats, and what varies between them."""
