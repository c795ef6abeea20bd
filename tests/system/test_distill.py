"""A decoder of two calls, distilled from the decoder of a run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ul
from tests.lib import untrained
from tests.lib.breaks import Break
from tests.lib.commands import DIGITS
from ul.checkpoints import digests, reading
from ul.core.errors import ConfigError
from ul.evaluation import sampler_comparison, table
from ul.inference import export
from ul.runs import session
from ul.stages import registry
from ul.train import loop
from ul.train import state as states

CONFIG = f"--config={DIGITS}:smoke_distill"
# The parts of a segment grow with the fraction of all steps.
CONSISTENCY = ("--config.distillation.substeps=(4,4)",)
MOMENTS = (
    "--config.distillation.kind=moment_matching",
    "--config.sampling.kind=renoise",
)
MOMENTS += ("--config.distillation.num_calls=2",)


def student_config(teacher, variant="smoke_distill", **changes):
    below = {"workdir": str(teacher), "step": None, "weights": "ema"}
    return untrained.parsed("digits", variant, stage1=below, **changes)


def moment_config(teacher, **changes):
    """The same by moment matching."""
    below = {"workdir": str(teacher), "step": None, "weights": "ema"}
    settings = untrained.settings("digits", "smoke_distill") | changes
    settings["stage1"] = below
    settings["distillation"] = {"kind": "moment_matching", "num_calls": 2}
    settings["sampling"]["kind"] = "renoise"
    return registry.parse(settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A teacher and its student, both untrained."""
    folder = tmp_path_factory.mktemp("distill")
    teacher = untrained.leave(folder / "s1", untrained.parsed("digits", "smoke"), (2,))
    untrained.leave(folder / "student", student_config(teacher, seed=1), (2,))
    return folder / "s1", folder / "student"


def equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_it_begins_as_its_teacher_and_records_it(runs):
    run, provenance = session.build_run(student_config(runs[0]), {})
    teacher = ul.load_autoencoder(runs[0])
    first = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
    state = states.replace_networks(first, run.initial())
    assert equal(state.params["decoder"], teacher.params["decoder"])
    digest = digests.fingerprint(teacher.params["decoder"])
    assert provenance["teacher"] == {"decoder": digest}
    assert provenance["stage1"]["encoder"] == digests.fingerprint(
        teacher.params["encoder"]
    )


def test_moment_matching_trains_a_second_network_beside_the_student(runs, tmp_path):
    config = moment_config(runs[0], seed=1)
    run, _ = session.build_run(config, {})
    teacher = ul.load_autoencoder(runs[0])
    initial = run.initial()
    assert all(equal(initial[n], teacher.params["decoder"]) for n in initial)
    assert initial.keys() == {"decoder", "auxiliary"}
    # The batch of a step has what the student says now, not what it said at first.
    rows = next(run.batches(0, 1))
    moved = jax.tree.map(lambda p: p + 0.01, initial)
    first, later = (
        loop.place_batch(run, rows, 1, params) for params in (initial, moved)
    )
    np.testing.assert_array_equal(first["x_t"], later["x_t"])
    assert np.any(first["x_student"] != later["x_student"])
    decoder = registry.build(config).separate_decoder.decoder
    x_hat = decoder.denoise_image(
        moved, later["x_t"], later["logsnr_t"], later["z_0"], None
    )
    np.testing.assert_allclose(later["x_student"], x_hat, atol=1e-5)
    student = untrained.leave(tmp_path / "moments", config, (2,))
    ae = ul.load_autoencoder(student)
    assert ae.codec.decoder.sampler.method == "renoise"
    assert ae.params.keys() == {"encoder", "decoder"}
    image = np.zeros((2, 8, 8, 1), np.uint8)
    assert ae.reconstruct(image).shape == image.shape


