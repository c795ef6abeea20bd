"""Data on the host: sources, transforms and batches, with Grain and NumPy."""
