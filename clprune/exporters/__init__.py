"""Forms in which the kept samples are handed over: one file an exporter."""
