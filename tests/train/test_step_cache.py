"""The file of a compiled step: what it spares, what it depends on, and damage."""

import dataclasses
import logging
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lib import untrained
from tests.lib.breaks import Break
from tests.lib.commands import digests, stage1
from ul.core import mesh as meshes
from ul.core.metrics import Moments
from ul.runs import session
from ul.train import step_cache
from ul.train.step_cache import StepCache


@pytest.fixture
def arguments():
    """A state that is sharded over eight devices, and a batch."""
    mesh = meshes.make(1, 8)
    state = {"w": jnp.arange(64.0).reshape(8, 8), "n": jnp.int32(0)}
    shardings = meshes.tree_shardings(mesh, state)
    x = jax.device_put(jnp.ones((8, 8)), meshes.batch_sharding(mesh))
    return jax.device_put(state, shardings), {"x": x}


@pytest.fixture(autouse=True)
def new_programs():
    """Write nothing into JAX's own cache, from which a program could not be kept."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, 1e9)
    yield
    jax.config.update(name, before)


def compiled_step(state, batch):
    def step(state, batch):
        w = 2.0 * state["w"] + batch["x"].mean(0, keepdims=True)
        moments = {"b": Moments.from_values(w[0]), "a": Moments.from_values(w[1])}
        return {"w": w, "n": state["n"] + 1}, moments

    return jax.jit(step, donate_argnums=0).lower(state, batch).compile()


def test_a_second_start_gets_the_same_step(tmp_path, arguments, monkeypatch):
    cache = StepCache(tmp_path, "a", *arguments)
    assert cache.load() is None
    compiled = compiled_step(*arguments)
    cache.save(compiled, 3.0)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("train_step-")
    monkeypatch.setattr(step_cache.compile_cache.SavedTime, "seconds", 0.0)
    loaded = StepCache(tmp_path, "a", *arguments).load()
    assert step_cache.compile_cache.SavedTime.seconds == 3.0
    copies = jax.tree.map(jnp.copy, arguments[0])
    copies = jax.device_put(copies, jax.tree.map(lambda a: a.sharding, arguments[0]))
    want, moments = compiled(copies, arguments[1])
    got, same = loaded(*arguments)
    assert {n: float(m.mean) for n, m in same.items()} == {
        n: float(m.mean) for n, m in moments.items()
    }
    assert arguments[0]["w"].is_deleted()  # it is donated
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
        assert got[name].sharding.is_equivalent_to(want[name].sharding, want[name].ndim)


def test_it_belongs_to_its_run_its_shapes_and_its_shardings(tmp_path, arguments):
    StepCache(tmp_path, "a", *arguments).save(compiled_step(*arguments), 3.0)
    state, batch = arguments
    assert StepCache(tmp_path, "b", state, batch).load() is None
    half = {"x": batch["x"][:4]}
    assert StepCache(tmp_path, "a", state, half).load() is None
    moved = jax.device_put(state, jax.devices()[0])
    assert StepCache(tmp_path, "a", moved, batch).load() is None
    assert StepCache(tmp_path, "", state, batch).load() is None
    assert StepCache(None, "a", state, batch).load() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:40],
        lambda content: content[:-1],
        lambda content: content.replace(b'"seconds": 3', b'"seconds": 4'),
    ],
)
def test_a_damaged_file_is_reported_and_not_loaded(tmp_path, arguments, damage, caplog):
    cache = StepCache(tmp_path, "a", *arguments)
    cache.save(compiled_step(*arguments), 3.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, "ul"):
        assert cache.load() is None
    (record,) = caplog.records
    assert "it is compiled again" in record.getMessage() and not file.exists()
    cache.save(compiled_step(*arguments), 3.0)
    assert cache.load() is not None


def test_a_file_that_others_can_write_is_not_used(tmp_path, arguments):
    cache = StepCache(tmp_path, "a", *arguments)
    cache.save(compiled_step(*arguments), 3.0)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o660)
    assert cache.load() is None and file.exists()


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path, arguments, caplog):
    (tmp_path / "file").write_text("")
    cache = StepCache(tmp_path / "file", "a", *arguments)
    with caplog.at_level(logging.WARNING, "ul"):
        cache.save(compiled_step(*arguments), 3.0)
    (record,) = caplog.records
    assert "cannot be kept" in record.getMessage()


@pytest.mark.parametrize("is_read", [False, True])
def test_a_program_of_the_other_cache_is_not_kept(
    tmp_path, arguments, monkeypatch, is_read
):
    saved_time = step_cache.compile_cache.SavedTime
    monkeypatch.setattr(saved_time, "programs", 0)

    class Step:
        def compile(self):
            saved_time.programs += is_read
            return compiled_step(*arguments)

    monkeypatch.setattr(step_cache.compile_cache, "MIN_COMPILE_SECONDS", 0.0)
    StepCache(tmp_path, "a", *arguments).compile(Step)
    assert len(list(tmp_path.iterdir())) == (not is_read)


def test_old_files_are_removed(tmp_path, arguments, monkeypatch):
    monkeypatch.setattr(step_cache, "MAX_FILES", 2)
    compiled = compiled_step(*arguments)
    for number, name in enumerate("abc"):
        StepCache(tmp_path, name, *arguments).save(compiled, 3.0)
        for file in tmp_path.iterdir():
            if file.stat().st_mtime > 1e9:
                os.utime(file, (number, number))
        if name == "b":
            assert StepCache(tmp_path, "a", *arguments).load()  # it is in use
            (tmp_path / ".train_step-x.part").touch()
            os.utime(tmp_path / ".train_step-x.part", (0, 0))
    assert StepCache(tmp_path, "b", *arguments).load() is None
    assert len(list(tmp_path.iterdir())) == 2


def test_the_identity_is_that_of_config_flags_and_sources(monkeypatch, tmp_path):
    config = {"seed": 0, "log": {"every": 1}, "loss": {"bias": 1.0}}
    monkeypatch.setattr(step_cache, "_IMPORTED_AT", time.time() + 120.0)
    first = step_cache.identity(config, None)
    assert first == step_cache.identity(config | {"log": {"every": 2}}, None)
    others = [
        step_cache.identity(config | {"loss": {"bias": 2.0}}, None),
        step_cache.identity(config, {"variance": 0.1}),
    ]
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_x=1")
    others.append(step_cache.identity(config, None))
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    with jax.default_matmul_precision("highest"):
        others.append(step_cache.identity(config, None))
    monkeypatch.setattr(step_cache.ul, "__file__", str(tmp_path / "__init__.py"))
    for text in ("x = 1", "x = 2"):
        (tmp_path / "a.py").write_text(text)
        os.utime(tmp_path / "a.py", (1e9, 1e9))
        others.append(step_cache.identity(config, None))
    assert len({first, *others}) == 7 and "" not in others
    # The sources on the disk may differ from those that were imported.
    os.utime(tmp_path / "a.py", (time.time() + 120.0,) * 2)
    assert step_cache.identity(config, None) == ""
    (tmp_path / "a.py").unlink()
    (tmp_path / "b.py").symlink_to(tmp_path / "nowhere.py")
    assert step_cache.identity(config, None) == ""


def test_a_run_keeps_its_step_by_config_and_latents(monkeypatch):
    monkeypatch.setattr(step_cache, "_IMPORTED_AT", time.time() + 120.0)
    config = untrained.parsed("digits", "smoke")
    run, provenance = session.build_run(config, {})

    def identity(config, provenance):
        kept = session._keep_compiled_step(run, config, provenance)
        return kept.step_cache.args[1]

    first = identity(config, provenance)
    assert first and first == identity(config, provenance)
    assert first != identity(dataclasses.replace(config, seed=1), provenance)
    assert first != identity(config, provenance | {"latents": {"variance": 0.1}})
    assert run.step_cache.args[:2] == (None, "")  # only of commands


@pytest.mark.slow
def test_a_second_start_does_not_trace_its_step(tmp_path, command):
    sources = step_cache.Path(step_cache.ul.__file__).parent.rglob("*.py")
    if max(file.stat().st_mtime for file in sources) > time.time() - 90.0:
        pytest.skip("no step is kept while the sources change")
    env = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    log = []
    for name in ("one", "two"):
        words = stage1(tmp_path / name, "--config.steps=4")
        log.append(command(*words, env=env))
    assert "earlier start" not in log[0] and "an earlier start had compiled" in log[1]
    assert len(list((tmp_path / "programs").glob("train_step-*"))) == 1
    assert digests(tmp_path / "one", 4) == digests(tmp_path / "two", 4)
    words = stage1(tmp_path / "three", "--config.steps=4", "--config.loss.ramp_steps=7")
    command(*words, env=env)
    assert len(list((tmp_path / "programs").glob("train_step-*"))) == 2


BREAKS = (
    Break(
        "a compiled step is read without its digest",
        "ul/train/step_cache.py",
        "if hashlib.sha256(body).digest() != content[:_DIGEST_BYTES]:",
        "if False:",
        "test_a_damaged_file_is_reported_and_not_loaded",
    ),
    Break(
        "a compiled step of another config is taken",
        "ul/train/step_cache.py",
        "text = json.dumps([identity, str(structure), shapes, devices])",
        "text = json.dumps([str(structure), shapes, devices])",
        "test_it_belongs_to_its_run_its_shapes_and_its_shardings",
    ),
)
