"""Saving and restoring checkpoints, and every way in which one can be unusable."""

import errno
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from tests.lib.breaks import Break
from ul.checkpoints import digests, reading, store
from ul.core import mesh as meshes
from ul.core import processes, sealed_json
from ul.core.errors import CheckpointError, NonFiniteError, PeerLost, StorageError
from ul.train import state

TX = optax.adam(1e-3)


def init(width=256):
    w = jnp.arange(128.0 * width).reshape(128, width)
    return {"encoder": {"kernel": w, "bias": jnp.ones(3)}}


def make_state(step, mesh=None):
    """A state that claims to have taken `step` updates."""
    mesh = mesh or meshes.make()
    s = state.initialize(init, TX, (0.9,), mesh)
    s = s.replace(step=jnp.asarray(step, jnp.int32))
    return jax.device_put(s, meshes.tree_shardings(mesh, s))


def abstract(mesh=None, width=256):
    return state.abstract_state(lambda: init(width), TX, (0.9,), mesh or meshes.make())


@pytest.fixture
def saved(tmp_path):
    """A workdir with the verified steps 1, 2, 3."""
    checkpoints = store.Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    return tmp_path


def restore_latest(workdir, **changes):
    checkpoints = store.Checkpoints(workdir, keep=3)
    try:
        return checkpoints.restore_latest(abstract(**changes))
    finally:
        checkpoints.close()


def data_files(workdir, step):
    """The files of a step that hold its arrays: a few hundred kilobytes in total."""
    return [
        f
        for f in (workdir / "checkpoints" / str(step) / "state").rglob("d/*")
        if f.is_file()
    ]


