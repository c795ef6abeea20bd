"""Distill decoders of 1, 2, 4 and 8 network calls from one teacher per seed, two seeds.

    python -m ul sweep students --out runs/students
    python -m ul sweep students:photos --out runs/students_photos

`:digits`, the default, uses digits.py, and `:photos` uses photos.py at 32x32. The sweep
compares consistency distillation with moment matching. `ul samplers --students` compares the
students of a stage 1 with the samplers of their teacher.
"""

from experiments import common, sweeps
from experiments.sweeps import grid, product

# Number of parts per segment at the start and the end of training, by number of calls.
SUBSTEPS = {1: (4, 32), 2: (4, 16), 4: (4, 12), 8: (4, 8)}
SAMPLERS = {"consistency": "ddim", "moment_matching": "renoise"}


def _settings(point: dict) -> dict:
    """Return the sampling of a student, which follows from its distillation."""
    calls = point["stage2:distillation.num_calls"]
    kind = point["stage2:distillation.kind"]
    settings = {
        "stage2:sampling.num_steps": calls,
        "stage2:sampling.kind": SAMPLERS[kind],
    }
    if kind == "consistency":
        settings["stage2:distillation.substeps"] = SUBSTEPS[calls]
    return settings


def get_sweep(arg: str = "digits") -> list[dict]:
    """Return the trials on the data of `arg`."""
    common.check_variant(arg, ("digits", "photos"))
    return sweeps.trials(
        product(
            grid("both:seed", (0, 1)),
            grid("stage2:distillation.kind", tuple(SAMPLERS)),
            grid("stage2:distillation.num_calls", tuple(SUBSTEPS)),
        ),
        stage1=f"{arg}:stage1",
        stage2=f"{arg}:distill",
        follow=_settings,
        share_stage1=True,
    )
