"""The sweep of the last columns of the paper's table 2: sizes of stage 2 at two bitrates.

    python -m ul sweep base_size --out runs/base_size --jobs 2

All sizes at one loss factor share one stage 1, which is trained once. The data are
photographs of 16x16. `:imagenet512` after the file runs it on ImageNet at 512x512 instead
(never run).
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, product, zipped

_SIZES = {
    "photos": (((64, 64), (2, 4)), ((64, 128), (4, 6)), ((128, 256), (4, 6))),
    "imagenet512": (((512, 1024), (6, 16)), ((640, 1280), (6, 16))),
}


def get_sweep(arg: str = "photos") -> list[dict]:
    configs = bases.configs(arg)
    widths, depths = zip(*_SIZES[arg], strict=True)
    sizes = zipped(
        grid("stage2:base.widths", widths), grid("stage2:base.depths", depths)
    )
    points = product(grid("loss.weighting.factor", (1.5, 2.0)), sizes)
    return sweeps.trials(points, share_stage1=True, **configs)
