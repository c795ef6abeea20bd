"""Layer 5: from a config to a run: training, resuming, and encoding latent caches."""
