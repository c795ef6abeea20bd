"""A run of one process reports why it ended from outside, and keeps its state.

Every fault that a run must survive, and the test that produces it:

signal in the loop, of one of two processes    test_processes: a_signal_to_one_process_...
signal in a compile, restore, validation       here, and test_processes for two
second signal                                  here
signal to a run of one process                 test_train: a_signal_saves_and_exits_75
kill -9 at any moment, during a save too       test_train: killed_at_any_moment
kill -9 of one of two processes                test_processes: a_process_that_is_killed
a process that hangs                           here (reading), test_processes (stopped)
workdir that cannot be made or written         test_train: a_workdir_that_cannot_be_made
step without its commit                        checkpoints/test_store
file truncated, missing, a bit flipped         checkpoints/test_store; of one process:
                                               test_processes: damage_that_one_process_meets
metadata missing, all steps unreadable         checkpoints/test_store
checkpoint of another model                    checkpoints/test_store
config changed between runs                    test_train: another_config; allowed: here
other devices, other number of processes       test_train, test_processes
other number of reading threads                data/test_pipeline
data or their pipeline changed                 here
device too small                               here; at compile: planning/pods/test_compile
other devices than asked for, CPU fallback     here
processes of unlike config or code             test_processes: processes_that_differ
two runs in one workdir                        test_train: a_workdir_in_use
storage that fails, at every call              test_storage_faults
a bit flipped in any other file                test_flipped_bits
kill -9 at random moments, many times          test_kill_storms

Not produced: a file system mounted read-only and object stores (no such thing here; a
file in the directory's place gives the same error), a signal while FID is computed (no
FID yet; evaluations write nothing before their end).
"""

import json
import os
import shutil
import signal
import time

import jax.numpy as jnp
import pytest

from tests.lib.commands import digests, lines, stage1, wait_for
from ul.checkpoints import reading
from ul.core import processes
from ul.core.errors import ConfigError, OutOfMemory
from ul.train import guard

# Commands that are ended from outside take a while: not in the default suite.
pytestmark = pytest.mark.processes


def signalled(command, tmp_path, text, *args, times=1):
    """A run that gets SIGTERM once its log has `text`: exit code and log."""
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = command.start(*args, stdout=file)
    try:
        wait_for(log, text, process)
        time.sleep(1.0 if times > 1 else 0.0)  # into the look, which then goes on long
        for _ in range(times - 1):
            process.send_signal(signal.SIGTERM)
            wait_for(log, "once more to stop at once", process)
            time.sleep(2 * guard.SAME_SIGNAL_SECONDS)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=60), log.read_text()
    finally:
        process.kill()


def test_a_signal_while_the_step_compiles_ends_the_run_at_once(command, tmp_path):
    """The main thread is inside XLA and hears nothing; there is nothing to save."""
    changes = ("--config.decoder.depth=12", "--config.prior.depths=(12,)")
    args = stage1(tmp_path / "w", *changes)
    code, text = signalled(command, tmp_path, "compiling the train step", *args)
    assert code == 75, text
    assert "received SIGTERM during compile: nothing new to save" in text
    assert "compiled in" not in text
    assert reading.verified_steps(tmp_path / "w") == []


def test_a_signal_while_restoring_ends_the_run_at_once(trained, command, tmp_path):
    """Storage hangs: a pipe that nobody writes stands where the log was."""
    args = stage1(tmp_path / "w", "--config.steps=2")
    command(*args)
    before = digests(tmp_path / "w", 2)
    (tmp_path / "w" / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "w" / "metrics.jsonl")
    code, text = signalled(command, tmp_path, "resumed at step 2", *args)
    assert code == 75, text
    assert "received SIGTERM during restore: nothing new to save" in text
    assert digests(tmp_path / "w", 2) == before


def test_a_signal_during_a_look_breaks_it_off_and_saves(trained, command, tmp_path):
    long = ("--config.eval.num_draws=4000", "--config.validation.num_examples=360")
    args = stage1(tmp_path / "w", *long, "--config.checkpoint.every=100")
    code, text = signalled(command, tmp_path, "validating at step 4", *args)
    assert code == 75, text
    assert "SIGTERM: the run was saved at step 4 and stopped" in text
    assert reading.verified_steps(tmp_path / "w") == [4]
    # The look at step 4 was not said; what comes after is what it always was.
    assert [line["step"] for line in lines(tmp_path / "w")] == [2, 4]
    command(*stage1(tmp_path / "w", "--config.checkpoint.every=100"))
    assert digests(tmp_path / "w") == digests(trained / "smoke")


def test_a_second_signal_ends_the_run_at_once(trained, command, tmp_path):
    """The first signal arrives in a long validation, where no step can answer it yet."""
    args = stage1(tmp_path / "w", "--config.eval.num_draws=4000000")
    code, text = signalled(command, tmp_path, "validating at step 4", *args, times=2)
    assert code == 128 + signal.SIGTERM, text
    command(*stage1(tmp_path / "w"))
    assert digests(tmp_path / "w") == digests(trained / "smoke")


