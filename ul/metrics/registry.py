"""The metrics of `ul evaluate`, one row each.

The choices of --metrics, the printed table, the columns of a sweep's report and of its
trials.csv, and the list in the documentation are all derived from METRICS. To add a
metric, write its function in a file of this package and its row here. A metric that needs
the run itself (its networks, its config, its data) names a `Measurement` of ul/evaluation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ul.metrics import inception_score, likelihood, precision_recall, reconstruction
from ul.metrics.features import clip, lpips, pixels
from ul.metrics.metric import (
    CLIPS,
    GENERATION,
    HIGHER,
    IMAGES,
    LOWER,
    RECONSTRUCTION,
    ColumnSpec,
    FeatureMetric,
    Metric,
    PairMetric,
    RunMetric,
    mean_and_sem,
)
from ul.metrics.streaming import MAX_ROWS


def _lpips(image: np.ndarray, other: np.ndarray, network: Callable) -> np.ndarray:
    return network(image=image, other=other)


_PIXEL_FRECHET: dict[str, Any] = dict(
    feature=pixels.NAME,
    side_multiple=8,
)
_PRECISION_RECALL: dict[str, Any] = dict(
    evaluation=GENERATION,
    feature="pool_rows",
    min_count=precision_recall.NEIGHBORS + 1,
    protocol=(
        f"k = {precision_recall.NEIGHBORS}, at most {MAX_ROWS} reference images, "
        "distances in float64 (the ADM evaluator's are float16)"
    ),
)

METRICS: tuple[Metric, ...] = (
    RunMetric(
        name="rate",
        evaluation=RECONSTRUCTION,
        description="bits per pixel of the latent under the prior, with every other term "
        "of the objective; for Gaussian data also the exact optimum",
        columns=(
            ColumnSpec("rate_bpp", "rate, bits/pixel", better=LOWER),
            ColumnSpec("optimum_bpp", "optimal rate, bits/pixel", in_page=False),
            ColumnSpec(
                "optimum_psnr_db", "optimal PSNR, dB", format="{:.2f}", in_page=False
            ),
        ),
        requirement="latents with noise",
        computation="rate",
    ),
    PairMetric(
        name="psnr",
        evaluation=RECONSTRUCTION,
        description="peak signal-to-noise ratio: the mean over images; pooled: that of the "
        "mean squared error of all images",
        columns=(
            ColumnSpec("psnr_db", "PSNR, dB", HIGHER, "{:.2f}", plotted=True),
            ColumnSpec(
                "pooled_psnr_db", "pooled PSNR, dB", HIGHER, "{:.2f}", in_page=False
            ),
        ),
        values=reconstruction.mse,
        per_frame=False,
        numbers=lambda mse: {
            **mean_and_sem("psnr_db", reconstruction.psnr_from_mse(mse)),
            "pooled_psnr_db": float(reconstruction.psnr_from_mse(mse.mean())),
        },
        protocol="per image, peak 255, then the mean; pooled: of the mean squared error",
        expected=True,
    ),
    RunMetric(
        name="gaussian_psnr",
        evaluation=RECONSTRUCTION,
        description="PSNR at the measured rate if the training images were Gaussian",
        columns=(
            ColumnSpec(
                "gaussian_psnr_db", "Gaussian PSNR, dB", format="{:.2f}", in_page=False
            ),
        ),
        requirement="latents with noise; 10 training images per dimension, at most 4096 "
        "dimensions",
        computation="gaussian_psnr",
    ),
    PairMetric(
        name="ssim",
        evaluation=RECONSTRUCTION,
        description="structural similarity (Wang et al. 2004)",
        columns=(ColumnSpec("ssim", "SSIM", HIGHER, plotted=True),),
        values=reconstruction.ssim,
        protocol=reconstruction.ssim_description,
        expected=True,
    ),
    PairMetric(
        name="lpips",
        evaluation=RECONSTRUCTION,
        description="perceptual distance of VGG16 (arXiv 1801.03924)",
        columns=(ColumnSpec("lpips", "LPIPS", LOWER, "{:.4f}", plotted=True),),
        values=_lpips,
        network="lpips",
        min_side=lpips.MIN_SIDE,
        expected=True,
    ),
    FeatureMetric(
        name="rfid",
        evaluation=RECONSTRUCTION,
        description="FID of reconstructions against their originals",
        columns=(ColumnSpec("rfid", "rFID", LOWER, plotted=True),),
        feature="pool",
        protocol="against the same images",
        expected=True,
    ),
    FeatureMetric(
        name="reconstruction_frechet",
        evaluation=RECONSTRUCTION,
        description="Frechet distance of 8x8 block means of reconstructions and originals",
        columns=(
            ColumnSpec(
                "reconstruction_frechet",
                "rec. pixel Frechet (not FID)",
                LOWER,
                plotted=True,
            ),
        ),
        protocol=f"{pixels.NAME}: not FID; against the same images",
        **_PIXEL_FRECHET,
    ),
    RunMetric(
        name="bound",
        evaluation=RECONSTRUCTION,
        description="upper bound on the negative log-likelihood of 8-bit images",
        columns=(ColumnSpec("bound_bpd", "bound, bits/dim", LOWER, in_page=False),),
        requirement="a diffusion prior and a diffusion decoder",
        protocol=likelihood.DESCRIPTION,
        computation="likelihood_bound",
    ),
    RunMetric(
        name="bits",
        evaluation=RECONSTRUCTION,
        description="the rate split by noise level, latent channel and position, as figures",
        columns=(),
        arrays=("bits_by_logsnr", "bits_by_channel"),
        requirement="a diffusion prior and a diffusion decoder",
        computation="rate_split",
    ),
    FeatureMetric(
        name="fid",
        evaluation=GENERATION,
        description="Frechet distance of Inception's pooled features (arXiv 1706.08500)",
        columns=(
            ColumnSpec("fid", "FID", LOWER, plotted=True),
            ColumnSpec("fid_decoded", "decoded FID", in_page=False),
        ),
        decoded_key="fid_decoded",
        feature="pool",
        expected=True,
    ),
    FeatureMetric(
        name="sfid",
        evaluation=GENERATION,
        description="Frechet distance of Inception's spatial features (arXiv 2103.03841)",
        columns=(ColumnSpec("sfid", "sFID", LOWER),),
        feature="spatial",
    ),
    FeatureMetric(
        name="fd_dinov2",
        evaluation=GENERATION,
        description="Frechet distance of DINOv2's features (arXiv 2306.04675)",
        columns=(ColumnSpec("fd_dinov2", "FD-DINOv2", LOWER, plotted=True),),
        feature="dinov2",
    ),
    FeatureMetric(
        name="fvd",
        evaluation=GENERATION,
        description="Frechet distance of I3D's logits of clips (arXiv 1812.01717)",
        columns=(ColumnSpec("fvd", "FVD", LOWER, plotted=True),),
        feature="i3d",
        data=(CLIPS,),
    ),
    FeatureMetric(
        name="frechet",
        evaluation=GENERATION,
        description="Frechet distance of 8x8 block means; the same of held-out images",
        columns=(
            ColumnSpec("frechet", "gen. pixel Frechet (not FID)", LOWER, plotted=True),
            ColumnSpec("frechet_real", "real pixel Frechet", in_page=False),
            ColumnSpec("frechet_decoded", "decoded pixel Frechet", in_page=False),
        ),
        held_out_key="frechet_real",
        decoded_key="frechet_decoded",
        protocol=f"{pixels.NAME}: not FID, no pretrained network",
        **_PIXEL_FRECHET,
    ),
    FeatureMetric(
        name="inception_score",
        evaluation=GENERATION,
        description="inception score (arXiv 1606.03498)",
        columns=(ColumnSpec("inception_score", "Inception score", HIGHER),),
        feature="probs",
        value=lambda comparison, feature: comparison.samples.score.value(),
        referenced=False,
        protocol=f"mean of splits of {inception_score.SPLIT_SIZE}, in order",
    ),
    FeatureMetric(
        name="precision",
        description="share of samples among the reference (arXiv 1904.06991)",
        columns=(ColumnSpec("precision", "precision", HIGHER),),
        value=lambda comparison, feature: comparison.precision_recall[0],
        **_PRECISION_RECALL,
    ),
    FeatureMetric(
        name="recall",
        description="share of the reference among the samples (arXiv 1904.06991)",
        columns=(ColumnSpec("recall", "recall", HIGHER),),
        value=lambda comparison, feature: comparison.precision_recall[1],
        **_PRECISION_RECALL,
    ),
    RunMetric(
        name="class_accuracy",
        evaluation=GENERATION,
        description="share of samples that a classifier of real images assigns to their "
        "class",
        columns=(
            ColumnSpec("class_accuracy", "class accuracy", HIGHER),
            ColumnSpec(
                "class_accuracy_real", "class accuracy of real images", in_page=False
            ),
        ),
        data=(IMAGES,),
        requirement="the source `digits`",
        computation="class_probe",
    ),
    RunMetric(
        name="text_accuracy",
        evaluation=GENERATION,
        description="share of samples that show the digit and the color of their caption",
        columns=(
            ColumnSpec("text_accuracy", "text accuracy", HIGHER),
            ColumnSpec(
                "text_accuracy_real", "text accuracy of real images", in_page=False
            ),
            ColumnSpec("text_accuracy_digit", "digit accuracy", HIGHER, in_page=False),
            ColumnSpec("text_accuracy_color", "color accuracy", HIGHER, in_page=False),
        ),
        data=(IMAGES,),
        requirement="the source `colored_digits`, conditioned on text",
        computation="caption_probe",
    ),
    RunMetric(
        name="identity_kept",
        evaluation=GENERATION,
        description="share of clips whose digit stays the same, and its distance from where "
        "it should move; beside that of a digit that stands still",
        columns=(
            ColumnSpec("identity_kept", "identity kept", HIGHER),
            ColumnSpec(
                "identity_kept_real", "identity kept in real clips", in_page=False
            ),
            ColumnSpec("position_error_px", "position error, pixels", LOWER, "{:.2f}"),
            ColumnSpec(
                "position_error_standing_px",
                "position error of a still digit, pixels",
                format="{:.2f}",
                in_page=False,
            ),
        ),
        data=(CLIPS,),
        requirement="the source `moving_digits`, conditioned on context frames",
        computation="motion_probe",
    ),
    RunMetric(
        name="clip_score",
        evaluation=GENERATION,
        description="100 times the mean cosine of samples and captions under CLIP",
        columns=(ColumnSpec("clip_score", "CLIP score", HIGHER, "{:.2f}"),),
        data=(IMAGES,),
        requirement=f"text conditioning; `{clip.FILE}`",
        computation="clip_score",
    ),
    RunMetric(
        name="base_rate",
        evaluation=GENERATION,
        description="bits per pixel of held-out latents under the stage-2 model",
        columns=(ColumnSpec("base_rate_bpp", "base rate, bits/pixel", LOWER),),
        requirement="a stage 2 whose encoder has no variance of its own",
        protocol="unweighted bound on held-out latents, labels given",
        computation="base_rate",
        per_run=True,
    ),
)


def metrics(evaluation: str | None = None) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation, in the order of the tables; None: all."""
    return tuple(m for m in METRICS if evaluation in (None, m.evaluation))


def names(evaluation: str | None = None) -> tuple[str, ...]:
    """Return the choices of --metrics for an evaluation; None: all."""
    return tuple(m.name for m in metrics(evaluation))


def reference_metrics() -> tuple[FeatureMetric, ...]:
    """Return the metrics that compare samples with a reference."""
    candidates = [m for m in metrics(GENERATION) if isinstance(m, FeatureMetric)]
    return tuple(m for m in candidates if m.referenced)


def columns() -> tuple[tuple[Metric, ColumnSpec], ...]:
    """Return every column with its metric, in the order of the tables."""
    return tuple((m, column) for m in METRICS for column in m.columns)


def find_column(key: str) -> ColumnSpec:
    """Return the column of a JSON key. Raises KeyError for a key without one."""
    return {column.key: column for _, column in columns()}[key]


def markdown() -> str:
    """Return the list of all metrics as a Markdown table, for the documentation."""
    keys = "keys in the JSON (↑ higher is better, ↓ lower)"
    head = ("`--metrics`", "evaluates", "of", keys, "needs", "description")
    lines = [head, ("---",) * len(head), *(m.markdown_cells() for m in METRICS)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
