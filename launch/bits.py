"""Where the bits go in a picture: beside it, a map of its bits per pixel.

python -m launch.bits --workdir runs/p1 --image photo.jpg --reduce 2 --out bits.png
"""

from absl import flags
from etils import epath

from launch.lib import cli
from ul.evaluation import bit_map
from ul.train.writer import save_bytes

_WORKDIR = flags.DEFINE_string("workdir", None, "The stage-1 run.")
_IMAGE = flags.DEFINE_string("image", None, "The picture; cut into tiles.")
_OUT = flags.DEFINE_string("out", None, "The PNG to write.")
_REDUCE = flags.DEFINE_integer(
    "reduce", 1, "Average squares of so many pixels first.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.")
_STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint; the newest verified one if unset."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "ema", "ema, ema:<decay>, power:<width> or raw."
)


def main() -> None:
    workdir, image, out = (cli.required(f) for f in (_WORKDIR, _IMAGE, _OUT))
    png = bit_map.bit_map(
        workdir,
        image,
        reduce=_REDUCE.value,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        seed=_SEED.value,
    )
    save_bytes(epath.Path(out), png)
    print(f"Drawn: {out}")


if __name__ == "__main__":
    cli.run(main)
