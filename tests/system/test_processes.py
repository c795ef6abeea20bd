"""Runs of several processes on this machine, through gloo: the same as of one."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ul
from tests.lib.commands import (
    ROOT,
    Commands,
    Together,
    digests,
    free_port,
    lines,
    stage1,
    wait_for,
    wait_for_checkpoint,
    wait_for_step,
)
from ul.checkpoints import digests as array_digests
from ul.checkpoints import reading

pytestmark = pytest.mark.processes
# Twenty steps, saved at ten and at the end; no validation on the way.
TWENTY = (
    "--config.steps=20",
    "--config.checkpoint.every=10",
    "--config.validation.every=20",
    "--config.log.every=1",
)


@pytest.fixture
def together(command):
    started = []

    def start(count, workdir, *changes, logs=None, variant="smoke", **how):
        args = stage1(workdir, *changes, variant=variant)
        made = Together(command, count, logs or workdir, *args, **how)
        started.append(made)
        return made

    yield start
    for made in started:
        made.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Twenty steps of one process, never stopped."""
    workdir = tmp_path_factory.mktemp("alone")
    Commands()(*stage1(workdir, *TWENTY))
    return workdir


def raw(workdir, step=None):
    return jax.device_get(ul.load_autoencoder(workdir, step=step, weights="raw").params)


