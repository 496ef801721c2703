"""Images in: rendering, reading, splitting, augmenting."""
