"""Dropout whose random bits are a hash of the key and the position of each element.

With masks of JAX's generator, Threefry, a step of a large stage 2 needs three times as many
elementwise operations (experiments/RESULTS.md). A hash of a counter is fused into the layer
before it, moves no data, and depends neither on the mesh nor on the number of processes,
which JAX's `rbg` generator does.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ul.core.types import Array, Bool, Key, typechecked


class Dropout(nn.Module):
    """Set elements of x [B, ...] to zero with probability `rate`; scale the others up.

    The random stream is named "dropout". With a rate of 0 it returns x and needs no stream.
    """

    rate: float

    @nn.compact
    def __call__(self, x):
        if self.rate == 0.0:
            return x
        keep = keep_mask(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


@typechecked
def keep_mask(
    key: Key[Array, ""], shape: tuple[int, ...], rate: float
) -> Bool[Array, "..."]:
    """Return a mask [B, ...] that is True with probability 1 - rate.

    Rows and elements of a row are counted separately, so that neither counter overflows 32
    bits in a large batch.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    element = jnp.zeros((1, *shape[1:]), jnp.uint32)
    stride = 1
    for axis in range(len(shape) - 1, 0, -1):
        position = jax.lax.broadcasted_iota(jnp.uint32, element.shape, axis)
        element += position * jnp.uint32(stride)
        stride *= shape[axis]
    row = jax.lax.broadcasted_iota(jnp.uint32, (shape[0], *[1] * (len(shape) - 1)), 0)
    # The threshold is compared with the upper bits, so the last step of a mix is left out.
    bits = _mix_upper_bits(_mix(element ^ first) + _mix(row ^ second))
    return bits >= jnp.uint32(round(rate * 2**32))


def _mix(bits):
    """Return a permutation of 32-bit numbers in which each bit depends on all bits.

    The constants are those of "lowbias32" (Wellons 2018, nullprogram.com/blog/2018/07/31).
    """
    bits = _mix_upper_bits(bits)
    return bits ^ (bits >> 16)


def _mix_upper_bits(bits):
    """Return a permutation of 32-bit numbers in which the upper bits depend on all bits."""
    bits ^= bits >> 16
    bits *= jnp.uint32(0x7FEB352D)
    bits ^= bits >> 15
    return bits * jnp.uint32(0x846CA68B)
