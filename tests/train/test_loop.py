"""Metrics of the loop, its warning of a collapse, and its writers when a disk fails."""

import contextlib
import json
import logging
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.lib.breaks import Break
from ul.core.errors import ConfigError, NonFiniteError
from ul.core.metrics import Moments
from ul.train import curves, goodput, loop, writer
from ul.train.writer import MetricsWriter


def moments(value):
    return Moments.from_values(jnp.full(4, value, jnp.float32))


def read_lines(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_nats_become_bits_per_pixel_and_moments_a_std():
    by_name = {
        "rate_nats": moments(64 * math.log(2)),
        "latent_mean": moments(3.0),
        "latent_square": moments(13.0),
        "ramp": moments(0.5),
    }
    values = loop.summarize_moments(by_name, num_pixels=64)
    assert values == pytest.approx({"rate_bpp": 1.0, "latent_std": 2.0, "ramp": 0.5})


@pytest.fixture
def metrics_log(tmp_path):
    run = types.SimpleNamespace(
        steps=10,
        batch_size=4,
        num_pixels=1,
        log_every=1,
        rate_floor_bpp=0.5,
        ramp_steps=0,
        planned_rate_bpp=0.75,
        flops_per_step=8e9,
        peak_flops=1e12,
        mesh=types.SimpleNamespace(size=2),
    )
    writer = MetricsWriter(tmp_path, 0, tensorboard=True, wandb=False, config={})
    metrics_log = loop.MetricsLog(run, writer, goodput.GoodputLog(), 0)
    yield metrics_log
    metrics_log.bar.close()
    writer.close()


def test_a_rate_that_falls_below_its_floor_is_reported_once(metrics_log, caplog):
    bits = math.log(2)
    with caplog.at_level(logging.WARNING, "ul"):
        for step, rate in enumerate((1.0, 0.4, 0.3, 0.9, 0.2), 1):
            metrics_log.add(step, {"rate_nats": moments(rate * bits)})
        metrics_log.flush()
    warnings = [r.message for r in caplog.records if "collapsing" in r.message]
    assert [text.split(":")[0] for text in warnings] == ["step 2", "step 5"]


def test_the_planned_rate_stands_beside_the_measured_one(metrics_log):
    metrics_log.add(1, {"rate_nats": moments(0.5 * math.log(2))})
    metrics_log.flush()
    assert "rate_bpp=0.500, planned_bpp=0.750" in str(metrics_log.bar)


def test_terms_that_are_not_finite_stop_the_run_and_are_named(metrics_log):
    metrics_log.add(1, {"prior_nats": moments(1.0), "decoder_nats": moments(jnp.nan)})
    with pytest.raises(NonFiniteError, match="step 1 .*not finite: decoder_bpp"):
        metrics_log.flush()


def test_a_state_that_missed_updates_is_not_saved():
    state = types.SimpleNamespace(step=jnp.asarray(7))
    loop.check_no_update_refused(state, 7)
    with pytest.raises(NonFiniteError, match="2 updates up to step 9"):
        loop.check_no_update_refused(state, 9)


def test_metrics_are_averaged_over_the_interval_and_fetched_a_step_late(
    metrics_log, tmp_path
):
    metrics_log._run.log_every = 2
    for step, value in enumerate((1.0, 3.0, 5.0), 1):
        metrics_log.add(step, {"lr": moments(value)})
    (record,) = read_lines(tmp_path)
    assert (record["step"], record["lr"]) == (2, 2.0)
    assert record["images_per_s"] == pytest.approx(4 * record["steps_per_s"])


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, 3)])
def test_a_profile_that_ends_before_it_begins_is_refused(tmp_path, first, last):
    with pytest.raises(ConfigError, match=f"got {first}:{last}"):
        loop.Profiler(tmp_path, first, last)


