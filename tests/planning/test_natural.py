"""The shipped spectrum of natural photographs, and the paper's bitrates."""

import json

import numpy as np
import pytest

from experiments import imagenet512
from tests.lib import forks
from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.diffusion import waterfilling
from ul.planning import natural, radial

# Bits per pixel by loss factor (arXiv 2602.17270, table 2).
PAPER_BPP = {1.3: 0.035, 1.5: 0.059, 1.7: 0.083, 1.9: 0.101, 2.1: 0.116}
SHAPE = (512, 512, 3)
LATENT_ELEMENTS = 32 * 32 * 32


@pytest.mark.slow
def test_the_file_is_what_its_command_writes():
    made, shipped = json.loads(natural.make()), json.loads(natural.FILE.read_text())
    assert made["sources"] == shipped["sources"]
    # Another Pillow resizes a little differently.
    for name in ("rings", "constant"):
        np.testing.assert_allclose(made[name], shipped[name], rtol=0.02)


def test_one_bias_gives_the_five_bitrates_of_the_paper():
    variances = natural.spectrum(SHAPE).variances[:LATENT_ELEMENTS]
    bias = imagenet512.get_config("stage1").loss.weighting.bias
    for factor, paper_bpp in PAPER_BPP.items():
        precision = waterfilling.posterior_precision(factor, bias)
        bpp = waterfilling.rate_bits(variances, precision) / 512**2
        np.testing.assert_allclose(bpp, paper_bpp, rtol=0.25)


def test_a_reduced_image_keeps_its_low_frequencies():
    """A color photograph averaged over 4x4 pixels, against the rings of the original."""
    image = natural.photographs()[..., :1]
    small = image.reshape(len(image), 128, 4, 128, 4, 1).mean((2, 4)).round()
    measured = radial.radial_spectrum(small.astype(np.uint8)).variances
    expected = radial.estimate(image).at(128, 128).variances
    # An average over pixels also weakens the frequencies near the new limit.
    np.testing.assert_allclose(expected[:200], measured[:200], rtol=0.15)


def test_images_of_another_kind_are_refused():
    for shape in ((1024, 1024, 3), (512, 512, 1)):
        with pytest.raises(ConfigError, match="at most 512 pixels"):
            natural.spectrum(shape)


def test_a_plan_without_the_data(tmp_path):
    words = ["bitrate", "--config=imagenet512:stage1", "--spectrum=natural"]
    words.append(f"--out={tmp_path / 'plan.png'}")
    (done,) = forks.run_all([["plan", *words, "--factors=1.5", "--biases=0"]])
    assert done.code == 0 and "0.0106" in done.out and "coded of 786432" in done.out


BREAKS = (
    Break(
        "coefficients of a smaller image that are as large as those of the original",
        "ul/planning/radial.py",
        "* (min(height, width) / side) ** 2",
        "* 1.0",
        "test_a_reduced_image_keeps_its_low_frequencies",
    ),
)
