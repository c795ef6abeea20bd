"""Networks in Flax Linen: arrays in, arrays out.

They know no noise schedule, no loss, and no sharding besides
`core.mesh.constrain_activations`. Parameters
are float32, compute is in `dtype`, outputs are float32. Dropout is a rate; an
evaluation network is the same module with rate 0.
"""
