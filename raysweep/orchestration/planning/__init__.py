"""Which trials a sweep has, and what they will take."""
