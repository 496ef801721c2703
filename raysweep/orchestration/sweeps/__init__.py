"""A sweep from its flags to its table."""
