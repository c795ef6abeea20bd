"""Predict rate and PSNR of each trial by water-filling of its training data."""

import json
from collections.abc import Callable, Iterable

import numpy as np

from ul.core.errors import UserError
from ul.diffusion.weightings import Sigmoid
from ul.planning import bitrate
from ul.planning.bitrate import BitratePrediction
from ul.planning.spectrum import Spectrum
from ul.sweeps.report.rows import RateDistortionCurve, StageRun, TrialResult

CURVE_POINTS = 80


def predict_trials(
    trials: Iterable[TrialResult], progress: Callable[[str], None]
) -> tuple[dict[str, BitratePrediction], list[RateDistortionCurve], list[str]]:
    """Predict each trial that has a stage 1 of kind 'joint'.

    Returns the predictions by the trials' names, the curve of each dataset on which they
    lie, and a line for each dataset that could not be predicted. Each dataset is read
    once.
    """
    groups: dict[str, list[tuple[str, StageRun, Sigmoid]]] = {}
    for trial in trials:
        for run in trial.stages:
            if run.stage is None or run.config is None or run.stage.name != "joint":
                continue
            if isinstance(weighting := run.stage.weighting, Sigmoid):
                data = json.dumps(run.config["data"], sort_keys=True)
                groups.setdefault(data, []).append((trial.name, run, weighting))
    predictions: dict[str, BitratePrediction] = {}
    curves, failures = [], []
    for members in groups.values():
        _, run, first = members[0]
        assert run.stage is not None and run.datasets is not None
        kind = run.datasets.source_kind
        progress(f"reading the training images ({kind}) for the planner's predictions")
        try:
            plan = bitrate.make_plan(
                run.stage,
                run.datasets,
                [first.factor],
                [first.bias],
                measure_entropy=False,
            )
            group = {
                name: bitrate.predict(
                    plan.spectrum,
                    plan.num_pixels,
                    plan.latent,
                    weighting.factor,
                    weighting.bias,
                )
                for name, _, weighting in members
            }
        except (UserError, OSError) as e:
            names = ", ".join(name for name, _, _ in members)
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
