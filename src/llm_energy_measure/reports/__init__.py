"""Reports and figures: numbers for people. matplotlib and jinja2 are imported only where they draw and write."""
