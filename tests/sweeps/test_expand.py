"""Trials from sweep files, and mistakes that are refused before anything starts."""

import importlib
import json

import pytest

from experiments import sweeps as sweep_files
from experiments.sweeps import bases, chain, grid, product, zipped
from launch.gke import names
from launch.lib import trials
from ul.core.errors import ConfigError
from ul.sweeps.runner import command_lines

SWEEP_FILES = (
    "bitrate", "loss_factor", "bias_factor", "channels", "latent_grid", "base_size",
)  # fmt: skip


def test_products_zips_and_chains():
    a, b = grid("a", (1, 2)), grid("b", (3, 4))
    assert product(a, b) == [
        dict(a=1, b=3), dict(a=1, b=4), dict(a=2, b=3), dict(a=2, b=4),
    ]  # fmt: skip
    assert zipped(a, b) == [dict(a=1, b=3), dict(a=2, b=4)]
    assert chain(a, b) == [dict(a=1), dict(a=2), dict(b=3), dict(b=4)]
    with pytest.raises(ValueError):
        zipped(a, grid("b", (3,)))


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ({"loss.weighting.factor": 1.5, "loss.weighting.bias": 3.0}, "factor1.5-bias3"),
        ({"encoder.latent_channels": 4}, "latent-channels4"),
        ({"loss.weighting.bias": -1.0, "seed": 0}, "biasm1-seed0"),
        (
            {"loss.weighting.bias": 1.0, "stage2:loss.weighting.bias": 2.0},
            "loss-weighting-bias1-stage2-loss-weighting-bias2",
        ),
        ({"stage2:base.widths": (64, 128)}, "widths64x128"),
        ({"optimizer.lr": 1e-5, "both:mesh.x": True}, "lr1e-05-xtrue"),
        ({"decoder.channels": ()}, "channels"),
        ({"data.source.path": "/a b/C"}, "patha-b-c"),
    ],
)
def test_names_are_made_of_keys_and_values(point, name):
    (trial,) = sweep_files.trials([point], stage1="c")
    assert trial["name"] == name


def test_keys_go_to_their_stages_and_stage_2_gets_the_latent_shape(expand):
    point = {
        "encoder.latent_channels": 3,
        "both:seed": 5,
        "stage2:loss.weighting.bias": 0.5,
    }
    (trial,) = expand(point, fixed={"stage2:steps": 4}, assignments=["log.every=1"])
    first, second = trial.stages
    assert first.overrides == {"encoder.latent_channels": 3, "seed": 5, "log.every": 1}
    expected = {"seed": 5, "loss.weighting.bias": 0.5, "steps": 4, "log.every": 1}
    assert second.overrides == expected | {"latent_shape": [4, 4, 3]}
    assert (second.resolved_config["latent_shape"], second.steps) == ([4, 4, 3], 4)
    assert (first.stage1_workdir, second.stage1_workdir) == (None, first.workdir)
    lines = command_lines("/o", [trial], [])
    train = [line for line in lines if "ul train" in line]
    assert f"--config.stage1.workdir=/o/{first.workdir}" in train[1]
    assert "'--config.latent_shape=(4, 4, 3)'" in train[1]


