"""What the loop logs, and its alarm."""

import json
import logging
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ul.core.errors import NonFiniteError
from ul.core.metrics import Moments
from ul.train import curves, loop
from ul.train.writer import Writer, grid


def moments(value):
    return Moments.of(jnp.full(4, value, jnp.float32))


def test_nats_become_bits_per_pixel_and_moments_a_std():
    seen = {
        "rate_nats": moments(64 * math.log(2)),
        "latent_mean": moments(3.0),
        "latent_square": moments(13.0),
        "ramp": moments(0.5),
    }
    got = loop.readable(seen, pixels=64)
    assert got == pytest.approx({"rate_bpp": 1.0, "latent_std": 2.0, "ramp": 0.5})


@pytest.fixture
def log(tmp_path):
    run = types.SimpleNamespace(
        steps=10, batch_size=4, pixels=1, log_every=1, rate_floor_bpp=0.5
    )
    writer = Writer(tmp_path, 0, tensorboard=True, wandb=False, config={})
    made = loop.Log(run, writer, 0)
    yield made
    made.bar.close()
    writer.close()


def test_the_alarm_rings_once_when_the_rate_falls_under_its_floor(log, caplog):
    bits = math.log(2)
    with caplog.at_level(logging.WARNING, "ul"):
        for step, rate in enumerate((1.0, 0.4, 0.3, 0.9, 0.2), 1):
            log.add(step, {"rate_nats": moments(rate * bits)})
        log.flush()
    rung = [r.message for r in caplog.records if "collapsing" in r.message]
    assert [r.split(":")[0] for r in rung] == ["step 2", "step 5"]


def test_what_is_not_finite_stops_and_is_named(log):
    log.add(1, {"prior_nats": moments(1.0), "decoder_nats": moments(jnp.nan)})
    with pytest.raises(NonFiniteError, match="step 1: decoder_bpp"):
        log.flush()


def test_a_state_that_missed_updates_is_not_saved():
    state = types.SimpleNamespace(step=jnp.asarray(7))
    loop.count_updates(state, 7)
    with pytest.raises(NonFiniteError, match="2 updates up to step 9"):
        loop.count_updates(state, 9)


def test_metrics_of_the_interval_are_averaged_and_fetched_a_step_late(log, tmp_path):
    log._run.log_every = 2
    for step, value in enumerate((1.0, 3.0, 5.0), 1):
        log.add(step, {"lr": moments(value)})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["step"], record["lr"]) == (2, 2.0)
    assert record["images_per_s"] == pytest.approx(4 * record["steps_per_s"])


def test_a_resumed_writer_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n{"step": 5, "a')
    writer = Writer(tmp_path, 3, tensorboard=False, wandb=False, config={})
    writer.scalars(4, {"a": 7.0})
    writer.close()
    assert [json.loads(x) for x in path.read_text().splitlines()] == [
        {"step": 2, "a": 1},
        {"step": 4, "a": 7.0},
    ]


def test_a_tracker_that_fails_is_said_once_and_never_stops_the_run(tmp_path, caplog):
    writer = Writer(tmp_path, 0, tensorboard=True, wandb=False, config={})

    def broken(*args):
        raise OSError("no server")

    writer._trackers["tensorboard"].add_scalar = broken
    writer.scalars(1, {"a": 1.0})
    writer.scalars(2, {"a": 2.0})
    writer.close()
    assert len([r for r in caplog.records if "no server" in r.message]) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_full_disk_is_said_once_and_the_lines_go_on(tmp_path, caplog, monkeypatch):
    writer = Writer(tmp_path, 0, tensorboard=False, wandb=False, config={})
    write, full = writer._line, [True]

    def line(record):
        if full[0]:
            raise OSError("No space left on device")
        write(record)

    monkeypatch.setattr(writer, "_line", line)
    writer.scalars(1, {"a": 1.0})
    writer.scalars(2, {"a": 2.0})
    full[0] = False
    writer.scalars(3, {"a": 3.0})
    writer.close()
    assert len([r for r in caplog.records if "No space" in r.message]) == 1
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 3


def test_grid_places_images_row_by_row():
    images = np.stack([np.full((2, 3, 1), i, np.uint8) for i in (10, 20, 30)])
    sheet = grid(images, 2, scale=2)
    assert sheet.shape == (2 * 7, 2 * 9, 1)
    assert sheet[2, 2, 0] == 10 and sheet[2, 10, 0] == 20 and sheet[8, 2, 0] == 30


def test_curves_are_drawn_from_the_log(tmp_path):
    rows = [{"step": s, "loss_bpp": 1 / s, "rate_bpp": 0.1} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    curves.draw(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_allclose(
        curves.read(tmp_path)["loss_bpp"], [(1, 1), (2, 0.5), (3, 1 / 3)]
    )
