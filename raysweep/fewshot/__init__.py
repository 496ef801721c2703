"""Learning part segmentation from a handful of labelled images."""
