"""Evaluate a run's checkpoint: one JSON and one picture under workdir/evals.

python -m launch.evaluate --workdir runs/s1
python -m launch.evaluate --workdir runs/s2 --num_examples 500 --guidance 1,1.5
"""

from typing import Any

from absl import flags

from launch import cli
from ul import evaluation
from ul.core.errors import ConfigError
from ul.evals import report

_WORKDIR = flags.DEFINE_string("workdir", None, "The run to evaluate, of either stage.")
_STEP = flags.DEFINE_integer(
    "step", None, "Checkpoint; the newest verified one if unset."
)
_WEIGHTS = flags.DEFINE_string("weights", "ema", "ema, ema:<decay> or raw.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all noise.")
_NUM = flags.DEFINE_integer(
    "num_examples", None, "Held-out images (stage 1) or samples (stage 2, 500)."
)
_GUIDANCE = flags.DEFINE_list(
    "guidance", ["1"], "Stage 2: scales, one evaluation each."
)
_STAGE1 = flags.DEFINE_string("stage1_workdir", None, "Stage 1, if it was moved.")


def _scales() -> list[float]:
    try:
        return [float(g) for g in _GUIDANCE.value]
    except ValueError as e:
        raise ConfigError(f"--guidance {_GUIDANCE.value} are not numbers") from e


def main() -> None:
    workdir, scales = cli.required(_WORKDIR), _scales()
    if _NUM.value is not None and _NUM.value < 2:
        raise ConfigError(f"--num_examples is {_NUM.value}; it must be at least 2")
    common: dict[str, Any] = dict(
        step=_STEP.value, weights=_WEIGHTS.value, seed=_SEED.value
    )
    records: list[dict] = []
    try:
        _evaluate(workdir, scales, common, records)
    finally:
        if records:  # what was done before a failure is not lost
            print(report.table(records))


def _evaluate(workdir: str, scales, common: dict, records: list[dict]) -> None:
    kinds = evaluation.kinds_of(workdir)
    if "autoencoder" in kinds:
        records += [evaluation.autoencoder(workdir, num_examples=_NUM.value, **common)]
    if "generator" in kinds:
        for scale in scales:
            record = evaluation.generator(
                workdir,
                num_examples=_NUM.value or 500,
                guidance=scale,
                stage1=_STAGE1.value,
                **common,
            )
            records.append(record)


if __name__ == "__main__":
    cli.run(main)
