"""Floor 1, host side: sources, transforms and batches. Grain and numpy, no jax arrays."""
