"""Flax's linear layers and convolutions, whose sharded kernels are gathered at their use."""

import functools

import flax.linen as nn
import jax

from ul.core import mesh


def _dot(x, kernel, *args, **kwargs):
    return jax.lax.dot_general(x, mesh.gather_parameter(kernel), *args, **kwargs)


def _convolve(x, kernel, *args, **kwargs):
    return jax.lax.conv_general_dilated(
        x, mesh.gather_parameter(kernel), *args, **kwargs
    )


Dense = functools.partial(nn.Dense, dot_general=_dot)
Conv = functools.partial(nn.Conv, conv_general_dilated=_convolve)
