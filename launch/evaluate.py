"""Evaluate a run's checkpoints: a JSON and a picture each under workdir/evals.

python -m launch.evaluate --workdir runs/s1
python -m launch.evaluate --workdir runs/s2 --num_examples 500 --guidance 1,1.5
python -m launch.evaluate --workdir runs/s2 --step all --weights both --metrics fid,frechet
python -m launch.evaluate --make_reference refs/mine.npz --split train \\
  --config experiments/photos.py:stage1_16 --metrics fid,fd_dinov2 --weights_dir weights
"""

import os

from absl import flags

from launch.lib import cli
from ul import evaluation
from ul.evaluation import table
from ul.metrics.extractors import Networks

_WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate, of either stage.")
_STEP = flags.DEFINE_string(
    "step", "latest", "latest, a number or all (verified ones)."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", "ema", "ema, ema:<decay>, power:<width>, raw or both."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.")
_NUM = flags.DEFINE_integer(
    "num_examples", None, "Held-out images (stage 1) or samples (stage 2, 500)."
)
_GUIDANCE = flags.DEFINE_list("guidance", ["1"], "Stage 2: one evaluation each scale.")
_GUIDE = flags.DEFINE_string("guide", None, "Stage 2: WORKDIR[:step][@weights].")
_LABELS = flags.DEFINE_string("labels", "cyclic", "Stage 2: cyclic or random.")
_METRICS = flags.DEFINE_list("metrics", ["default"], "Names; default is all.")
_DIR = flags.DEFINE_string("weights_dir", None, "Feature networks; else UL_WEIGHTS.")
_REFERENCE = flags.DEFINE_string("reference", None, "Stage 2: statistics, an .npz.")
_NPZ = flags.DEFINE_string("npz", None, "Stage 2: write the samples there as well.")
_STAGE1 = flags.DEFINE_string("stage1_workdir", None, "Stage 1, if it was moved.")
_MAKE = flags.DEFINE_string("make_reference", None, "Statistics of --config's data.")
_SPLIT = flags.DEFINE_string("split", "train", "Of --make_reference: train or eval.")
_CONFIG = cli.define_config()


def _request(metrics, weights_dir) -> evaluation.Request:
    return evaluation.Request(
        workdir=cli.required(_WORKDIR),
        seed=_SEED.value,
        num_examples=_NUM.value,
        labels=_LABELS.value,
        metrics=metrics,
        stage1=_STAGE1.value,
        weights_dir=weights_dir,
        reference=_REFERENCE.value,
        npz=_NPZ.value,
        guide=_GUIDE.value,
    )


def main() -> None:
    metrics = None if _METRICS.value == ["default"] else tuple(_METRICS.value)
    weights_dir = _DIR.value or os.environ.get("UL_WEIGHTS") or None
    if _MAKE.value is not None:
        config, nets = _CONFIG(), Networks(weights_dir)
        evaluation.make_reference(
            config, _MAKE.value, split=_SPLIT.value, metrics=metrics, networks=nets
        )
        return
    request, step = _request(metrics, weights_dir), _STEP.value
    weights = ["ema", "raw"] if _WEIGHTS.value == "both" else [_WEIGHTS.value]
    records: list[dict] = []
    try:
        for record in evaluation.every(request, step, weights, _GUIDANCE.value):
            records.append(record)
    finally:
        if records:  # what was done before a failure is not lost
            print(table.table(records), table.protocols(records), sep="\n")


if __name__ == "__main__":
    cli.run(main)
