"""Everything that runs on Ray: trials under Tune, workers under Train, streams of Data."""