def test_a_resumed_writer_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n{"step": 5, "a')
    writer = MetricsWriter(tmp_path, 3, tensorboard=False, wandb=False, config={})
    writer.write_scalars(4, {"a": 7.0})
    writer.close()
    assert read_lines(tmp_path) == [{"step": 2, "a": 1}, {"step": 4, "a": 7.0}]


def test_a_tracker_that_fails_is_reported_once_and_never_stops_the_run(
    tmp_path, caplog
):
    writer = MetricsWriter(tmp_path, 0, tensorboard=True, wandb=False, config={})

    def fail(*args):
        raise OSError("no server")

    writer._trackers["tensorboard"].add_scalar = fail
    writer.write_scalars(1, {"a": 1.0})
    writer.write_scalars(2, {"a": 2.0})
    writer.close()
    assert len([r for r in caplog.records if "no server" in r.message]) == 1
    assert len(read_lines(tmp_path)) == 2


def test_a_full_disk_is_reported_once_and_later_lines_are_written(
    tmp_path, caplog, monkeypatch
):
    writer = MetricsWriter(tmp_path, 0, tensorboard=False, wandb=False, config={})
    write_line, disk_is_full = writer._write_line, True

    def write_unless_full(record):
        if disk_is_full:
            raise OSError("No space left on device")
        write_line(record)

    monkeypatch.setattr(writer, "_write_line", write_unless_full)
    writer.write_scalars(1, {"a": 1.0})
    writer.write_scalars(2, {"a": 2.0})
    disk_is_full = False
    writer.write_scalars(3, {"a": 3.0})
    writer.close()
    assert len([r for r in caplog.records if "No space" in r.message]) == 1
    (record,) = read_lines(tmp_path)
    assert record["step"] == 3


def test_curves_are_drawn_from_the_log(tmp_path, monkeypatch):
    rows = [{"step": s, "loss_bpp": 1 / s, "rate_bpp": 0.1} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = []
    monkeypatch.setattr(Axes, "axhline", lambda _, y, **options: lines.append(y))
    curves.plot_metrics(tmp_path)
    assert not lines
    curves.plot_metrics(tmp_path, planned_rate_bpp=0.2)
    assert lines == [0.2]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_allclose(
        curves.read_metrics(tmp_path)["loss_bpp"], [(1, 1), (2, 0.5), (3, 1 / 3)]
    )


def test_a_single_point_can_be_seen(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss_bpp": 1.0}\n')
    markers, plot = [], Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda *args, **o: markers.append(o["marker"]) or plot(*args, **o)
    )
    curves.plot_metrics(tmp_path)
    assert markers == ["o"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[1, 2]",
        '{"step": "x"}',
        '{"loss": 1.0}',
        '{"step": 3, "loss',
        '{"step": 3, "a": "b"}',
    ],
)
def test_a_line_of_metrics_that_is_no_record_is_ignored(line):
    assert curves.parse_metrics_line(line) is None


def test_lines_that_are_no_records_are_removed_when_a_run_goes_on(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    kept = b'{"step": 2, "loss_bpp": 1.5}'
    path.write_bytes(kept + b'\n\xff\xfe\n[1,2]\n{"step": 9, "loss_bpp": 1.0}\n{"st')
    writer = MetricsWriter(tmp_path, 4, tensorboard=False, wandb=False, config={})
    writer.write_scalars(6, {"loss_bpp": 0.5})
    writer.close()
    assert path.read_bytes() == kept + b'\n{"step": 6, "loss_bpp": 0.5}\n'
    assert "removed 3 lines that are no records" in caplog.text


def test_a_long_file_is_not_parsed_as_a_whole(tmp_path, monkeypatch):
    path, parsed = tmp_path / "metrics.jsonl", []
    lines = [f'{{"step": {step}, "a": 1}}\n' for step in range(1, 1001)]
    path.write_text("".join(lines))
    monkeypatch.setattr(
        writer,
        "parse_metrics_line",
        lambda line: parsed.append(line) or curves.parse_metrics_line(line),
    )
    MetricsWriter(tmp_path, 997, tensorboard=False, wandb=False, config={}).close()
    assert path.read_text() == "".join(lines[:997]) and len(parsed) == 4
    unchanged = path.stat().st_ino
    MetricsWriter(tmp_path, 997, tensorboard=False, wandb=False, config={}).close()
    assert path.stat().st_ino == unchanged  # not even written


def test_a_request_that_a_save_has_met_is_not_open():
    """Requests of step 4 are answered at step 5; a save at step 4 has met them."""
    checkpoints = types.SimpleNamespace(save=lambda step, state: None)
    meter = types.SimpleNamespace(paused=contextlib.nullcontext)
    metrics_log = types.SimpleNamespace(flush=lambda: None, meter=meter)
    guard = types.SimpleNamespace(phase=lambda name: contextlib.nullcontext())
    run = types.SimpleNamespace(save_minutes=1e-9)
    saver = loop.CheckpointSaver(run, checkpoints, metrics_log, guard, start_step=0)
    saved = []
    for step in range(2, 9):  # A save is due at every step.
        if saver.is_due() and saver.is_request_open(step):
            saver.save(step, types.SimpleNamespace(step=step))
            saved.append(step)
    assert saved == [2, 4, 6, 8]


BREAKS = (
    Break(
        "a request that a save has met is met again",
        "ul/train/loop.py",
        "return self._last_step < step - 1",
        "return True",
        "test_a_request_that_a_save_has_met_is_not_open",
    ),
    Break(
        "a resumed run that keeps the lines of later steps",
        "ul/train/writer.py",
        'record["step"] <= last and is_whole',
        "is_whole",
        "test_a_resumed_writer_drops_later_and_broken_lines",
    ),
)
