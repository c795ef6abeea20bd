"""FLOPs of matrix products and convolutions in a jaxpr, with 1 MAC = 2 FLOP."""

import math
from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from ul.core.errors import ConfigError


def count_flops(function, *args) -> int:
    """Count the FLOPs of all dot and convolution operations in `function(*args)`.

    The function is only traced, not compiled or run. The body of a scan counts once per
    iteration, and of the branches of a cond the most expensive one counts.

    Raises:
      ConfigError: a loop of unknown length contains a product.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _jaxpr_flops(jaxpr: Jaxpr) -> int:
    return sum(_equation_flops(eqn) for eqn in jaxpr.eqns)


def _equation_flops(eqn) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        lhs = eqn.invars[0].aval.shape
        inner = math.prod(lhs[i] for i in contracted)
        return 2 * inner * math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // features
    nested_flops = [_jaxpr_flops(jaxpr) for jaxpr in _nested_jaxprs(eqn)]
    if eqn.primitive.name == "cond":
        return max(nested_flops)
    if eqn.primitive.name == "while" and any(nested_flops):
        raise ConfigError(
            "FLOPs can be counted only in loops of known length; a while loop contains "
            "matrix products or convolutions. Use jax.lax.scan or fori_loop with constant "
            "bounds."
        )
    return sum(nested_flops) * eqn.params.get("length", 1)


def _nested_jaxprs(eqn) -> Iterator[Jaxpr]:
    """Yield the jaxprs among an equation's parameters."""
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
