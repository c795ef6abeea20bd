"""Draw from a stage-2 run: PNG files, or one grid; of clips GIFs. Sample i has its own seed.

python -m launch.sample --workdir runs/s2 --num 100 --grid --out samples.png
python -m launch.sample --workdir runs/s2 --num 16 --labels 3 --out samples/
python -m launch.sample --workdir runs/c2 --num 16 --text "a red three" --out samples/
"""

import json

from absl import flags
from etils import epath

from launch.lib import cli, prompts
from ul.core.errors import ConfigError
from ul.core.files import write_atomic
from ul.inference import api
from ul.train import image_grids
from ul.train.writer import save_bytes, save_png

_WORKDIR = flags.DEFINE_string("workdir", None, "The stage-2 run.")
_OUT = flags.DEFINE_string(
    "out", None, "A folder for PNG files, or a file with --grid."
)
_NUM = flags.DEFINE_integer("num", 16, "How many images.")
_GUIDANCE = flags.DEFINE_float("guidance", 1.0, "1 is no guidance.")
_GUIDE = flags.DEFINE_string(
    "guide", None, "A lesser stage 2 to guide away from: WORKDIR[:step][@weights]."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.")
_STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint; the newest verified one if unset."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "ema", "ema, ema:<decay>, power:<width> or raw."
)
_STAGE1 = flags.DEFINE_string("stage1_workdir", None, "Stage 1, if it was moved.")
_GRID = flags.DEFINE_bool(
    "grid", False, "One picture instead of files; of clips a row each."
)
_COLUMNS = flags.DEFINE_integer("columns", 10, "Columns of the grid.")
_SCALE = flags.DEFINE_integer("scale", 1, "Each pixel of the grid so many wide.")


def main() -> None:
    workdir, out = cli.required(_WORKDIR), epath.Path(cli.required(_OUT))
    for flag in (_NUM, _COLUMNS, _SCALE):
        if flag.value < 1:
            raise ConfigError(f"--{flag.name} is {flag.value}; it must be at least 1")
    if _GUIDE.value and _GUIDANCE.value == 1.0:
        raise ConfigError(
            "--guide does nothing at --guidance 1, which is none; raise it"
        )
    generator = api.load_generator(
        workdir,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        stage1_workdir=_STAGE1.value,
        guide=_GUIDE.value,
    )
    condition, said = prompts.conditions(generator, _NUM.value)
    images = generator.sample(
        condition, guidance=_GUIDANCE.value, seed=_SEED.value, progress=True
    )
    if _GRID.value:
        save_png(out, image_grids.draw_grid(images, _COLUMNS.value, _SCALE.value))
        if "text" in condition:
            write_atomic(out.with_suffix(".json"), json.dumps(said, indent=2))
    else:
        for i, image in enumerate(images):
            name = out / prompts.file_name(i, said[i])
            if image.ndim == 4:
                animated = image_grids.encode_gif(
                    image[None], image_grids.GIF_FPS, _SCALE.value
                )
                save_bytes(name.with_suffix(".gif"), animated)
            else:
                save_png(name, image)
    print(f"{len(images)} images, step {generator.step}: {out}")


if __name__ == "__main__":
    cli.run(main)
