"""The jobs that are no sweeps."""
