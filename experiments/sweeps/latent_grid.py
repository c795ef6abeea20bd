"""The sweep of the paper's table 4: the height and width of the latents.

    python -m ul sweep latent_grid --out runs/latent_grid --jobs 2

Encoder and decoder get one level more or less; the number of latent channels stays. The
paper has grids of 64x64, 32x32 and 16x16. Here they are 8x8, 4x4 and 2x2, because the data
are photographs of 16x16. `:imagenet512` after the file runs it on ImageNet at 512x512 with
the paper's grids (never run).
"""

from experiments import sweeps
from experiments.sweeps import bases, grid, zipped

# By side of the grid: channels and blocks of the encoder, channels of the decoder.
_LEVELS = {
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
    encoder_channels, blocks, decoder_channels = zip(
        *_LEVELS[arg].values(), strict=True
    )
    points = zipped(
        grid("encoder.channels", encoder_channels),
        grid("encoder.blocks", blocks),
        grid("decoder.channels", decoder_channels),
    )
    names = {channels: f"grid{side}" for side, (channels, _, _) in _LEVELS[arg].items()}
    return sweeps.trials(
        points, name=lambda point: names[point["encoder.channels"]], **configs
    )
