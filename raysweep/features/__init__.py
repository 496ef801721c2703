"""Per-pixel features of a frozen representation."""
