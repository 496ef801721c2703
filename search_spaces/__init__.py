"""One page of Python per sweep: BASE, SPACE, METRIC."""
