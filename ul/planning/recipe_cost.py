"""FLOPs of evaluations and of whole recipes, before anything is trained."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ul.core import markdown
from ul.core.errors import ConfigError, DataError
from ul.diffusion.samplers import CORRECTIONS, Sampler
from ul.inference import tiling
from ul.planning.pods import model_flops
from ul.planning.pods.chips import Chip
from ul.runs.train_spec import TrainSpec
from ul.stages.decoder import combine
from ul.stages.stage import Stage

# FLOPs (2 per multiply-add) of one image or clip, without the resizing.
# Inception-v3 at 299x299: 5.7 GMAC (Szegedy et al. 2016; torchvision's model table).
INCEPTION_FLOPS = 11.4e9
# I3D on 64 frames of 224x224: 108 GMAC (Carreira & Zisserman 2017, as counted by
# Tran et al. 2018); it is proportional to the frames.
I3D_FLOPS_PER_FRAME = 2 * 108e9 / 64


@dataclasses.dataclass(frozen=True)
class CostItem:
    """A part of a recipe and its FLOPs."""

    name: str
    flops: float
    details: str


def evaluation_costs(
    stage1: Stage,
    stage2: Stage | None,
    *,
    count: int,
    guidance: float,
    image_size: tuple[int, int] | None = None,
) -> list[CostItem]:
    """Return the FLOPs of the metrics of `count` reconstructions and samples.

    Images of `image_size`, height and width in pixels, are encoded and decoded tile by tile
    (tiling.py). Samples have the size of training.

    Raises:
      ConfigError: a network has no closed form, or the size does not suit the autoencoder.
    """
    if stage2 is not None and stage2.separate_decoder is not None:
        stage1, stage2 = combine(stage1, stage2), None
    flops = forward_flops(stage1)
    features, name = _feature_flops(stage1), "FID"
    if len(stage1.image_shape) == 4:
        name = "FVD"
    items, decoding, text = [], 0.0, ""
    if "encoder" in flops:
        calls = decoder_calls(stage1)
        assert calls is not None
        decoding, text = calls * flops["decoder"], f", {calls} decoder NFE"
        tiles = _num_tiles(stage1, image_size)
        each = tiles * (flops["encoder"] + decoding) + 2 * features
        parts = f"encoder{text}" if tiles == 1 else f"{tiles} tiles x (encoder{text})"
        details = f"{count:,} x ({parts}, features of both images)"
        items.append(CostItem(f"r{name}", count * each, details))
    generator = stage1 if stage2 is None else stage2
    if generator.is_generator:
        if stage2 is not None:
            flops = forward_flops(stage2)
        network = next(n for n in ("base", "prior", "decoder") if n in flops)
        calls = nfe_with_guidance(generator, guidance)
        each = calls * flops[network] + decoding + features
        details = f"{count:,} x ({calls} {network} NFE{text}, features)"
        items.append(CostItem(f"g{name}", count * each, details))
    return items


def training_costs(
    recipe: Sequence[TrainSpec], *, cached_images: int
) -> list[CostItem]:
    """Return the FLOPs of training each stage, and of encoding the images of the second.

    A base model trains on a cache of `cached_images` latents, a decoder on images that are
    encoded in every step; the targets of a student take further forward passes.

    Raises:
      ConfigError: a network has no closed form.
    """
    items = []
    for spec in recipe:
        examples = spec.steps * spec.batch_size
        each = float(model_flops.closed_form_flops(spec.stage).training)
        text = f"{spec.steps:,} steps of {spec.batch_size:,}"
        items.append(CostItem(f"training {spec.stage.name}", examples * each, text))
    encoder = forward_flops(recipe[0].stage).get("encoder")
    if len(recipe) == 1 or encoder is None:
        return items
    name, count, second = "latent cache", cached_images, recipe[1]
    if second.stage.separate_decoder is not None:
        name, count = "encoding", second.steps * second.batch_size
    items.insert(1, CostItem(name, count * encoder, f"{count:,} images"))
    if second.stage.distillation is not None:
        passes = second.stage.distillation.settings.TARGET_PASSES
        text = f"{count:,} images, {passes} forward passes each"
        each = float(model_flops.target_flops(second.stage))
        items.insert(2, CostItem("targets", count * each, text))
    return items


def forward_flops(stage: Stage) -> dict[str, float]:
    """Return the FLOPs of the forward pass of each network on one example."""
    counts = model_flops.flops_by_network(stage)
    return {name: float(count.forward) for name, count in counts.items()}


def nfe_with_guidance(stage: Stage, guidance: float) -> int:
    """Return the function evaluations of a generator's network for one sample.

    With guidance, each one inside the guidance interval counts twice.
    """
    assert stage.sampler is not None
    sampler = stage.sampler.sampler
    if guidance == 1.0:
        return sampler.nfe
    low, high = stage.sampler.interval
    levels = _levels(sampler)
    return sampler.nfe + int(np.sum((levels >= low) & (levels <= high)))


def _levels(sampler: Sampler) -> np.ndarray:
    """Return the log-SNR of every evaluation of a sampler."""
    grid = np.asarray(sampler.grid(sampler.schedule, sampler.num_steps))
    first, second = grid[:-1], grid[1:]
    return np.append(first, second) if sampler.method in CORRECTIONS else first


def decoder_calls(stage: Stage) -> int | None:
    """Return the decoder's calls for one image, with the last prediction of x.

    None for a stage without a decoder.
    """
    own = stage.codec if stage.separate_decoder is None else stage.separate_decoder
    if own is None:
        return None
    sampler = getattr(own.decoder, "sampler", None)
    return 1 if sampler is None else sampler.nfe + 1


def _num_tiles(stage1: Stage, image_size: tuple[int, int] | None) -> int:
    """Return the number of tiles of an image, with the overlap that evaluation uses."""
    if image_size is None:
        return 1
    assert stage1.latent_shape is not None
    height, width = stage1.image_shape[-3:-1]
    rows, columns = stage1.latent_shape[-3:-1]
    cell = height // rows, width // columns
    if any(size % pixels for size, pixels in zip(image_size, cell, strict=True)):
        raise ConfigError(
            f"--image_size must be multiples of a latent cell, {cell[0]}x{cell[1]} pixels; "
            f"got {image_size[0]}x{image_size[1]}."
        )
    grid = image_size[0] // cell[0], image_size[1] // cell[1]
    try:
        return len(tiling.plan_tiles(grid, (rows, columns), tiling.DEFAULT_OVERLAP))
    except DataError:
        raise ConfigError(
            f"--image_size must be at least the size of training, {height}x{width}; got "
            f"{image_size[0]}x{image_size[1]}."
        ) from None


def _feature_flops(stage: Stage) -> float:
    """Return the FLOPs of the features of one image or clip."""
    if len(stage.image_shape) == 4:
        return stage.image_shape[0] * I3D_FLOPS_PER_FRAME
    return INCEPTION_FLOPS


def to_markdown(
    items: Sequence[CostItem], chip: Chip, utilization: float, num_chips: int
) -> str:
    """Return the table of FLOPs and chip-hours at a share of the chip's peak.

    Raises:
      ConfigError: the share is not in (0, 1].
    """
    if not 0.0 < utilization <= 1.0:
        raise ConfigError(f"--utilization must be in (0, 1]; got {utilization}.")
    total = CostItem("total", math.fsum(item.flops for item in items), "")
    rows = [
        ["part", "EFLOP", "chip-hours", f"hours on {num_chips} chips", "computation"]
    ]
    for item in [*items, total]:
        hours = item.flops / (chip.flops * utilization) / 3600.0
        cells = map(_three_digits, (item.flops / 1e18, hours, hours / num_chips))
        rows.append([item.name, *cells, item.details])
    return (
        markdown.table(rows)
        + f"\n\nAt {utilization:.0%} of the peak of {chip.name}, {chip.flops / 1e12:g} "
        "TFLOP/s. Linear layers,\nconvolutions and attention are counted, 1 MAC = 2 FLOP."
    )


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"
