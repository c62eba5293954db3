"""Loggers beside metrics.csv, and what they are told of a run: facts, numbers, samples, the model."""
