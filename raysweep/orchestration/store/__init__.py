"""What was computed once is kept: storage, stages, checkpoints, locks."""
