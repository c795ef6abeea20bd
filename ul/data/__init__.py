"""Layer 2: data on the host: sources, transforms and batches, with Grain and NumPy."""
