"""`ul submit` refuses mistakes before anything is submitted."""

import os
import sys

import pytest
from absl import flags

from launch import gke, local, slurm, tpu_vm
from launch.gke.slices import hosts_and_chips
from launch.lib import job_checks, jobs
from launch.lib.templates import fill
from launch.tpu_vm import slices
from tests.lib import forks, untrained
from tests.lib.breaks import Break
from ul.core.errors import ConfigError

STAGE1 = "--config=experiments/digits.py:stage1"


# Arguments, and words of the one line that refuses them.
REFUSED = [
    (["slurm", STAGE1, "--config.seeed=1", "--workdir=w"], 'Did you mean "seed"'),
    (
        ["slurm", STAGE1, "--config.loss.x=1", "--workdir=w"],
        "--config.loss.x=1: the config has no key 'x'",
    ),
    (
        ["slurm", STAGE1, "--config.batch_size=0", "--workdir=w"],
        "batch_size must be at least 1; got 0",
    ),
    (["slurm", STAGE1], "--workdir is required"),
    (
        ["slurm", "--workdir=w", "--config.steps=3"],
        "--config is required before --config.KEY=VALUE",
    ),
    (
        ["slurm", "--config.steps=3", STAGE1, "--workdir=w"],
        "--config must stand before every --config.KEY=VALUE",
    ),
    (
        ["local", STAGE1, "--workdir=s3://b/w"],
        "The workdir must be a path on a disk or gs://bucket/path; got s3://b/w",
    ),
    (["slurm", STAGE1, "--ndes=2"], "Unknown flag --ndes. Did you mean --nodes?"),
    (["slurm", STAGE1, "--nodes=two"], "--nodes=two: invalid literal for int()"),
    (["slurm", f"{STAGE1}9"], "digits.py:stage19: ValueError: The variant must be"),
    (
        ["slurm", STAGE1, "--workdir=w", "--image=i"],
        "a flag of gke, not of slurm. Remove it.",
    ),
    ([STAGE1, "--workdir=w"], "must be one of local, slurm, gke, tpu_vm; got none"),
    (["slurm", STAGE1, "--workdir=w", "--name=A_b"], "got 'A_b'"),
    (["gke", STAGE1, "--workdir=gs://b/w"], "--image is required"),
    (
        ["slurm", "--config=imagenet512:stage1", "--workdir=w"],
        "data.source.path is required, but it is not set. Pass --config.data.source.path=",
    ),
    (
        ["slurm", "--config=digits:stage2", "--workdir=w"],
        "stage1.workdir is required, but it is not set",
    ),
    (
        ["slurm", STAGE1, "--workdir=w", "--gpus_per_node=8", "--config.mesh.fsdp=3"],
        "mesh.data x mesh.fsdp must equal the number of devices, 8; got (data, fsdp) = "
        "(-1, 3)",
    ),
    (
        ["slurm", STAGE1, "--workdir=w", "--nodes=16", "--gpus_per_node=8"],
        "batch_size must be divisible by devices x accumulate = 128 x 1 = 128; got 64",
    ),
    (
        ["tpu_vm", STAGE1, "--workdir=gs://b/w", "--zone=z", "--runtime=r"]
        + ["--accelerator=v5p-128", "--config.mesh.data=4", "--config.mesh.fsdp=8"],
        "must equal the number of devices, 64; got (data, fsdp) = (4, 8)",
    ),
    (
        [
            "gke",
            STAGE1,
            "--workdir=gs://b/w",
            "--image=i",
            "--accelerator=tpu-v6e-slice",
        ]
        + ["--topology=4x4", "--devices=tpu:32"],
        "--devices must name the 16 devices that the other flags ask for (tpu:16); got "
        "tpu:32",
    ),
    (
        ["slurm", STAGE1, "--workdir=w", "--gpus_per_node=8", "--devices=tpu:8"],
        "that the other flags ask for (gpu:8); got tpu:8",
    ),
    (["slurm", STAGE1, "--workdir=w", "--devices=gpus:8"], "or :8; got gpus:8"),
    (["slurm", STAGE1, "--workdir=w", "--nodes=0"], "must be at least 1; got 0 and 1"),
    (
        ["slurm", STAGE1, "--workdir=w", "--sbatch=qos=high"],
        "such as --qos=high; got 'qos",
    ),
    (
        ["gke", STAGE1, "--workdir=gs://b/w", "--image=i", "--accelerator=v5p-128"]
        + ["--topology=4x4"],
        "must be a label of GKE that begins with tpu, such as tpu-v5p-slice",
    ),
    (
        [
            "gke",
            STAGE1,
            "--workdir=gs://b/w",
            "--image=i",
            "--accelerator=tpu-v6e-slice",
        ]
        + ["--topology=4x4", "--nodes=4"],
        "Remove --nodes",
    ),
    (
        [
            "gke",
            STAGE1,
            "--workdir=s3://b/w",
            "--image=i",
            "--accelerator=tpu-v6e-slice",
        ]
        + ["--topology=4x4"],
        "The workdir must be a path on a disk or gs://bucket/path; got s3://b/w",
    ),
    (
        ["gke", STAGE1, "--workdir=gs://", "--image=i", "--accelerator=tpu-v6e-slice"]
        + ["--topology=4x4"],
        "The workdir must be in a bucket, for example gs://name/run",
    ),
    (
        ["tpu_vm", STAGE1, "--workdir=gs://b/w", "--zone=z", "--runtime=r"]
        + ["--accelerator=v5p-129"],
        "must be a Cloud TPU type such as v5p-128, v6e-16 or v4-8; got v5p-129",
    ),
    (
        ["tpu_vm", STAGE1, "--workdir=gs://b/w", "--zone=z", "--runtime=r"]
        + ["--accelerator=v5p-128", "--env=A-B=3"],
        "--env must be NAME=VALUE; got 'A-B=3'",
    ),
    (
        ["local", STAGE1, "--workdir=w", "--processes=3"],
        "batch_size must be divisible by devices x accumulate = 3 x 1 = 3; got 64",
    ),
]
ACCEPTED = ["gke", STAGE1, "--workdir=gs://b/w", "--image=i", "--accelerator=nvidia-a"]
ACCEPTED += ["--gpus_per_node=8"]


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A folder with stand-ins for sbatch and kubectl, which log their calls and fail."""
    folder = tmp_path_factory.mktemp("bin")
    for tool in ("sbatch", "kubectl"):
        file = folder / tool
        file.write_text(f'#!/bin/bash\necho "{tool} $@" >>{folder}/calls\nexit 3\n')
        file.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def refused(tools):
    """The results of all commands that must be refused, and the calls they made."""
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = forks.run_all([["submit", *args] for args, _ in REFUSED], env=env)
    assert not (tools / "calls").exists()
    return done


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refused_with_one_line_and_nothing_submitted(refused, case):
    assert refused[case].code == 64
    err = refused[case].err
    assert REFUSED[case][1] in err and err.count("\n") == 1


def test_the_exit_code_of_the_program_is_passed_on(tools, tmp_path):
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    words = ["submit", "slurm", STAGE1, f"--workdir={tmp_path}/w"]
    (done,) = forks.run_all([words], env=env)
    assert done.code == 3 and (tools / "calls").read_text() == "sbatch \n"
    assert (tmp_path / "w/logs").is_dir()


def test_a_missing_program_is_named(tmp_path):
    (done,) = forks.run_all(
        [["submit", *ACCEPTED]], env=os.environ | {"PATH": str(tmp_path)}
    )
    assert done.code == 64
    assert done.err == (
        "ConfigError: kubectl is not installed here. Install it, or use --dry-run.\n"
    )


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (
            "slurm --config.a=1 --nodes 2 --config.b.c=x",
            ["--config.a=1", "--config.b.c=x"],
        ),
        ("--config.number -5 --config.x=1", ["--config.number", "-5", "--config.x=1"]),
        (
            "--config.bool --nodes 2 --noconfig.bool x",
            ["--config.bool", "--noconfig.bool"],
        ),
        ("--config x.py --workdir w --configuration.a=1", []),
    ],
)
def test_overrides_are_kept_as_typed(words, kept, monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_integer("config.number", 1, "", flag_values=values)
    flags.DEFINE_bool("config.bool", False, "", flag_values=values)
    monkeypatch.setattr(jobs.flags, "FLAGS", values)
    assert jobs.config_overrides(words.split()) == tuple(kept)


@pytest.mark.parametrize(
    ("topology", "chips_per_host", "expected"),
    [
        ("4x4x4", 4, (16, 4)),
        ("2x4", 8, (1, 8)),
        ("1x1", 4, (1, 1)),
        ("16x16", 4, (64, 4)),
    ],
)
def test_hosts_of_a_slice(topology, chips_per_host, expected):
    assert hosts_and_chips(topology, chips_per_host) == expected


@pytest.mark.parametrize("topology", ["4", "4x", "4x4x4x4", "0x4", "3x3"])
def test_an_invalid_topology(topology):
    with pytest.raises(ConfigError, match="--topology"):
        hosts_and_chips(topology, 4)


def test_settings_that_contradict_each_other(job):
    with pytest.raises(ConfigError, match="got 4 tasks and 8 GPUs per node"):
        slurm.SlurmPlace(tasks_per_node=4, gpus_per_node=8)
    with pytest.raises(
        ConfigError, match="--topology for TPUs, or --gpus_per_node .* got neither"
    ):
        gke.GkePlace(image="i", accelerator="a")
    for place in (
        gke.GkePlace(image="i", accelerator="tpu-a", topology="2x2"),
        tpu_vm.TpuVmPlace(accelerator="v5p-8", runtime="r", zone="z"),
    ):
        with pytest.raises(ConfigError, match="must be in a bucket"):
            place.render(job("runs/s1"))


def test_kubernetes_does_not_expand_what_the_user_typed(job):
    train = job("gs://b/w", overrides=("--config.x=$(HOME)",))
    place = gke.GkePlace(image="i", accelerator="tpu-a", topology="2x2")
    assert '- "--config.x=$$(HOME)"' in place.render(train)["jobset.yaml"]


def test_a_template_keeps_indentation_and_needs_every_value(tmp_path):
    template = tmp_path / "t"
    template.write_text("a: %{a}\nb:\n  %{b}\n  %{c}\n%j ${x%{a}}\n")
    filled = fill(template, a=1, b=["x", "y"], c=[])
    assert filled == "a: 1\nb:\n  x\n  y\n%j ${x1}\n"
    with pytest.raises(KeyError):
        fill(template, a=1, b=[])


BREAKS = (
    Break(
        "Kubernetes expands what the user typed",
        "launch/gke/jobset.py",
        'word.replace("$", "$$")',
        "word",
        "test_kubernetes_does_not_expand_what_the_user_typed",
    ),
)


@pytest.mark.parametrize("python", [sys.executable, "/another/python"])
def test_a_bucket_needs_gcsfs_in_this_python(monkeypatch, python):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # importing it fails
    job = jobs.Job("n", "digits:stage1", "gs://b/w", (), (), 1, python)
    config = untrained.parsed("digits", "stage1")
    if python != sys.executable:  # which may have it
        job_checks.check(job, local.LocalPlace(), [config], None)
        return
    with pytest.raises(
        ConfigError, match="workdir gs://b/w needs gcsfs, which cannot be"
    ):
        job_checks.check(job, local.LocalPlace(), [config], None)


@pytest.mark.parametrize(
    ("accelerator", "devices"),
    [("v5p-128", 64), ("v4-8", 4), ("v3-8", 8), ("v6e-16", 16), ("v5litepod-4", 4)],
)
def test_devices_of_an_accelerator_type(accelerator, devices):
    assert slices.num_devices(accelerator) == devices


def test_slurm_does_not_fill_in_what_a_path_contains():
    job = jobs.Job("n", "digits:stage1", "/w/100%j", (), (), 1, "python")
    script = slurm.SlurmPlace().render(job)["job.sh"]
    assert "#SBATCH --output=/w/100%%j/logs/slurm-%j.log" in script
    assert "starts=/w/100%j/logs/short-starts" in script


def test_an_accelerator_type_of_the_future_is_not_checked(caplog):
    assert slices.num_devices("tpu7x-128") == 0
    assert "tpu7x-128 is not known; the mesh is not checked" in caplog.text
