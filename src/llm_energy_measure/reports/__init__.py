"""Reports and figures: numbers for people. matplotlib and jinja2 are imported only in functions that use them."""
