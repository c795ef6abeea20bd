"""Rematerialization: which values of a block are kept for its backward pass.

"none" keeps all of them, "full" only the block's input, "dots" also the products with
weights (linear layers and convolutions), so that attention and the cheap rest are
recomputed.
"""

import flax.linen as nn
import jax


def _products(primitive, *args, **params) -> bool:
    """Return whether this is a product with weights: one without batch dimensions."""
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
    """Return the module class `block` under a policy; a scan needs no `prevent_cse`."""
    if policy == "none":
        return block
    return nn.remat(block, policy=POLICIES[policy], prevent_cse=prevent_cse)