def assert_same_run(workdir, other):
    """Losses of twenty steps and the parameters after them, to rounding."""
    here, there = (
        [line for line in lines(w) if "loss_bpp" in line] for w in (workdir, other)
    )
    assert [line["step"] for line in here] == list(range(1, 21))
    for a, b in zip(here, there, strict=True):
        for name in ("loss_bpp", "rate_bpp", "decoder_bpp", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5), a["step"]
    for a, b in zip(*(jax.tree.leaves(raw(w)) for w in (workdir, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_many_processes_train_as_one_does(alone, together, tmp_path, count):
    logs = together(count, tmp_path / "w", *TWENTY).wait(*[0] * count)
    assert_same_run(tmp_path / "w", alone)
    provenance = json.loads((tmp_path / "w" / "config.json").read_text())["provenance"]
    assert provenance["processes"] == count and provenance["mesh"]["data"] == count
    # Process 0 alone speaks.
    assert "MiB of the state" in logs[0]
    assert all("MiB of the state" not in log for log in logs[1:])


MOMENTS = (
    "--config.distillation.kind=moment_matching",
    "--config.sampling.kind=renoise",
)
MOMENTS += ("--config.distillation.num_calls=2",)


@pytest.mark.parametrize(
    ("axes", "kind"), [((), ()), (("--config.mesh.fsdp=2",), ()), ((), MOMENTS)]
)
def test_two_processes_distill_as_one_does(
    trained, command, together, tmp_path, axes, kind
):
    """The frozen teacher computes the targets of each process's rows."""
    teacher = f"--config.stage1.workdir={trained / 'smoke'}"
    one, two = tmp_path / "one", tmp_path / "two"
    command(*stage1(one, teacher, *kind, variant="smoke_distill"))
    together(2, two, teacher, *axes, *kind, variant="smoke_distill").wait(0, 0)
    for a, b in zip(*(jax.tree.leaves(raw(w)) for w in (one, two)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    before = ul.load_autoencoder(trained / "smoke").params["decoder"]
    after = ul.load_autoencoder(two).params["decoder"]
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


@pytest.mark.parametrize(("first", "then"), [(4, 1), (4, 2), (1, 2)])
def test_a_run_goes_on_with_other_processes(
    alone, together, command, tmp_path, first, then
):
    """Weights restored bit for bit (the run checks their digests), data in order."""
    workdir = tmp_path / "w"

    def run(count, *changes):
        if count == 1:
            return [command(*stage1(workdir, *TWENTY, *changes))]
        return together(count, workdir, *TWENTY, *changes).wait(*[0] * count)

    # The learning rate of a run to step 20, stopped at its checkpoint of step 10.
    made = together(first, workdir, *TWENTY)
    wait_for_step(made.processes[0], workdir, 11)
    made.processes[-1].send_signal(signal.SIGTERM)
    made.wait(*[75] * first)
    newest = reading.verified_steps(workdir)[-1]
    assert 10 <= newest < 20
    found, _ = array_digests.digest_leaves(
        ul.load_autoencoder(workdir, weights="raw").params
    )
    saved = digests(workdir, newest)
    assert all(saved[f"params/{path}"] == d for path, d in found.items())
    out = run(then)[0]
    assert f"resumed at step {newest}" in out and "not bitwise" in out
    assert_same_run(workdir, alone)


def test_a_signal_to_one_process_stops_all_at_one_step(together, tmp_path):
    stopped = tmp_path / "stopped"
    made = together(2, stopped, *TWENTY)
    wait_for_step(made.processes[0], stopped, 3)
    made.processes[1].send_signal(signal.SIGTERM)
    logs = made.wait(75, 75)
    (step,) = reading.verified_steps(stopped)
    reason = "stop request of another process"
    assert f"{reason}: the run was saved at step {step} and stopped" in logs[0]
    assert f"SIGTERM: the run was saved at step {step} and stopped" in logs[1]
    together(2, stopped, *TWENTY).wait(0, 0)
    together(2, tmp_path / "whole", *TWENTY).wait(0, 0)
    assert digests(stopped, 20) == digests(tmp_path / "whole", 20)


def test_a_signal_to_one_process_that_compiles_ends_all(together, tmp_path):
    deep = ("--config.decoder.depth=16", "--config.prior.depths=(16,)")
    made = together(2, tmp_path / "w", *deep)
    wait_for(made.logs[0], "compiling the train step", made.processes[0])
    made.processes[0].send_signal(signal.SIGTERM)
    logs = made.wait(75, 75)
    assert "received SIGTERM during compile: nothing new to save" in logs[0]
    assert "received SIGTERM of process 0 during compile" in logs[1]
    assert reading.verified_steps(tmp_path / "w") == []


def test_a_process_that_is_killed_ends_the_others_and_the_rerun_resumes(
    alone, together, tmp_path
):
    made = together(2, tmp_path / "w", *TWENTY, "--peer_timeout=10")
    # Logging step 12 is not enough: the save of step 10 may still be under way.
    wait_for_checkpoint(made.processes[0], tmp_path / "w", 10)
    made.processes[1].kill()
    began = time.monotonic()
    code = made.processes[0].wait(timeout=120)
    # Killed by JAX's own heartbeat (SIGABRT), or by the error of its collective.
    assert code in (134, -signal.SIGABRT), made.logs[0].read_text()
    assert time.monotonic() - began < 60
    logs = together(2, tmp_path / "w", *TWENTY).wait(0, 0)
    assert "resumed at step 10" in logs[0]
    assert_same_run(tmp_path / "w", alone)


def test_a_process_that_hangs_is_named_with_its_phase(together, tmp_path):
    patient = (*TWENTY, "--config.watchdog.step=8", "--config.watchdog.compile=300")
    made = together(2, tmp_path / "w", *patient, "--peer_timeout=600")
    wait_for_step(made.processes[0], tmp_path / "w", 6)
    made.processes[1].send_signal(signal.SIGSTOP)
    assert made.processes[0].wait(timeout=120) == 124
    text = made.logs[0].read_text()
    assert "in phase step, step " in text and "process 1 is silent for" in text
    (report,) = (tmp_path / "w" / "logs").glob("stall-process-0-*.txt")
    assert "loop.py" in report.read_text()


def test_a_start_that_one_process_does_not_make_names_it(together, tmp_path):
    """Process 1 is stopped as soon as both have met."""
    short = ("--config.watchdog.start=20", "--peer_timeout=600")
    made = together(2, tmp_path / "w", *short)
    wait_for(made.logs[1], "joined as process 1 of 2", made.processes[1])
    made.processes[1].send_signal(signal.SIGSTOP)
    assert made.processes[0].wait(timeout=120) == 124
    text = made.logs[0].read_text()
    # At a barrier; or where JAX waits for the other's devices, by the watchdog.
    assert re.search("process 1 (did not arrive|is silent|has never reported)", text), (
        text
    )


def test_a_barrier_names_the_process_that_does_not_come():
    code = """if True:
        import sys, time
        from ul.core import processes
        port, index = sys.argv[1], int(sys.argv[2])
        where = f"127.0.0.1:{port}"
        processes.join(processes.ClusterSpec(
            coordinator=where, num_processes=3, process_id=index))
        if index:
            time.sleep(5 if index == 1 else 0)
        processes.barrier("here", 2)
    """
    port = str(free_port())
    made = [
        subprocess.Popen(
            [sys.executable, "-c", code, port, str(i)],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    try:
        _, text = made[2].communicate(timeout=60)
    finally:
        for process in made:
            process.kill()
            process.communicate()
    assert (
        "Stalled: Barrier 'here' needs all processes within 2 s; process 1 did not arrive"
        in text
    )


def test_processes_that_differ_are_told_what_differs(together, tmp_path):
    own = [(), ("--config.loss.weighting.bias=1.0",)]
    logs = together(2, tmp_path / "w", own=own).wait(64, 64)
    for log in logs:
        assert "differs from process 0: config.loss.weighting.bias: 4.0 -> 1.0" in log
    assert not (tmp_path / "w" / "config.json").exists()


def test_an_error_of_one_process_is_the_error_of_all(together, tmp_path):
    (tmp_path / "file").write_text("")
    logs = together(2, tmp_path / "file" / "w", logs=tmp_path / "w").wait(74, 74)
    assert "cannot be written" in logs[0]
    assert "cannot be written" in logs[1]


def test_damage_that_one_process_meets_is_passed_over_by_all(together, tmp_path):
    made = together(2, tmp_path, "--config.checkpoint.every=2", "--config.mesh.fsdp=2")
    made.wait(0, 0)
    step = tmp_path / "checkpoints" / "8" / "state"
    (step / "manifest.ocdbt").write_bytes(b"")
    for file in step.glob("ocdbt.process_*/d/*"):
        file.write_bytes(b"")
    for file in step.glob("d/*"):
        file.write_bytes(b"")
    logs = together(2, tmp_path, "--config.mesh.fsdp=2").wait(0, 0)
    assert "checkpoint 8 cannot be read" in logs[0]
    assert "resumed at step 6" in logs[0]
    assert reading.verified_steps(tmp_path)[-1] == 8
