"""Write a run's networks as safetensors, each with a JSON of what it is.

    python -m launch.export --workdir runs/s1 --out exports/autoencoder
    python -m launch.export --workdir runs/s2 --step 2000 --weights raw --out exports/generator

The directory can be given wherever a trained workdir can: `ul.load_autoencoder`,
`ul.load_generator`, launch.sample, launch.evaluate, --config.stage1.workdir.
"""

from absl import flags

from launch.lib import cli
from ul.inference import export

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, of either stage.")
_OUT = flags.DEFINE_string("out", None, "The directory to write.")
_STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint; the newest verified one if unset."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "ema", "ema, ema:<decay>, power:<width> or raw."
)
_STAGE1 = flags.DEFINE_string("stage1_workdir", None, "Stage 1, if it was moved.")


def main() -> None:
    written = export.export(
        cli.required(_WORKDIR),
        cli.required(_OUT),
        step=_STEP.value,
        weights=_WEIGHTS.value,
        stage1_workdir=_STAGE1.value,
    )
    print("exported:", *written, sep="\n  ")


if __name__ == "__main__":
    cli.run(main)
