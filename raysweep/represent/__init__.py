"""Representations learnt without labels."""
