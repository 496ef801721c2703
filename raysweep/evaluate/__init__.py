"""Scores, protocols and tables."""