def test_standing_still_is_reported_with_stacks_and_ends_with_124(command, tmp_path):
    """Opening the data never ends: the config file replaces their source."""
    config = tmp_path / "slow.py"
    config.write_text(
        "import time\n"
        "from experiments import digits\n"
        "from ul.data.sources import registry\n"
        "def open_slowly(split, shape): time.sleep(1000)\n"
        "registry.SOURCES['digits'] = open_slowly\n"
        "get_config = digits.get_config\n"
    )
    out = command(
        "train",
        f"--config={config}:smoke",
        f"--workdir={tmp_path / 'w'}",
        "--config.watchdog.start=3",
        code=124,
    )
    assert "no progress for" in out and "watchdog.start allows 3 s" in out
    (report,) = (tmp_path / "w" / "logs").glob("stall-process-0-*.txt")
    assert "most recent call first" in report.read_text()
    assert "in open_slowly" in report.read_text()


def test_a_rejected_run_leaves_no_directory_and_does_not_count(command, tmp_path):
    rejected = stage1(tmp_path / "w", "--config.batch_size=7")
    out = command(*rejected, devices=2, code=64)
    assert "batch_size must be divisible by" in out and not (tmp_path / "w").exists()


def test_a_workdir_that_cannot_be_written_is_a_permanent_error(command, tmp_path):
    """Waiting does not help, so no launcher may try again."""
    (tmp_path / "file").write_text("")
    out = command(*stage1(tmp_path / "file" / "w"), code=64)
    assert "cannot be written" in out and "choose another path" in out


def test_a_run_without_its_checkpoints_is_not_started_again(trained, command, tmp_path):
    """Neither config.json nor metrics.jsonl changes."""
    shutil.copytree(trained / "smoke", tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "checkpoints")

    def content() -> dict[str, bytes]:
        files = [p for p in (tmp_path / "w").rglob("*") if p.is_file()]
        return {str(p): p.read_bytes() for p in files if p.name != ".lock"}

    before = content()
    out = command(*stage1(tmp_path / "w"), code=66)
    assert "verified records checkpoint 8, but it is missing" in out
    assert content() == before


def test_broken_logs_and_records_never_stop_a_run(trained, command, tmp_path):
    """As in a copy of the run of which parts were lost, or that somebody edited."""
    where = tmp_path / "w"
    shutil.copytree(trained / "smoke", where)
    (where / "attempts.json").write_text("[]")
    (where / "verified" / "8 (1).json").write_text("{}")
    for name in ("parameters.txt", "metrics.jsonl"):
        (where / name).unlink(missing_ok=True)
        (where / name).mkdir()
    out = command(*stage1(where, "--config.steps=9"))
    assert "metrics.jsonl cannot be written, but training continues" in out
    assert "ignored 8 (1).json" in out and reading.verified_steps(where)[-1] == 9


def test_starts_without_a_new_checkpoint_are_counted(command, tmp_path):
    limited = stage1(tmp_path, "--max_attempts=2", "--config.optimizer.lr=1e30")
    command(*limited, code=70)
    newest = max(reading.verified_steps(tmp_path), default=0)
    command(*limited, code=70)
    out = command(*limited, code=69)
    assert f"2 starts in a row saved nothing beyond step {newest}" in out


def test_other_data_and_other_settings_are_refused_unless_allowed(
    trained, command, tmp_path
):
    args = stage1(tmp_path, "--config.steps=2")
    command(*args)
    record = json.loads((tmp_path / "config.json").read_text())
    record["provenance"]["data"] = "0123456789abcdef"
    record.pop("digest", None)
    (tmp_path / "config.json").write_text(json.dumps(record))
    out = command(*args, code=64)
    assert "the training examples: 0123456789abcdef -> " in out
    changes = ("--allow_changes", "--config.loss.weighting.bias=3.0")
    out = command(*stage1(tmp_path, *changes, "--config.steps=4"))
    assert "continuing with a changed setting: loss.weighting.bias: 4.0 -> 3.0" in out
    assert "continuing with a changed setting: the training examples" in out
    assert lines(tmp_path)[-1]["step"] == 4


def test_other_devices_than_asked_for_are_refused(command, tmp_path):
    out = command(*stage1(tmp_path / "w", "--devices=gpu:8"), code=64)
    assert "--devices=gpu:8 must match the devices of the run; JAX finds cpu:1" in out
    out = command(*stage1(tmp_path / "w", "--devices=cpu:2"), code=64)
    assert "JAX finds cpu:1" in out
    assert "as gpu:8" in command(*stage1(tmp_path / "w", "--devices=gpu:x"), code=64)
    assert not (tmp_path / "w").exists()


def test_a_device_without_the_memory_is_one_line():
    """64 TiB; in a run, where a CPU's allocation fails later, and a compile: pods/."""
    with pytest.raises(OutOfMemory, match="out of memory .*Lower batch_size"):
        with processes.translate_jax_errors():
            jnp.zeros(1 << 44).block_until_ready()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(coordinator="a:1"), "Pass all three or none"),
        (dict(coordinator="a:1", num_processes=2, process_id=2), "got 2 of 2"),
        (dict(mode="on"), "needs a cluster"),
    ],
)
def test_flags_that_cannot_join_are_refused(how, message):
    with pytest.raises(ConfigError, match=message):
        processes.join(processes.ClusterSpec(**how))


def test_the_guard_knows_its_phase_and_what_moved(tmp_path):
    budgets = dict.fromkeys(("start", "step", "evaluation"), 100.0)
    with guard.Guard(str(tmp_path), budgets) as made:
        made.enter_phase("step")
        made.heartbeat("step 5")
        with made.phase("evaluation"):
            assert made._phase.name == "evaluation"
        assert made._phase.name == "step" and made.position == "step 5"
        assert not made
        # As from a scheduler and a parent process, which both pass it on: one wish.
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            made._closed.wait(0.4)
        assert made and made.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
