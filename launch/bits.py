"""Draw a picture, a map of its bits per pixel under stage-1 runs, and reconstructions.

python -m ul bits --workdir runs/p1 --image photo.jpg --reduce 2 --out bits.png
python -m ul bits --workdir runs/low,runs/high --image photo.jpg --reconstruct --out b.png
"""

from absl import flags
from etils import epath

from launch.lib import cli, common_flags
from ul.evaluation import bit_map
from ul.train.writer import save_bytes

_WORKDIR = flags.DEFINE_list("workdir", [], "Stage-1 runs. Required.")
_IMAGE = flags.DEFINE_string(
    "image", None, "Picture, which is cut into tiles. Required."
)
_OUT = flags.DEFINE_string("out", None, "PNG file to write. Required.")
_REDUCE = flags.DEFINE_integer(
    "reduce", 1, "Downsample the picture by this factor first.", lower_bound=1
)
_RECONSTRUCT = flags.DEFINE_bool("reconstruct", False, "Also draw reconstructions.")
_SEED = common_flags.define_seed()
_STEP = common_flags.define_step()
_WEIGHTS = common_flags.define_weights()


def main() -> None:
    """Draw the map."""
    workdirs, image, out = (cli.required(f) for f in (_WORKDIR, _IMAGE, _OUT))
    png = bit_map.draw(
        workdirs,
        image,
        reconstruct=_RECONSTRUCT.value,
        reduce=_REDUCE.value,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        seed=_SEED.value,
    )
    save_bytes(epath.Path(out), png)
    print(f"wrote {out}")


if __name__ == "__main__":
    cli.run(main)
