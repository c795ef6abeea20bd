"""Shape annotations, which are checked when a function is called or traced."""

from beartype import beartype
from jaxtyping import Array, Bool, Float, Int, Key, UInt8, jaxtyped

__all__ = ["Array", "Bool", "Float", "Int", "Key", "UInt8", "typechecked"]

typechecked = jaxtyped(typechecker=beartype)
