"""Layer 3: metrics of reconstructions and samples. Arrays and callables in, numbers out."""
