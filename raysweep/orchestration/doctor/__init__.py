"""Whether work can run here, or on a cluster."""
