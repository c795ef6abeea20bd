"""What water-filling of the training data says of each trial, before any training."""

import json
import math
from collections.abc import Callable, Iterable

import numpy as np

from ul.config import JointConfig
from ul.core.errors import UserError
from ul.planning import bitrate
from ul.planning.spectrum import Spectrum
from ul.sweeps.report.rows import Curve, Prediction, Trial

CURVE_POINTS = 80
PEAK = 2.0


def predict(
    trials: Iterable[Trial], progress: Callable[[str], None]
) -> tuple[dict[str, Prediction], list[Curve], list[str]]:
    """Of each trial with a stage 1 of Unified Latents, by its name; for each data set
    the curve they lie on; and what could not be predicted, one line each.

    A data set is read once.
    """
    groups: dict[str, list[tuple[str, JointConfig]]] = {}
    for trial in trials:
        for stage in trial.stages:
            if type(stage.parsed) is JointConfig and stage.config is not None:
                key = json.dumps(stage.config["data"], sort_keys=True)
                groups.setdefault(key, []).append((trial.name, stage.parsed))
    found: dict[str, Prediction] = {}
    curves, missing = [], []
    for members in groups.values():
        first = members[0][1]
        kind = str(first.data.source["kind"])
        progress(f"reading the training images ({kind}) for the planner's predictions")
        try:
            plan = bitrate.prepare(
                first, [first.loss.weighting.factor], [first.loss.weighting.bias]
            )
            rows = {
                name: bitrate.row(
                    plan.spectrum,
                    plan.pixels,
                    c.loss.weighting.factor,
                    c.loss.weighting.bias,
                )
                for name, c in members
            }
        except (UserError, OSError) as e:
            names = ", ".join(name for name, _ in members)
            missing.append(f"no prediction for {names}: {e}")
            continue
        found |= {n: Prediction(r.bpp, r.psnr_sampled_db) for n, r in rows.items()}
        shape = "x".join(map(str, first.data.image_shape))
        what = f"{kind} {shape}: {plan.spectrum.estimator}"
        curves.append(curve(plan.spectrum, plan.pixels, what))
    return found, curves, missing


def curve(spectrum: Spectrum, pixels: int, what: str) -> Curve:
    """Rate and PSNR of Gaussian data with this spectrum, from nearly no bits to many."""
    largest = float(spectrum.codable[0])
    smallest = max(float(spectrum.codable[-1]), largest * 1e-7)
    precisions = np.geomspace(1.0001 / largest, 10.0 / smallest, CURVE_POINTS)
    mse = [spectrum.mse(p) for p in precisions]
    mean, sampled = (
        tuple(10.0 * math.log10(PEAK**2 / (k * m)) for m in mse) for k in (1.0, 2.0)
    )
    bpp = tuple(spectrum.bits(p) / pixels for p in precisions)
    return Curve(bpp, sampled, mean, what)
