"""The document's model in plain Python: no I/O, no clock, no third-party import."""
