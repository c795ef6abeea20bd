"""The registry of metrics: every metric has a column, a line and one place."""

import pytest

from ul.evaluation.plan import COMPUTATIONS
from ul.metrics import registry
from ul.metrics.metric import CLIPS, GENERATION, HIGHER, IMAGES, LOWER, RunMetric


def test_names_and_keys_are_unique():
    names = [m.name for m in registry.METRICS]
    keys = [key for m in registry.METRICS for key in m.keys]
    assert len(set(names)) == len(names) and len(set(keys)) == len(keys)
    titles = [column.title for _, column in registry.columns()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("metric", registry.METRICS, ids=lambda m: m.name)
def test_every_metric_has_a_column_and_a_line_in_the_documentation(metric):
    """A metric without a number is an array that the figures show."""
    arrays = metric.arrays if isinstance(metric, RunMetric) else ()
    assert metric.columns or arrays
    assert any(c.better in (HIGHER, LOWER) for c in metric.columns) or (
        metric.name in ("bits", "gaussian_psnr")
    )
    assert metric.description and set(metric.data) <= {IMAGES, CLIPS}
    assert f"| `{metric.name}` | " in registry.markdown()
    for column in metric.columns:
        assert column.format.format(1.5) and registry.find_column(column.key) == column


def test_every_computation_belongs_to_one_metric():
    used = [m.computation for m in registry.METRICS if isinstance(m, RunMetric)]
    assert sorted(used) == sorted(COMPUTATIONS)


def test_probes_of_clips_are_printed():
    keys = {column.key for _, column in registry.columns()}
    assert {"identity_kept", "position_error_px"} <= keys


def test_metrics_that_compare_with_a_reference():
    assert {m.name for m in registry.reference_metrics()} == {
        "fid", "sfid", "fd_dinov2", "fvd", "frechet", "precision", "recall",
    }  # fmt: skip
    assert "rfid" not in registry.names(GENERATION)


def test_the_list_is_a_table_of_equal_rows():
    lines = registry.markdown().splitlines()
    assert len(lines) == 2 + len(registry.METRICS)
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
