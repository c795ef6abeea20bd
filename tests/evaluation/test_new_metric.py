"""A new metric needs its function and its row in the registry, and nothing else."""

import csv
import io
import json

import numpy as np
import pytest

from tests.lib import untrained
from ul.core.errors import ConfigError
from ul.evaluation import EvaluationContext, Request, evaluate_autoencoder, table
from ul.metrics import registry
from ul.metrics.extractors import FeatureNetworks
from ul.metrics.metric import LOWER, RECONSTRUCTION, ColumnSpec, PairMetric
from ul.sweeps.report import gather, page, spreadsheet


def largest_error(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The metric's own file: the largest error of each pair of images, in levels."""
    error = np.abs(image.astype(float) - other).reshape(len(image), -1)
    return error.max(axis=1)


# The metric's row.
LARGEST_ERROR = PairMetric(
    name="largest_error",
    evaluation=RECONSTRUCTION,
    description="the largest error of a pixel",
    columns=(ColumnSpec("largest_error", "largest error, levels", LOWER, "{:.1f}"),),
    values=largest_error,
)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, LARGEST_ERROR))


def test_a_new_metric_appears_everywhere(registered, tmp_path):
    workdir = untrained.leave(
        tmp_path / "run", untrained.parsed("digits", "smoke"), (4,)
    )
    request = Request(workdir=workdir, num_examples=8, metrics=("largest_error",))
    context = EvaluationContext(FeatureNetworks(None))
    result = evaluate_autoencoder(request, context)
    assert 0.0 < result["largest_error"] <= 255.0

    (file,) = (tmp_path / "run" / "evals").glob("*.json")
    assert json.loads(file.read_text())["largest_error"] == result["largest_error"]
    printed = f"{result['largest_error']:.1f}"
    text = table.table([result])
    assert "largest error, levels" in text and f" {printed} " in text

    report = gather.gather_report(workdir, predict=False)
    (column,) = [c for c in report.columns if c.metric == "largest_error"]
    assert column.title == "largest error, levels"
    html = page.render(report, [], "today", "again")
    assert "<th>largest error, levels" in html and f">{printed}</a>" in html
    (row,) = csv.DictReader(io.StringIO(spreadsheet.trials(report)))
    assert float(row["largest_error@n=8"]) == result["largest_error"]

    # The list in the documentation, which `ul evaluate --list_metrics` prints.
    assert "| `largest_error` | reconstructions | " in registry.markdown()


def test_the_choices_of_the_command_line_are_the_registry(registered):
    Request(workdir="runs/s1", metrics=("largest_error",))
    with pytest.raises(
        ConfigError, match="clip_score, .*largest_error; got 'smallest'"
    ):
        Request(workdir="runs/s1", metrics=("largest_error", "smallest"))


def test_without_its_row_a_metric_is_unknown():
    with pytest.raises(ConfigError, match="got 'largest_error'"):
        Request(workdir="runs/s1", metrics=("largest_error",))
