"""Layer 1: networks in Flax Linen: arrays in, arrays out.

They know no noise schedule and no loss. The only sharding they know is core.mesh:
`constrain_activations`, and `gather_parameter` in sharded_layers.py. Parameters are
float32, compute is in `dtype`, outputs are float32. Dropout is a rate; an evaluation
network is the same module with rate 0.
"""