@pytest.mark.parametrize("axes", [(8, 1), (2, 4), (1, 8)])
def test_restores_bit_for_bit_on_any_mesh(saved, axes):
    mesh = meshes.make(*axes)
    restored = restore_latest(saved, mesh=mesh)
    for a, b in zip(
        jax.tree.leaves(restored), jax.tree.leaves(make_state(3)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    kernel = restored.params["encoder"]["kernel"]
    assert kernel.sharding == meshes.leaf_sharding(mesh, kernel)


def test_a_directory_without_checkpoints_gives_none(tmp_path):
    assert restore_latest(tmp_path) is None


def test_each_committed_step_is_verified(saved):
    assert reading.verified_steps(saved) == [1, 2, 3]
    record = json.loads((saved / "verified" / "3.json").read_text())
    assert record["digests"] == digests.digest_leaves(make_state(3))[0]


def test_retention_keeps_the_last_and_the_multiples(tmp_path):
    checkpoints = store.Checkpoints(tmp_path, keep=2, keep_every=4)
    for step in range(1, 12):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    assert reading.verified_steps(tmp_path) == [4, 8, 10, 11]
    assert sorted(int(p.stem) for p in (tmp_path / "verified").iterdir()) == [
        4,
        8,
        10,
        11,
    ]


def test_retention_by_time(tmp_path):
    """One step per minute is kept: of five within seconds, the first and the last."""
    checkpoints = store.Checkpoints(tmp_path, keep=1, keep_minutes=1.0)
    for step in range(1, 6):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    assert reading.verified_steps(tmp_path) == [1, 5]


@pytest.mark.parametrize("harm", ["truncate", "remove", "metadata", "flip"])
def test_a_damaged_step_falls_back_to_the_previous_one(saved, harm):
    if harm == "metadata":
        (saved / "checkpoints" / "3" / "state" / "_METADATA").unlink()
        for f in (saved / "checkpoints" / "3" / "state").glob("manifest*"):
            f.unlink()
    for file in data_files(saved, 3):
        if harm == "truncate":
            file.write_bytes(file.read_bytes()[:100])
        elif harm == "remove":
            file.unlink()
        elif harm == "flip":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    assert int(restore_latest(saved).step) == 2
    # Its number is free again, and its files are kept.
    assert reading.verified_steps(saved) == [1, 2]
    assert [p.name.split("-")[0] for p in (saved / "damaged").iterdir()] == ["3"]


def tree_content(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("harm", ["marker", "directory", "all", "not recorded"])
def test_a_run_whose_newest_step_is_incomplete_is_not_touched(saved, harm):
    """For example copied without *.txt, or while the copy is still going on."""
    if harm == "directory":
        shutil.rmtree(saved / "checkpoints" / "3")
    elif harm == "all":
        shutil.rmtree(saved / "checkpoints")
    else:
        (saved / "checkpoints" / "3" / "commit_success.txt").unlink()
    if harm == "not recorded":
        (saved / "verified" / "3.json").unlink()
    before = tree_content(saved)
    with pytest.raises(
        CheckpointError, match="3.*lacks its commit.*Nothing was changed"
    ):
        reading.check_nothing_is_missing(saved)
    assert tree_content(saved) == before


def test_only_the_step_that_was_being_saved_is_removed(saved):
    """A step without a marker that this run did not begin to save stays where it is."""
    for step in (1, 3):
        (saved / "checkpoints" / str(step) / "commit_success.txt").unlink()
    (saved / "verified" / "3.json").unlink()
    (saved / "unfinished.json").write_text(json.dumps({"step": 3}))
    reading.check_nothing_is_missing(saved)
    assert int(restore_latest(saved).step) == 2
    assert not (saved / "checkpoints" / "3").exists()
    assert (saved / "checkpoints" / "1" / "state").exists()
    assert not (saved / "unfinished.json").exists()


def test_unknown_files_and_broken_records_stop_no_start(saved, caplog):
    (saved / "verified" / "8 (1).json").write_text("{}")
    (saved / "verified" / "9.json.bak").write_text("{}")
    (saved / "checkpoints" / "notes").mkdir()
    (saved / "unfinished.json").write_text("[1]")
    (saved / "verified" / "3.json").write_bytes(b"\xff")
    reading.check_nothing_is_missing(saved)
    assert int(restore_latest(saved).step) == 3
    assert "ignored 8 (1).json, 9.json.bak" in caplog.text


@pytest.mark.parametrize("where", ["read_item", "listing", "meta"])
@pytest.mark.parametrize("kind", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_storage_that_fails_for_a_moment_is_tried_again(
    saved, monkeypatch, where, kind
):
    break_storage(monkeypatch, where, OSError(kind, "lost"), num_failures=2)
    assert int(restore_latest(saved).step) == 3
    assert not (saved / "damaged").exists()


@pytest.mark.parametrize(
    ("where", "error", "code"),
    [
        ("read_item", OSError(errno.ESTALE, "Stale file handle"), 74),
        ("listing", OSError(errno.EIO, "Input/output error"), 74),
        ("meta", OSError(errno.ETIMEDOUT, "Connection timed out"), 74),
        ("meta", PermissionError(errno.EACCES, "Permission denied"), 64),
        # TensorStore reports its errors in this way.
        ("read_item", ValueError("UNAVAILABLE: Error reading [spec=...]"), 74),
    ],
)
def test_storage_that_fails_moves_no_checkpoint(saved, monkeypatch, where, error, code):
    before = tree_content(saved)
    break_storage(monkeypatch, where, error, num_failures=10**6)
    with pytest.raises(StorageError) as e:
        restore_latest(saved)
    assert e.value.code == code
    monkeypatch.undo()
    assert tree_content(saved) == before


def break_storage(monkeypatch, where, error, num_failures):
    """Let the first calls fail that read arrays, list directories or read the meta."""
    owner, name = {
        "read_item": (reading, "read_item"),
        "listing": (type(epath.Path("/")), "iterdir"),
        "meta": (type(epath.Path("/")), "read_bytes"),
    }[where]
    call, failures = getattr(owner, name), itertools.count()

    def fail_first(*args, **kwargs):
        if next(failures) < num_failures:
            raise error
        return call(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail_first)


def test_a_path_that_the_locale_cannot_express_is_no_damage(saved, monkeypatch):
    error = UnicodeEncodeError("ascii", "\u00e9", 0, 1, "ordinal not in range(128)")
    break_storage(monkeypatch, "read_item", error, num_failures=10**6)
    with pytest.raises(StorageError, match="Set LC_ALL=C.UTF-8") as e:
        restore_latest(saved)
    assert e.value.code == 64 and not (saved / "damaged").exists()


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_bit_in_the_meta_is_damage_and_not_another_model(saved, seed):
    path = saved / "checkpoints" / "3" / "meta" / "metadata"
    content = bytearray(path.read_bytes())
    position = np.random.default_rng(seed).integers(8 * len(content))
    content[position // 8] ^= 1 << (position % 8)
    path.write_bytes(content)
    assert int(restore_latest(saved).step) == 2


def test_arrays_that_damaged_metadata_do_not_list_are_damage(saved):
    """Orbax would return the shapes in place of these arrays."""
    path = saved / "checkpoints" / "3" / "state" / "_METADATA"
    path.write_text(path.read_text().replace("kernel", "kerneL"))
    assert int(restore_latest(saved).step) == 2


def flip_bit(path, rng) -> None:
    content = bytearray(path.read_bytes())
    bit = int(rng.integers(8 * len(content)))
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_no_flipped_bit_is_accepted_and_an_older_step_is_found(saved, tmp_path, seed):
    """Fifty flips in any file of the newest step or in its record, one at a time."""
    rng = np.random.default_rng(seed)
    expected = {step: jax.device_get(make_state(step)) for step in (2, 3)}
    newest = saved / "checkpoints" / "3"
    files = sorted(f for f in newest.rglob("*") if f.is_file() and f.stat().st_size)
    files.append(saved / "verified" / "3.json")
    for i in range(50):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(saved, copy, ignore=shutil.ignore_patterns("copy*"))
        flip_bit(copy / files[rng.integers(len(files))].relative_to(saved), rng)
        restored = jax.device_get(restore_latest(copy))
        step = int(restored.step)
        assert step in expected
        for a, b in zip(
            jax.tree.leaves(restored), jax.tree.leaves(expected[step]), strict=True
        ):
            np.testing.assert_array_equal(a, b)
        shutil.rmtree(copy)


def test_steps_of_older_versions_are_refused_and_kept(saved):
    for step in (1, 2, 3):
        path = saved / "checkpoints" / str(step) / "meta" / "metadata"
        path.write_text(json.dumps({"schema": 1, "step": step, "digests": {"a": 1}}))
    with pytest.raises(CheckpointError, match="written by an older version"):
        restore_latest(saved)
    assert not (saved / "damaged").exists()


def test_a_kill_between_commit_and_verification_loses_nothing(saved):
    shutil.rmtree(saved / "verified")
    with pytest.raises(CheckpointError, match="no verified checkpoint"):
        reading.choose_verified_step(saved, None)
    assert int(restore_latest(saved).step) == 3
    assert 3 in reading.verified_steps(saved)


def test_a_step_with_wrong_digests_is_skipped(saved):
    path = saved / "checkpoints" / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["digests"]["params/encoder/bias"] = "0" * 16
    path.write_text(json.dumps(sealed_json.seal(meta)))
    assert int(restore_latest(saved).step) == 2


def test_a_step_that_holds_another_number_of_updates_is_skipped(saved):
    checkpoints = store.Checkpoints(saved, keep=4)
    checkpoints.save(9, make_state(8))
    checkpoints.close()
    assert int(restore_latest(saved).step) == 3


def test_training_never_starts_from_scratch_over_unreadable_steps(saved):
    for step in (1, 2, 3):
        for file in data_files(saved, step):
            file.unlink()
    with pytest.raises(CheckpointError, match="none of the steps 3, 2, 1 in"):
        restore_latest(saved)


def test_another_model_is_refused_and_its_arrays_are_named(saved):
    with pytest.raises(CheckpointError, match=r"kernel.*\[128, 256\].*\[128, 128\]"):
        restore_latest(saved, width=128)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    checkpoints = store.Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, make_state(1))
    broken = make_state(2)
    broken = broken.replace(
        ema={"0.9": jax.tree.map(lambda p: p * jnp.nan, broken.params)}
    )
    with pytest.raises(NonFiniteError, match="ema/0.9/encoder"):
        checkpoints.save(2, broken)
    checkpoints.close()
    assert reading.verified_steps(tmp_path) == [1]


def abstract_encoder(width=256):
    shapes = jax.eval_shape(lambda: init(width))["encoder"]
    return {
        "ema": {
            "0.9": {
                "encoder": jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(
                        leaf.shape,
                        leaf.dtype,
                        sharding=meshes.replicated(meshes.make()),
                    ),
                    shapes,
                )
            }
        }
    }


@pytest.mark.parametrize(
    ("message", "count", "error"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", 2, PeerLost),
        ("FAILED_PRECONDITION: No space left on device", 2, StorageError),
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", 1, StorageError),
    ],
)
def test_a_lost_process_is_told_apart_from_a_full_disk(
    tmp_path, monkeypatch, message, count, error
):
    checkpoints = store.Checkpoints(tmp_path, keep=3)

    def fail(*args, **kwargs):
        # Orbax passes on the errors of JAX and TensorStore in this way.
        raise ValueError(message)

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(processes, "EXIT_BARRIER_SECONDS", 0)
    with pytest.raises(error):
        checkpoints.save(1, make_state(1))
    monkeypatch.undo()
    checkpoints.close()


def test_a_subtree_can_be_restored_alone(saved):
    restored = reading.restore_subtree(saved, 2, abstract_encoder())
    np.testing.assert_array_equal(
        restored["ema"]["0.9"]["encoder"]["kernel"], init()["encoder"]["kernel"]
    )


def test_a_subtree_of_another_shape_or_name_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"1 differ: .*\[128, 64\]"):
        reading.restore_subtree(saved, 2, abstract_encoder(width=64))
    wrong = {"ema": {"0.5": abstract_encoder()["ema"]["0.9"]}}
    with pytest.raises(CheckpointError, match="no ema/0.5/encoder"):
        reading.restore_subtree(saved, 2, wrong)


def test_choosing_an_unverified_step_lists_the_verified_ones(saved):
    assert reading.choose_verified_step(saved, None) == 3
    with pytest.raises(CheckpointError, match=r"no verified step 7, only \[1, 2, 3\]"):
        reading.choose_verified_step(saved, 7)


BREAKS = (
    Break(
        "every step without a marker is deleted",
        "ul/checkpoints/store.py",
        "cleanup_tmp_directories=False",
        "cleanup_tmp_directories=True",
        "test_only_the_step_that_was_being_saved_is_removed",
    ),
    Break(
        "storage that fails counts as damage",
        "ul/checkpoints/reading.py",
        "except (MemoryError, StorageError, jax.errors.JaxRuntimeError):",
        "except (MemoryError, jax.errors.JaxRuntimeError):",
        "test_storage_that_fails_moves_no_checkpoint",
    ),
    Break(
        "the digests of a checkpoint are not compared",
        "ul/checkpoints/store.py",
        'leaf_digests != meta["digests"] or ',
        "",
        "test_a_step_with_wrong_digests_is_skipped",
    ),
    Break(
        "a checkpoint of another step is restored",
        "ul/checkpoints/store.py",
        " or int(state.step) != step",
        "",
        "test_a_step_that_holds_another_number_of_updates_is_skipped",
    ),
    Break(
        "half-written checkpoints are listed",
        "ul/checkpoints/store.py",
        "mode=ocp.options.AtomicityMode.COMMIT_FILE",
        "mode=ocp.options.AtomicityMode.DEFAULT",
        "test_each_committed_step_is_verified",
    ),
    Break(
        "training starts from scratch over unreadable checkpoints",
        "ul/checkpoints/store.py",
        "        if steps:\n",
        "        if False:\n",
        "test_training_never_starts_from_scratch_over_unreadable_steps",
    ),
    Break(
        "a state that is not finite is saved",
        "ul/checkpoints/store.py",
        "        if nonfinite:\n",
        "        if False:\n",
        "test_a_state_that_is_not_finite_is_not_saved",
    ),
)
