"""Published data sets in the layouts in which they are downloaded, one module each."""
