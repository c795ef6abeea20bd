"""Export the networks of a run as safetensors files.

    python -m ul export --workdir runs/s1 --out exports/autoencoder
    python -m ul export --workdir runs/s2 --step 2000 --weights raw --out exports/generator

Each file has a JSON beside it that describes the network. The directory can be used instead
of a trained workdir: by `ul.load_autoencoder`, `ul.load_generator`, `ul sample`,
`ul evaluate` and --config.stage1.workdir.
"""

from absl import flags

from launch.lib import cli, common_flags
from ul.inference import export

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run of stage 1 or stage 2 to export. Required."
)
_OUT = flags.DEFINE_string("out", None, "Directory to write. Required.")
_STEP = common_flags.define_step()
_WEIGHTS = common_flags.define_weights()
_STAGE1 = common_flags.define_stage1_workdir()


def main() -> None:
    """Write the files and print their names."""
    written = export.export(
        cli.required(_WORKDIR),
        cli.required(_OUT),
        step=_STEP.value,
        weights=_WEIGHTS.value,
        stage1_workdir=_STAGE1.value,
    )
    print("Exported:", *written, sep="\n  ")


if __name__ == "__main__":
    cli.run(main)
