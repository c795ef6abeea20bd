"""Floor 1: networks only, Flax Linen: arrays in, arrays out.

They know no schedule, no loss and no sharding but `core.mesh.constrain`. Parameters
are float32, compute is in `dtype`, outputs are float32. Dropout is a rate; an
evaluation network is the same module with rate 0.
"""
