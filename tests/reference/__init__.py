"""Slow, loop-style versions of the formulas, written from their definitions."""
