"""Sample images or clips from a stage-2 run.

    python -m ul sample --workdir runs/s2 --num 100 --grid --out samples.png
    python -m ul sample --workdir runs/s2 --num 16 --labels 3 --out samples/
    python -m ul sample --workdir runs/c2 --num 16 --text "a red three" --out samples/

Images are written as PNG files, clips as GIF files. Sample i depends only on --seed and i.
"""

import json

from absl import flags
from etils import epath

from launch.lib import cli, common_flags, compiled, prompts, sample_files
from ul.core.errors import ConfigError
from ul.core.files import write_atomic
from ul.inference import api
from ul.train import image_grids
from ul.train.writer import save_png

_WORKDIR = flags.DEFINE_string("workdir", None, "Stage-2 run. Required.")
_OUT = flags.DEFINE_string(
    "out", None, "Directory for the samples, or the PNG file for --grid. Required."
)
_NUM = flags.DEFINE_integer("num", 16, "Number of samples.", 1)
_GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Guidance scale; 1 means no guidance.")
_GUIDING_MODEL = flags.DEFINE_string(
    "autoguidance",
    None,
    "Smaller or less trained stage-2 run for autoguidance (arXiv 2406.02507), as "
    "WORKDIR[:STEP][@WEIGHTS]; needs --guidance other than 1.",
)
_SEED = common_flags.define_seed()
_STEP = common_flags.define_step()
_WEIGHTS = common_flags.define_weights()
_STAGE1 = common_flags.define_stage1_workdir()
_GRID = flags.DEFINE_bool(
    "grid", False, "Write one image of all samples; each clip is a row of its frames."
)
_COLUMNS = flags.DEFINE_integer("columns", 10, "Columns of the grid.", 1)
_SCALE = flags.DEFINE_integer("scale", 1, "Enlarge each pixel this many times.", 1)


def main() -> None:
    """Sample and write the files."""
    workdir, out = cli.required(_WORKDIR), epath.Path(cli.required(_OUT))
    if _GUIDING_MODEL.value and _GUIDANCE.value == 1.0:
        raise ConfigError(
            "--guidance must differ from 1 for --autoguidance, because 1 means no guidance; "
            "got 1. Pass, for example, --guidance=1.5."
        )
    compiled.enable()
    generator = api.load_generator(
        workdir,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        stage1_workdir=_STAGE1.value,
        guiding_model=_GUIDING_MODEL.value,
    )
    conditions, names = prompts.conditions(generator, _NUM.value)
    images = generator.sample(
        conditions, guidance=_GUIDANCE.value, seed=_SEED.value, progress=True
    )
    if _GRID.value:
        save_png(out, image_grids.draw_grid(images, _COLUMNS.value, _SCALE.value))
        if "text" in conditions:
            write_atomic(out.with_suffix(".json"), json.dumps(names, indent=2))
    else:
        sample_files.save_each(out, images, names, _SCALE.value)
    print(f"wrote {len(images)} samples of step {generator.step} to {out}")


if __name__ == "__main__":
    cli.run(main)
