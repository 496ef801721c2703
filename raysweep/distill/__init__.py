"""Pseudo-labels of a teacher as shards, streamed to train an ordinary segmentation network."""
