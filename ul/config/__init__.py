"""A config as plain data: which keys there are, their types and their ranges.

`parse(dict)` gives the frozen class of its stage. Everything a config can get wrong is
said here, in one line, before JAX starts.
"""

from ul.config.stages import (
    STAGES,
    Autoencoder,
    Base,
    Common,
    DetachedPrior,
    External,
    Generators,
    Joint,
    KlAutoencoder,
    LearnedVariance,
    MseDecoder,
    NormalPrior,
    Pixels,
    Settings,
    Single,
    Trained,
)
from ul.config.validation import construct, parse

__all__ = [
    "STAGES",
    "Autoencoder",
    "Base",
    "Common",
    "DetachedPrior",
    "External",
    "Generators",
    "Joint",
    "KlAutoencoder",
    "LearnedVariance",
    "MseDecoder",
    "NormalPrior",
    "Pixels",
    "Settings",
    "Single",
    "Trained",
    "construct",
    "parse",
]
