"""Decoders of 1, 2, 4 and 8 calls, distilled from one decoder for each of two seeds.

    python -m ul sweep students --out runs/students
    python -m ul sweep students:photos --out runs/students_photos

The argument `digits`, the default, takes digits.py and `photos` photos.py at 32x32. Both
objectives of ul/objectives are compared. `ul samplers --students` shows the students of a
stage 1 beside its own samplers.
"""

from experiments import common, sweeps
from experiments.sweeps import grid, product

# The parts of a segment at the start and at the end of training, by the number of calls.
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
