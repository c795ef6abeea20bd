"""Bitrates, sizes and training lengths of stage 2, for the law of the best bitrate.

    python -m ul sweep budget --out runs/budget --jobs 2
    python -m ul plan budget --runs runs/budget --picture budget.png

Four bitrates, four sizes of the base and three training lengths on photographs of 16x16; all
trials of a bitrate share one stage 1. The largest base is not trained for the longest time.
`:digits` is a smaller sweep on digits.
"""

from experiments import common, sweeps
from experiments.sweeps import bases, grid, product, zipped

_WIDTHS = ((64, 64), (64, 128), (128, 128), (128, 256))
_DEPTHS = ((2, 2), (2, 4), (4, 4), (4, 6))
_STEPS = (400, 1600, 6400)
_DIGITS = dict(
    stage1="digits:stage1",
    stage2="digits:stage2",
    fixed={"steps": 1000, "loss.ramp_steps": 500},
)


def get_sweep(arg: str = "photos") -> list[dict]:
    common.check_variant(arg, ("photos", "digits"))
    if arg == "digits":
        configs = _DIGITS
        sizes = grid("stage2:base.widths", ((32,), (64,), (128,)))
    else:
        configs = bases.configs(arg)
        sizes = zipped(
            grid("stage2:base.widths", _WIDTHS), grid("stage2:base.depths", _DEPTHS)
        )
    fixed = {k: v for k, v in configs["fixed"].items() if k != "stage2:steps"}
    # The law compares samples with decoded images, so both are measured alike, and often.
    fixed |= {"stage2:eval.num_samples": 2048, "stage2:eval.decoded": True}
    points = product(
        grid("loss.weighting.factor", (1.3, 1.7, 2.2, 3.0)),
        sizes,
        grid("stage2:steps", _STEPS),
    )
    if arg == "photos":
        most = {"stage2:base.widths": _WIDTHS[-1], "stage2:steps": _STEPS[-1]}
        points = [p for p in points if not most.items() <= p.items()]
    return sweeps.trials(points, share_stage1=True, **(configs | {"fixed": fixed}))
