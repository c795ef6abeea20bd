"""Evaluate checkpoints of a run; write a JSON and a picture of each to WORKDIR/evals.

    python -m ul evaluate --workdir runs/s1
    python -m ul evaluate --workdir runs/s2 --num_examples 500 --guidance 1,1.5
    python -m ul evaluate --workdir runs/s2 --step all --weights both --metrics fid,frechet
    python -m ul evaluate --list_metrics
    python -m ul evaluate --make_reference refs/mine.npz --weights_dir weights \\
        --config photos:stage1_16 --metrics fid,fd_dinov2

launch/EVALUATE.md lists the metrics and says which need pretrained networks.
"""

import os

from absl import flags

from launch.lib import cli, common_flags, compiled, generation_flags
from ul import evaluation
from ul.data.datasets import Datasets
from ul.evaluation import table
from ul.metrics import extractors, registry

_WORKDIR = flags.DEFINE_string("workdir", None, "Run to evaluate. Required.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: latest, a step, or all.")
_WEIGHTS = flags.DEFINE_string(
    "weights", "ema", "Weights: ema, ema:DECAY, power:WIDTH, raw, or both (ema, raw)."
)
_SEED = common_flags.define_seed()
_NUM = flags.DEFINE_integer(
    "num_examples", None, "Held-out images, or samples (default: the config's)."
)
_METRICS = flags.DEFINE_list("metrics", ["default"], "Metrics by name; default is all.")
_LIST = flags.DEFINE_bool("list_metrics", False, "Print all metrics and exit.")
_DIR = flags.DEFINE_string(
    "weights_dir", None, "Directory of the feature networks; if unset, UL_WEIGHTS."
)
_MAKE = flags.DEFINE_string(
    "make_reference", None, "Only write statistics of the --config data to this .npz."
)
_SPLIT = flags.DEFINE_string("split", "train", "Split for --make_reference.")
_GENERATION = generation_flags.define()
_CONFIG = cli.define_config()


def _evaluate(metrics, weights_dir) -> None:
    request = evaluation.Request(
        workdir=cli.required(_WORKDIR),
        seed=_SEED.value,
        num_examples=_NUM.value,
        metrics=metrics,
        weights_dir=weights_dir,
        **_GENERATION.request(),
    )
    weights = ["ema", "raw"] if _WEIGHTS.value == "both" else [_WEIGHTS.value]
    scales, results = _GENERATION.guidance.value, list[dict]()
    try:
        results.extend(evaluation.run_all(request, _STEP.value, weights, scales))
    finally:  # evaluations that were finished before an error are printed, too
        print(table.report(results), end="")


def main() -> None:
    """Evaluate, list the metrics or make a reference."""
    metrics = None if _METRICS.value == ["default"] else tuple(_METRICS.value)
    weights_dir = _DIR.value or os.environ.get("UL_WEIGHTS") or None
    if _LIST.value:
        print(registry.markdown())
    elif _MAKE.value is not None:
        datasets = Datasets.from_config(_CONFIG())
        nets = extractors.FeatureNetworks(weights_dir)
        evaluation.make_reference(
            datasets, _MAKE.value, split=_SPLIT.value, metrics=metrics, networks=nets
        )
    else:
        compiled.enable()
        _evaluate(metrics, weights_dir)


if __name__ == "__main__":
    cli.run(main)
