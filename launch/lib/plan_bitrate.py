"""`launch.plan bitrate`: which loss factor c_lf and bias b give which bitrate."""

from pathlib import Path

from absl import flags

from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning import bitrate

_TARGET = flags.DEFINE_float(
    "target_bpp", None, "Bits/pixel wanted: the overrides that should give them."
)
flags.DEFINE_alias("target-bpp", "target_bpp")
_FACTORS = flags.DEFINE_list("factors", ["1.3", "1.5", "1.7", "2", "2.5"], "c_lf.")
_BIASES = flags.DEFINE_list("biases", ["0", "1", "2", "3", "4", "5"], "b.")
_SPECTRUM = flags.DEFINE_enum(
    "spectrum", "auto", bitrate.SPECTRA, "How the data's spectrum is estimated."
)
_EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Training images to read; unset: enough, at most 10,000."
)
_LIMIT = flags.DEFINE_bool(
    "latent_limit", False, "Code no more directions than the latent has elements."
)
_OUT = flags.DEFINE_string("out", None, "The picture; plan-<experiment>.png if unset.")


def _numbers(holder: flags.FlagHolder) -> list[float]:
    try:
        return [float(v) for v in holder.value]
    except ValueError as e:
        raise ConfigError(f"--{holder.name} {holder.value} are not numbers") from e


def _picture(name: str) -> str:
    out = _OUT.value or f"plan-{name.replace(':', '-')}.png"
    if not out.lower().endswith(".png"):
        raise ConfigError(f"--out is {out}; it must end in .png")
    return out


def main(parsed: TrainConfig) -> None:
    name = Path(flags.FLAGS["config"].serialize()).name.replace(".py", "")
    out = _picture(name)
    if _TARGET.value is not None:
        bitrate.check_target(_TARGET.value)
    plan = bitrate.prepare(
        parsed,
        _numbers(_FACTORS),
        _numbers(_BIASES),
        estimator=_SPECTRUM.value,
        examples=_EXAMPLES.value,
        latent_limit=_LIMIT.value,
        progress=True,
    )
    print(bitrate.markdown(plan))
    if _TARGET.value is not None:
        print(f"\n{bitrate.proposals(plan, _TARGET.value)}")
    bitrate.draw(plan, out, title=name)
    print(f"\nDrawn: {out}")
