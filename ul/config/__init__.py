"""Layer 1: configs as plain data: their keys, types and ranges.

Everything that a config can get wrong is reported here or by the constructors that its
`kind`s choose, in one line, before JAX starts. `ul/stages` has the keys of each stage;
`tests/test_structure.py` lists the modules that may import this package.
"""

from ul.config.paths import PATH_KEYS, make_absolute
from ul.config.registry import REQUIRED, Kinds, to_dict
from ul.config.stages import (
    AutoencoderConfig,
    GeneratorConfig,
    RunConfig,
    Stage1Config,
    TrainConfig,
)
from ul.config.validation import construct, validate

__all__ = [
    "PATH_KEYS",
    "REQUIRED",
    "AutoencoderConfig",
    "GeneratorConfig",
    "Kinds",
    "RunConfig",
    "Stage1Config",
    "TrainConfig",
    "construct",
    "make_absolute",
    "to_dict",
    "validate",
]