def test_it_is_an_autoencoder_of_two_calls(runs):
    old, new = (ul.load_autoencoder(run, with_prior=True) for run in runs)
    assert equal(old.params["encoder"], new.params["encoder"])
    assert equal(old.params["prior"], new.params["prior"])
    decoder = new.codec.decoder
    assert decoder.sampler.nfe == 1  # and the last prediction
    calls = []

    def counted(params, x_t, logsnr, z_0, key):
        calls.append(logsnr)
        return jnp.zeros_like(x_t)

    image = np.zeros((2, 8, 8, 1), np.uint8)
    z, row = jnp.asarray(new.encode(image)), jnp.arange(2)
    watched = type(decoder)(counted, decoder.sampler, decoder.image_shape)
    with jax.disable_jit():
        watched(new.params, z, row, jax.random.key(0))
    np.testing.assert_allclose([float(c[0]) for c in calls], [-8.0, 0.5])
    assert new.reconstruct(image).shape == image.shape
    with pytest.raises(ConfigError, match="needs a prior and a decoder that are"):
        new.rate(image)  # the bits of the prior are in the evaluation


@pytest.mark.slow
def test_it_is_compared_with_the_decoder_that_it_copies(runs, tmp_path):
    how = dict(num_examples=8, pairs=["logsnr:ddim"], nfe=[3])
    comparison = sampler_comparison.compare(runs[0], students=[str(runs[1])], **how)
    found = comparison.rows
    picture = sampler_comparison.draw(comparison)
    tiles = picture[-4 * 9 * 8 :, -8 * 9 * 8 :][::8, ::8]  # of 8x8 pixels and a border
    np.testing.assert_array_equal(tiles[:8, :8], comparison.originals[0])
    np.testing.assert_array_equal(tiles[27:35, :8], found[2].images[0])
    assert all(row.images_per_s > 0 for row in found)
    assert [(r.pair, r.nfe) for r in found[1:]] == [
        ("logsnr:ddim", 3),
        ("student student", 2),
    ]
    assert found[2].distance > 0 and found[2].std_ratio > 0
    with pytest.raises(ConfigError, match="must be runs of stage 'distill'; .*'joint'"):
        sampler_comparison.compare(runs[0], students=[str(runs[0])], **how)
    with pytest.raises(ConfigError, match="is a student, which has one sampler"):
        sampler_comparison.compare(runs[1], **how)
    other = untrained.parsed("digits", "smoke", seed=1)
    other = untrained.leave(tmp_path / "other", other, (2,))
    with pytest.raises(ConfigError, match="must have the encoder of --workdir"):
        sampler_comparison.compare(other, students=[str(runs[1])], **how)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [CONSISTENCY, MOMENTS])
def test_the_command_trains_and_resumes_bit_for_bit(runs, tmp_path, command, flags):
    for name, stops in (("once", (8,)), ("twice", (4, 8))):
        words = ["train", CONFIG, f"--workdir={tmp_path / name}", *flags]
        words.append(f"--config.stage1.workdir={runs[0]}")
        for stop in stops:
            command(
                *words, f"--config.steps={stop}", "--config.optimizer.schedule=constant"
            )
    one, two = (
        ul.load_autoencoder(tmp_path / n, weights="raw") for n in ("once", "twice")
    )
    assert reading.verified_steps(tmp_path / "twice")[-1] == 8
    assert equal(one.params["decoder"], two.params["decoder"])
    assert not equal(
        one.params["decoder"], ul.load_autoencoder(runs[0]).params["decoder"]
    )


