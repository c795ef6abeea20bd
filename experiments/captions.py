"""Digits in colors with captions: a text-to-image model small enough to be measured.

    python -m ul train --config captions:stage1 --workdir runs/c1
    python -m ul train --config captions:stage2 --workdir runs/c2 \\
        --config.stage1.workdir=runs/c1
    python -m ul evaluate --workdir runs/c2 --num_examples 600 --guidance 1,2
    python -m ul sample --workdir runs/c2 --text "a red three" --out three.png --grid

The data are scikit-learn's digits, 8x8, in six colors, with captions of six forms; each
word is a fixed random vector in place of a text encoder's output. The networks are those of
digits.py. `stage1` does not see the captions, `stage2` is conditioned on them. `smoke` and
`smoke2` are stage 1 and stage 2 with tiny networks, for tests that take seconds.

The evaluation of stage 2 samples from held-out captions. `text_accuracy` is the fraction of
samples that show the digit and the color of their caption, according to classifiers of real
training images.

Expected: a text accuracy of 0.97 at guidance 2 and 0.84 at guidance 1, after 8 minutes for
stage 1 and 9 minutes for stage 2 on two shared cores (RESULTS.md).
"""

import ml_collections

from experiments import common, digits

VARIANTS = ("stage1", "stage2", "smoke", "smoke2")


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    c = digits.get_config(arg).unlock()
    c.data.source = dict(kind="colored_digits")
    c.data.image_shape = (8, 8, 3)
    if c.stage == "base":
        # Tokens of a caption, and channels of the vector of each word.
        c.data.text = (12, 32)
    return c.lock()
