"""Compare the outputs of samplers with that of a reference from the same noise."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ul.metrics import frechet
from ul.metrics.features import pixels

# Number of examples in the picture of a comparison.
MAX_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class SamplerErrors:
    """The errors of one sampler.

    nfe: function evaluations of the network for one sample, with the decoder's last one.
    distance: root mean square difference to the ODE solution from the same noise; None for
      stochastic samplers. In 8-bit levels for a decoder, in standard deviations of the
      noise in z_0 for a base model.
    std_ratio: standard deviation of x given z_0 divided by that of the reference; 1 is
      ideal. None for a base model.
    frechet: Frechet distance of 8x8 block means to the real images; None for clips and for
      sides that are not multiples of 8.
    images_per_s: images that were decoded per second; None for a base model.
    images: uint8 samples of at most MAX_SHOWN examples, for `sampler_comparison.draw`.
    """

    pair: str
    num_steps: int
    nfe: int
    distance: float | None
    std_ratio: float | None
    frechet: float | None
    images_per_s: float | None
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class SamplerOutput:
    """Samples of one sampler: values to compare, uint8 images, and values of a second seed.

    Only decoders have a second seed, and a speed.
    """

    values: np.ndarray
    images: np.ndarray
    second: np.ndarray | None = None
    images_per_s: float | None = None


class Candidate(NamedTuple):
    """A sampler to compare; `nfe` as in `SamplerErrors`. run() -> its output."""

    name: str
    num_steps: int
    nfe: int
    is_stochastic: bool
    run: Callable[[], SamplerOutput]


def compare_outputs(
    candidates: Sequence[Candidate], images: np.ndarray
) -> list[SamplerErrors]:
    """Compare candidates with the first one, which serves as the reference."""
    progress = tqdm(candidates, unit="sampler", dynamic_ncols=True)
    reference, rows = None, []
    for candidate in progress:
        progress.set_description(f"{candidate.name} {candidate.num_steps}")
        output = candidate.run()
        reference = reference or output
        distance = _rms(output.values - reference.values)
        rows.append(
            SamplerErrors(
                pair=candidate.name,
                num_steps=candidate.num_steps,
                nfe=candidate.nfe,
                distance=None if candidate.is_stochastic else distance,
                std_ratio=_std_ratio(output, reference),
                frechet=_frechet(output.images, images),
                images_per_s=output.images_per_s,
                images=output.images[:MAX_SHOWN],
            )
        )
    return rows


def _frechet(samples: np.ndarray, real: np.ndarray) -> float | None:
    """Return the Frechet distance of 8x8 block means; None if images have none."""
    if real.ndim != 4 or real.shape[1] % 8 or real.shape[2] % 8:
        return None
    fitted = (frechet.fit_gaussian(pixels.features(x)) for x in (samples, real))
    return frechet.distance(*fitted)


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _std_ratio(output: SamplerOutput, reference: SamplerOutput) -> float | None:
    if output.second is None or reference.second is None:
        return None
    return _rms(output.values - output.second) / _rms(
        reference.values - reference.second
    )
