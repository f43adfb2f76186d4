"""One number a sample, from its signals: one file a score."""
