"""Floor 3: what a trained system does, measured. Callables in, numbers and images out."""
