"""Model FLOPs of products and convolutions, 1 MAC = 2 FLOP, from a jaxpr."""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from ul.core.errors import ConfigError


def of(function, *args) -> int:
    """FLOPs of all dot and convolution operations that `function(*args)` traces to.

    A scan counts as many times as it runs. Nothing is compiled or computed.
    """
    return _jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        lhs = eqn.invars[0].aval.shape
        inner = math.prod(lhs[i] for i in contracted)
        return 2 * inner * math.prod(eqn.outvars[0].aval.shape)
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // features
    inside = [_jaxpr(sub) for sub in _inner(eqn)]
    if eqn.primitive.name == "cond":
        return max(inside)
    if eqn.primitive.name == "while" and any(inside):
        raise ConfigError("a loop of unknown length has products: no FLOPs count")
    return sum(inside) * eqn.params.get("length", 1)


def _inner(eqn):
    """The jaxprs among an equation's parameters."""
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