def test_overrides_may_follow_from_a_point(expand):
    expanded = expand(
        *grid("loss.weighting.factor", (1.5, 2.0)),
        follow=lambda point: {
            "stage2:loss.weighting.bias": point["loss.weighting.factor"] / 2
        },
    )
    biases = [
        t.stages[1].resolved_config["loss"]["weighting"]["bias"] for t in expanded
    ]
    assert biases == [0.75, 1.0]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            {"loss.factr": 2},
            "Trial factr2, .*smoke: Unknown key loss.factr. .*loss.weighting.factor",
        ),
        (
            {"stage2:loss.ramp_steps": 2},
            "smoke2: Unknown key loss.ramp_steps",
        ),
        (
            {"loss.weighting.factor": 0.5},
            "loss.weighting.factor must be above 1, .*; got 0.5",
        ),
        ({"steps": 2.5}, "steps must be of type int; got 2.5"),
        ({"encoder.channels": (16,)}, "must have the same length"),
        ({"encoder.patch": 2}, "must have the same grid; got 2x2 and 4x4"),
        (
            {"prior_schedule.logsnr_max": 6.0},
            "smoke2: schedule.logsnr_max must be 6.0, .*; got 5.0",
        ),
        (
            {"stage2:latent_shape": (4, 4, 7)},
            r"latent_shape must be \(4, 4, 4\), .*; got \(4, 4, 7\)",
        ),
        ({"stage3:seed": 1}, "one of stage1, stage2, both; got 'stage3:seed'"),
        ({"loss": {"factor": 2}}, "An override of a sweep must set one setting"),
    ],
)
def test_what_training_would_refuse_is_refused_at_once(expand, point, message):
    name = (lambda p: "t") if "loss" in point else None
    with pytest.raises(ConfigError, match=message) as e:
        expand(point, name=name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("pair", ["steps", "=2", "stpes=2"])
def test_assignments_of_another_form_are_refused(expand, pair):
    with pytest.raises(ConfigError, match=pair.split("=")[0] or "--set"):
        expand({}, name=lambda p: "t", assignments=[pair])


def test_two_trials_of_one_name_are_refused(expand):
    points = [{"loss.weighting.factor": 2.0}, {"loss.weighting.factor": 2}]
    with pytest.raises(
        ConfigError, match="two trials are named 'factor2': .*2.0.* and "
    ):
        expand(*points)


@pytest.mark.parametrize("descriptions", [[], [{"loss.weighting.factor": 2}], [3]])
def test_descriptions_that_are_no_trials_are_refused(descriptions):
    with pytest.raises(ConfigError, match="no trials|must return"):
        trials.expand(descriptions, [])


@pytest.mark.parametrize("name", ["A", "a/b", "", "-a", "a b", "shared", "a" * 101])
def test_names_that_cannot_be_directories_are_refused(expand, name):
    with pytest.raises(ConfigError, match="A trial name must have"):
        expand({}, name=lambda point: name)


def test_a_shared_stage_1_has_one_workdir_and_one_config(expand):
    sizes = grid("stage2:base.depths", ((1,), (2,)))
    expanded = expand(
        *product(grid("loss.weighting.factor", (1.5, 2.0)), sizes), share_stage1=True
    )
    stage1s = [t.stages[0].workdir for t in expanded]
    assert stage1s == ["shared/factor1.5/stage1"] * 2 + ["shared/factor2/stage1"] * 2
    assert len({t.stages[1].workdir for t in expanded}) == 4

    def seed(point):
        return {"seed": point["stage2:base.depths"][0]}

    with pytest.raises(ConfigError, match="depths1 and depths2 share shared/stage1"):
        expand(*sizes, share_stage1=True, follow=seed)


@pytest.mark.parametrize("arg", bases.NAMES)
@pytest.mark.parametrize("file", SWEEP_FILES)
def test_the_sweeps_of_this_repository_expand(file, arg):
    descriptions = importlib.import_module(f"experiments.sweeps.{file}").get_sweep(arg)
    expanded = trials.expand(descriptions, [])
    assert len(expanded) >= 3 and all(len(t.stages) == 2 for t in expanded)
    job_names = {names.kubernetes_name(f"{file}-{t.name}") for t in expanded}
    assert len(job_names) == len(expanded) and max(map(len, job_names)) <= 40
    json.dumps([t.overrides for t in expanded])


@pytest.mark.parametrize("arg", ["digits", "photos"])
def test_the_students_of_a_seed_share_their_teacher(arg):
    students = importlib.import_module("experiments.sweeps.students")
    expanded = trials.expand(students.get_sweep(arg), [])
    assert len(expanded) == 16 and len({t.stages[0].workdir for t in expanded}) == 2
    for trial in expanded:
        config = trial.stages[1].resolved_config
        assert config["sampling"]["num_steps"] == config["distillation"]["num_calls"]


def test_the_ablations_are_a_sweep():
    ablations = importlib.import_module("experiments.sweeps.ablations")
    expanded = trials.expand(ablations.get_sweep(), ["seed=1"])
    assert [len(t.stages) for t in expanded] == [2] * 8 + [1] * 3
    assert all(s.resolved_config["seed"] == 1 for t in expanded for s in t.stages)
    (one,) = ablations.get_sweep("ul")
    assert one["stages"][1]["config"] == "experiments/ablations.py:ul_base"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("none.py", None, "The sweep must be .*; the file .*none.py does not exist"),
        ("a.py", "def get_swep(): pass", "no attribute 'get_sweep'"),
        ("a.py", "import nothing_of_that_name", "a.py:1: No module named"),
        ("a.py", "def get_sweep(", "failed with SyntaxError at .*a.py:1: "),
    ],
)
def test_sweep_files_that_cannot_be_read_are_refused(tmp_path, file, text, message):
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=message) as e:
        trials.files.call_user_function("The sweep", str(tmp_path / file), "get_sweep")
    assert "\n" not in str(e.value)


def test_job_names_fit_kubernetes():
    assert names.kubernetes_name("bitrate-bias2-factor1.5") == "bitrate-bias2-factor1-5"
    long = [names.kubernetes_name("a" * 60 + end) for end in ("x", "y")]
    assert long[0] != long[1] and [len(name) for name in long] == [40, 40]
