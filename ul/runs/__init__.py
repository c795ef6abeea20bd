"""From a config to a run: training, resuming, and encoding latent caches."""
