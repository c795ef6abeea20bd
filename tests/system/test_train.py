"""The commands a user runs, as a user runs them: kills, mistakes, other machines."""

import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ul
from tests.lib.commands import DIGITS, ROOT, digests, lines, stage1, wait_for_step
from ul.checkpoints import reading
from ul.checkpoints import workdir as workdirs


def test_what_a_run_leaves(trained):
    s1, s2 = trained / "smoke", trained / "smoke2"
    for workdir in (s1, s2):
        record = json.loads((workdir / "config.json").read_text())
        assert record["config"]["steps"] == 8
        assert record["versions"]["jax"] == jax.__version__
        assert record["provenance"]["mesh"] == {"data": 1, "fsdp": 1}
        assert [line["step"] for line in lines(workdir)] == [2, 4, 4, 6, 8, 8]
        assert (workdir / "curves.png").stat().st_size > 5000
        assert reading.verified_steps(workdir) == [4, 8]
        assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    first = lines(s1)[0]
    for name in ("loss", "rate", "prior", "terminal", "decoder"):
        assert first[f"{name}_bpp"] > 0
    assert {"latent_std", "ramp", "grad_norm", "lr", "images_per_s"} <= first.keys()
    assert any("eval_rate_bpp" in line for line in lines(s1))
    assert (s1 / "samples" / "reconstructions-00000008.png").exists()
    assert (s2 / "samples" / "samples-00000008.png").exists()
    provenance = json.loads((s2 / "config.json").read_text())["provenance"]["stage1"]
    assert provenance["step"] == 8 and provenance["weights"] == "ema"


def test_a_run_reports_what_it_read(trained):
    provenance = json.loads((trained / "smoke" / "config.json").read_text())[
        "provenance"
    ]
    report = provenance["dataset"]
    assert report["train"]["examples"] == 1437 and report["eval"]["examples"] == 360


def test_the_whole_config_can_be_printed(command):
    out = command("train", f"--config={DIGITS}:smoke", "--print_config")
    config = json.loads(out[out.index("{") :])
    assert config["stage"] == "joint" and config["data"]["source"] == {"kind": "digits"}


def kill_at(command, workdir, step):
    """kill -9 soon after a step was logged: during a save, a validation or the next step."""
    process = command.start(*stage1(workdir))
    wait_for_step(process, workdir, step)
    time.sleep(0.07 * step)
    process.kill()
    process.communicate()


@pytest.mark.slow  # the default suite kills a run that was stopped and went on
@pytest.mark.parametrize("moment", [1, 5])
def test_killed_at_any_moment_it_ends_with_the_same_parameters(
    trained, command, tmp_path, moment
):
    workdir = tmp_path / "killed"
    kill_at(command, workdir, moment)
    command(*stage1(workdir))
    assert digests(workdir) == digests(trained / "smoke")
    # Steps beyond the checkpoint are not logged twice.
    assert [line["step"] for line in lines(workdir)] == [2, 4, 4, 6, 8, 8]


def fill_disk(command, longer, workdir):
    """No file may grow beyond 100 kB: the arrays of a checkpoint no longer fit."""
    out = command(*longer, code=74, file_bytes=100_000)
    assert "Checkpoint 10 was not written" in out
    assert "Traceback" not in out and "Event loop is closed" not in out
    assert reading.verified_steps(workdir) == [4, 8]
    return out


