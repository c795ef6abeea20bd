"""Predict rate and PSNR of each trial by water-filling of its training data."""

import json
from collections.abc import Callable, Iterable

import numpy as np

from ul.config import JointConfig
from ul.core.errors import UserError
from ul.planning import bitrate
from ul.planning.bitrate import BitratePrediction
from ul.planning.spectrum import Spectrum
from ul.sweeps.report.rows import RateDistortionCurve, TrialResult

CURVE_POINTS = 80


def predict_trials(
    trials: Iterable[TrialResult], progress: Callable[[str], None]
) -> tuple[dict[str, BitratePrediction], list[RateDistortionCurve], list[str]]:
    """Predict each trial that has a stage 1 of kind 'joint'.

    Returns the predictions by the trials' names, the curve of each data set on which they
    lie, and a line for each data set that could not be predicted. Each data set is read
    once.
    """
    groups: dict[str, list[tuple[str, JointConfig]]] = {}
    for trial in trials:
        for stage in trial.stages:
            if type(stage.parsed) is JointConfig and stage.config is not None:
                data = json.dumps(stage.config["data"], sort_keys=True)
                groups.setdefault(data, []).append((trial.name, stage.parsed))
    predictions: dict[str, BitratePrediction] = {}
    curves, failures = [], []
    for members in groups.values():
        first = members[0][1]
        kind = first.data.source["kind"]
        progress(f"reading the training images ({kind}) for the planner's predictions")
        try:
            plan = bitrate.make_plan(
                first, [first.loss.weighting.factor], [first.loss.weighting.bias]
            )
            group = {
                name: bitrate.predict(
                    plan.spectrum,
                    plan.num_pixels,
                    c.loss.weighting.factor,
                    c.loss.weighting.bias,
                )
                for name, c in members
            }
        except (UserError, OSError) as e:
            names = ", ".join(name for name, _ in members)
            failures.append(f"no prediction for {names}: {e}")
            continue
        predictions |= group
        curves.append(rate_distortion_curve(plan.spectrum, plan.num_pixels))
    return predictions, curves, failures


def rate_distortion_curve(spectrum: Spectrum, num_pixels: int) -> RateDistortionCurve:
    """Return rate and PSNR of Gaussian data with this spectrum, from low rates to high."""
    largest = float(spectrum.codable_variances[0])
    smallest = max(float(spectrum.codable_variances[-1]), largest * 1e-7)
    precisions = np.geomspace(1.0001 / largest, 10.0 / smallest, CURVE_POINTS)
    return RateDistortionCurve(
        bpp=tuple(spectrum.bits(p) / num_pixels for p in precisions),
        sample_psnr_db=tuple(spectrum.sample_psnr_db(p) for p in precisions),
        mean_psnr_db=tuple(spectrum.mean_psnr_db(p) for p in precisions),
    )