@pytest.mark.slow
def test_it_is_evaluated_exported_and_used_by_an_older_stage_2(runs, tmp_path, command):
    command("evaluate", f"--workdir={runs[1]}", "--num_examples=16")
    (file,) = (runs[1] / "evals").glob("*.json")
    numbers = json.loads(file.read_text())
    assert np.isfinite(numbers["rate_bpp"]) and np.isfinite(numbers["psnr_db"])
    assert "bound_bpd" not in numbers and "decoder_bpp" not in numbers
    export.export(runs[1], tmp_path / "out")
    image = np.zeros((2, 8, 8, 1), np.uint8)
    before, after = map(ul.load_autoencoder, (runs[1], tmp_path / "out"))
    np.testing.assert_array_equal(before.reconstruct(image), after.reconstruct(image))
    below = {"workdir": str(runs[0]), "step": 2, "weights": "ema"}
    config = untrained.parsed("digits", "smoke2", stage1=below)
    stage2 = untrained.leave(tmp_path / "s2", config, (2,))
    fast = ul.load_generator(stage2, stage1_workdir=str(runs[1]))
    assert fast.autoencoder.stage.name == "distill"
    assert np.any(fast.sample([1]) != ul.load_generator(stage2).sample([1]))
    command("evaluate", f"--workdir={stage2}", "--num_examples=16")
    own = table.merge_defaults(stage2)
    more = ("--num_examples=16", f"--decoder={runs[1]}")
    assert "decoder run" in command("evaluate", f"--workdir={stage2}", *more)
    files = list(Path(stage2, "evals").glob("*.json"))
    assert len(files) == 2 and table.merge_defaults(stage2) == own
    out = command("evaluate", f"--workdir={runs[0]}", f"--decoder={runs[1]}", code=64)
    assert "has networks of its own" in out
    with pytest.raises(ConfigError, match="has networks of its own"):
        export.export(runs[0], tmp_path / "none", stage1_workdir=str(runs[1]))
    single = untrained.parsed("single_stage", "pixels")
    pixels = untrained.leave(tmp_path / "pixels", single, (2,))
    with pytest.raises(ConfigError, match="has networks of its own"):
        ul.load_generator(pixels, stage1_workdir=str(runs[1]))
    export.export(stage2, tmp_path / "fast", stage1_workdir=str(runs[1]))
    exported = ul.load_generator(tmp_path / "fast")
    np.testing.assert_array_equal(exported.sample([1]), fast.sample([1]))


@pytest.mark.slow
def test_a_stage_2_knows_the_decoder_that_it_was_trained_with(runs, tmp_path):
    """Also if it was that of a student, and the other one is that of the stage 1."""
    below = {"workdir": str(runs[1]), "step": 2, "weights": "ema"}
    config = untrained.parsed("digits", "smoke2", stage1=below)
    stage2 = untrained.leave(tmp_path / "s2", config, (2,))
    recorded = json.loads(Path(stage2, "config.json").read_text())
    recorded = recorded["provenance"]["stage1"]
    assert recorded["stage"] == "distill"
    for workdir, is_own in ((None, True), (runs[1], True), (runs[0], False)):
        path = workdir and str(workdir)
        ae = ul.load_generator(stage2, stage1_workdir=path).autoencoder
        assert ae.is_recorded(recorded) is is_own
        assert ae.stage.name == ("distill" if is_own else "joint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"num_steps": 4}}, r"sampling.num_steps 2 \(got 4\)"),
        ({"sampling": {"logsnr_max": 8.0}}, r"sampling.logsnr_max 9.0 \(got 8.0\)"),
        ({"distillation": {"num_calls": 4}}, r"sampling.num_steps 4 \(got 2\)"),
        ({"distillation": {"num_calls": 0}}, "num_calls must be at least 1; got 0"),
        ({"distillation": {"substeps": (8, 4)}}, "substeps must be two integers"),
        ({"decoder": {"width": 64}}, "decoder.width is 32 there and 64 here"),
        ({"latent_shape": (4, 4, 8)}, "latent_shape must be "),
    ],
)
def test_settings_that_do_not_fit_are_refused(runs, changes, message):
    with pytest.raises(ConfigError, match=message) as e:
        session.build_run(student_config(runs[0], **changes), {})
    assert "\n" not in str(e.value)


def test_a_student_does_not_teach(runs):
    with pytest.raises(ConfigError, match="not distilled itself; .*'distill'"):
        session.build_run(student_config(runs[1]), {})


BREAKS = (
    Break(
        "a student that starts at random",
        "ul/runs/session.py",
        'build(lambda: dict.fromkeys(stage.networks, frozen["decoder"]), add_targets)',
        "build(dict, add_targets)",
        "test_it_begins_as_its_teacher_and_records_it",
    ),
)
