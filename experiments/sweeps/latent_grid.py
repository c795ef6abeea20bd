"""The paper's table 4: the latents' grid, by the stages of encoder and decoder.

    python -m launch.sweep experiments/sweeps/latent_grid.py --out runs/latent_grid --jobs 2

A stage more or less on both sides; latent channels stay. The paper's grids are 64x64, 32x32
and 16x16; of photographs of 16x16 they are 8x8, 4x4 and 2x2.
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, zipped

# Grid: channels and blocks of the encoder, channels of the decoder.
_STAGES = {
    "photos": {
        8: ((64,), (3,), ()),
        4: ((32, 64), (2, 3), (64,)),
        2: ((32, 64, 64), (2, 2, 3), (64, 64)),
    },
    "imagenet512": {
        64: ((128, 256, 512), (2, 2, 3), (128, 256)),
        32: ((128, 256, 512, 512), (2, 2, 2, 3), (128, 256, 512)),
        16: ((128, 256, 512, 512, 512), (2, 2, 2, 2, 3), (128, 256, 512, 512)),
    },
}


def get_sweep(arg: str = "photos") -> list[dict]:
    configs = bases.configs(arg)
    encoder, blocks, decoder = zip(*_STAGES[arg].values(), strict=True)
    points = zipped(
        grid("encoder.channels", encoder),
        grid("encoder.blocks", blocks),
        grid("decoder.channels", decoder),
    )
    names = {stages: f"grid{side}" for side, (stages, _, _) in _STAGES[arg].items()}
    return sweeps.trials(
        points, name=lambda point: names[point["encoder.channels"]], **configs
    )