def test_a_longer_run_goes_on_after_a_full_disk_and_on_other_devices(
    trained, command, tmp_path
):
    runs = [tmp_path / name for name in ("one", "two")]
    for devices, workdir in enumerate(runs, start=1):
        shutil.copytree(trained / "smoke", workdir)
        longer = stage1(workdir, "--config.steps=10")
        out = fill_disk(command, longer, workdir) if devices == 1 else ""
        out += command(*longer, devices=devices)
        assert "resumed at step 8" in out and lines(workdir)[-1]["step"] == 10
        assert "train: 1,437 examples" in out and "eval: 360 examples" in out
        (line,) = (o for o in out.splitlines() if "steps changed from 8 to 10" in o)
        assert "goes on at" in line and "at step 8" in line  # the learning rate
    assert reading.verified_steps(runs[0]) == [8, 10]
    for a, b in zip(*(jax.tree.leaves(weights(run)) for run in runs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_and_killed_the_command_goes_on_to_the_same_parameters(
    trained, command, tmp_path, number
):
    workdir = tmp_path / "stopped"
    process = command.start(*stage1(workdir, "--config.checkpoint.every=100"))
    wait_for_step(process, workdir, 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 75, output
    stopped = reading.verified_steps(workdir)
    assert len(stopped) == 1 and 2 <= stopped[0] < 8
    assert f"the run was saved at step {stopped[0]} and stopped" in output
    kill_at(command, workdir, 5)
    command(*stage1(workdir))
    assert digests(workdir) == digests(trained / "smoke")
    # Steps beyond the checkpoint are not logged twice.
    logged = [line["step"] for line in lines(workdir) if "loss_bpp" in line]
    assert logged == sorted(set(logged)) and {2, 4, 6, 8} <= set(logged)


@pytest.mark.slow  # the default suite has a run that goes on on other devices
@pytest.mark.parametrize(("devices", "fsdp"), [(2, 1), (8, 4), (8, 1)])
def test_other_devices_give_the_same_within_rounding(
    trained, command, tmp_path, devices, fsdp
):
    command(*stage1(tmp_path, f"--config.mesh.fsdp={fsdp}"), devices=devices)
    here, there = weights(trained / "smoke"), weights(tmp_path)
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def weights(workdir):
    """Encoder and decoder, raw, as host arrays."""
    return jax.device_get(ul.load_autoencoder(workdir, weights="raw").params)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--config.enocder.patch=2",), 64, "enocder"),
        (("--config.encoder.pach=2",), 64, 'mean "patch"'),
        (
            ("--config.loss.weighting.factor=0.5",),
            64,
            "loss.weighting.factor must be above 1",
        ),
        (("--config.steps=many",), 64, "steps"),
        (
            ("--config.batch_size=10", "--config.accumulate=4"),
            64,
            "batch_size must be divisible",
        ),
        (("--config.mesh.data=3",), 64, "mesh.data x mesh.fsdp must equal"),
        (("--profile_steps=5",), 64, "profile_steps"),
        (("--no_such_flag=1",), 64, "no_such_flag"),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(
    command, tmp_path, args, code, message
):
    out = command(*stage1(tmp_path / "w", *args), code=code)
    assert message in out
    assert "Traceback" not in out
    assert not (tmp_path / "w" / "config.json").exists()


def test_missing_flags_and_unknown_variants(command, tmp_path):
    assert "--workdir is required" in command(
        "train", f"--config={DIGITS}:smoke", code=64
    )
    assert "--config is required" in command("train", f"--workdir={tmp_path}", code=64)
    assert "must be one of stage1" in command(
        *stage1(tmp_path, variant="stage9"), code=64
    )
    assert "nothing.py" in command("train", "--config=nothing.py", code=64)


def test_another_config_in_the_same_workdir_is_refused(trained, command):
    out = command(
        *stage1(trained / "smoke", "--config.loss.weighting.bias=1.0"), code=64
    )
    assert "loss.weighting.bias: 4.0 -> 1.0" in out
    kept = json.loads((trained / "smoke" / "config.json").read_text())
    assert kept["config"]["loss"]["weighting"]["bias"] == 4.0


def stage2(workdir, below, *changes):
    return stage1(
        workdir, f"--config.stage1.workdir={below}", *changes, variant="smoke2"
    )


def test_stage_2_needs_a_verified_stage_1(trained, command, tmp_path):
    below = tmp_path / "below"
    shutil.copytree(trained / "smoke", below)
    shutil.rmtree(below / "verified")
    out = command(*stage2(tmp_path / "s2", below), code=66)
    assert "no verified checkpoint" in out
    out = command(*stage2(tmp_path / "s2", tmp_path / "nowhere"), code=64)
    assert "No run found in" in out
    out = command(*stage1(tmp_path / "s2", variant="smoke2"), code=64)
    assert "stage1.workdir is required" in out
    assert not (tmp_path / "s2" / "config.json").exists()


@pytest.mark.slow  # test_experiments does the same without a command
def test_stage_2_refuses_latents_that_do_not_fit_and_unknown_keys(
    trained, command, tmp_path
):
    below = trained / "smoke"
    out = command(*stage2(tmp_path, below, "--config.latent_shape=(4,4,8)"), code=64)
    assert "latent_shape must be (4, 4, 4), the value of the stage-1 run" in out
    out = command(*stage2(tmp_path, below, "--config.base.width=8"), code=64)
    assert "width" in out
    out = command(*stage2(tmp_path, trained / "smoke2"), code=64)
    assert "got 'base'" in out


def test_a_damaged_stage_1_is_refused(trained, command, tmp_path):
    below = tmp_path / "below"
    shutil.copytree(trained / "smoke", below)
    for file in (below / "checkpoints" / "8" / "state").rglob("d/*"):
        file.write_bytes(b"")
    out = command(*stage2(tmp_path / "s2", below), code=66)
    assert "checkpoint 8 is damaged" in out


def test_a_workdir_in_use_is_refused(command, tmp_path):
    with workdirs.lock_directory(str(tmp_path)):
        assert "another process" in command(*stage1(tmp_path), code=73)
    assert not (tmp_path / "config.json").exists()


def test_training_that_is_not_finite_exits_70(command, tmp_path):
    out = command(*stage1(tmp_path, "--config.optimizer.lr=1e30"), code=70)
    assert "not finite" in out
    steps = reading.verified_steps(tmp_path)
    for step in steps:
        assert json.loads((tmp_path / "verified" / f"{step}.json").read_text())[
            "finite"
        ]


@pytest.mark.slow
def test_profile_on_request(command, tmp_path):
    command(*stage1(tmp_path, "--profile_steps=3:4", "--config.steps=4"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_import_is_light_and_needs_no_tensorflow_or_torch():
    code = (
        "import sys, ul; before = 'jax' in sys.modules; ul.load_autoencoder;"
        "print(before, [m for m in ('tensorflow', 'torch') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "False []"
