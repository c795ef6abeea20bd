"""Predict the bitrate for loss factors c_lf and biases b (`ul plan bitrate`)."""

from pathlib import Path

from absl import flags

from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.data.datasets import Datasets
from ul.planning import bitrate
from ul.stages import registry

_TARGET = flags.DEFINE_float(
    "target_bpp",
    None,
    "Desired bits per pixel; the plan then also proposes overrides that should give them.",
)
flags.DEFINE_alias("target-bpp", "target_bpp")
_FACTORS = flags.DEFINE_list(
    "factors", ["1.3", "1.5", "1.7", "2", "2.5"], "Loss factors (c_lf) to predict."
)
_BIASES = flags.DEFINE_list(
    "biases", ["0", "1", "2", "3", "4", "5"], "Loss biases (b) to predict."
)
_SPECTRUM = flags.DEFINE_enum(
    "spectrum", "auto", bitrate.ESTIMATORS, bitrate.ESTIMATORS_HELP
)
_EXAMPLES = flags.DEFINE_integer(
    "examples",
    None,
    "Training images to read; if unset, as many as needed, at most 10,000.",
)
_LIMIT = flags.DEFINE_bool(
    "latent_limit",
    True,
    "Assume that the latent codes at most as many directions as it has elements.",
)
_OUT = flags.DEFINE_string(
    "out", None, "PNG file for the plot; if unset, plan-EXPERIMENT.png."
)


def _parse_numbers(holder: flags.FlagHolder) -> list[float]:
    try:
        return [float(v) for v in holder.value]
    except ValueError as e:
        raise ConfigError(
            f"--{holder.name} must be numbers; got {holder.value}."
        ) from e


def _plot_path(name: str) -> str:
    out = _OUT.value or f"plan-{name.replace(':', '-')}.png"
    if not out.lower().endswith(".png"):
        raise ConfigError(f"--out must end in .png; got {out}.")
    return out


def main(config: TrainConfig) -> None:
    """Print the predicted bitrates and write a plot of them."""
    typed = flags.FLAGS["config"].serialize().partition("=")[2]
    name = Path(typed).name.replace(".py", "")
    out = _plot_path(name)
    if _TARGET.value is not None:
        bitrate.check_target(_TARGET.value)
    plan = bitrate.make_plan(
        registry.build(config),
        Datasets.from_config(config),
        _parse_numbers(_FACTORS),
        _parse_numbers(_BIASES),
        estimator=_SPECTRUM.value,
        num_examples=_EXAMPLES.value,
        latent_limit=_LIMIT.value,
        show_progress=True,
    )
    print(bitrate.to_markdown(plan))
    if _TARGET.value is not None:
        print(f"\n{bitrate.propose_overrides(plan, _TARGET.value)}")
    bitrate.draw(plan, out, title=name)
    print(f"\nwrote {out}")
