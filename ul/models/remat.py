"""What a block keeps for its backward pass, and what is computed again.

"none" keeps everything, "full" the block's input alone, "dots" also the products with
weights (linear and convolution), so that the cheap rest and attention are computed again.
"""

import flax.linen as nn
import jax


def _products(primitive, *args, **params) -> bool:
    """A convolution, or a product without batch dimensions: one with weights."""
    if primitive is jax.lax.conv_general_dilated_p:
        return True
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return dots(primitive, *args, **params)


POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": _products,
}


def remat(block, policy: str, *, prevent_cse: bool = True):
    """The module class `block` under a policy; a scan needs no `prevent_cse`."""
    if policy == "none":
        return block
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=prevent_cse)
