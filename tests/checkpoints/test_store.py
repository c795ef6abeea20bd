"""Save, restore, and every way in which a checkpoint can be no good."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ul.checkpoints import store
from ul.core import mesh, processes
from ul.core.errors import CheckpointError, NonFiniteError, PeerLost, StorageError
from ul.train import state

TX = optax.adam(1e-3)


def init(width=256):
    w = jnp.arange(128.0 * width).reshape(128, width)
    return {"encoder": {"kernel": w, "bias": jnp.ones(3)}}


def make(step, on=None, width=256):
    on = on or mesh.make()
    s = state.initialise(lambda: init(width), TX, (0.9,), on)
    s = s.replace(step=jnp.asarray(step, jnp.int32))
    return jax.device_put(s, jax.tree.map(lambda leaf: mesh.leaf_sharding(on, leaf), s))


def abstract(on=None, width=256):
    return state.abstract(lambda: init(width), TX, (0.9,), on or mesh.make())


@pytest.fixture
def saved(tmp_path):
    """A workdir with the verified steps 1, 2, 3."""
    kept = store.Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        kept.save(step, make(step))
    kept.close()
    return tmp_path


def resume(workdir, **how):
    kept = store.Checkpoints(workdir, keep=3)
    try:
        return kept.resume(abstract(**how))
    finally:
        kept.close()


def data_files(workdir, step):
    """Where the arrays of a step lie: a few hundred kilobytes in a few files."""
    return [
        f
        for f in (workdir / "checkpoints" / str(step) / "state").rglob("d/*")
        if f.is_file()
    ]


@pytest.mark.parametrize("axes", [(8, 1), (2, 4), (1, 8)])
def test_restores_bit_for_bit_on_any_mesh(saved, axes):
    on = mesh.make(*axes)
    found = resume(saved, on=on)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(make(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = found.params["encoder"]["kernel"]
    assert kernel.sharding == mesh.leaf_sharding(on, kernel)


def test_nothing_there_is_none(tmp_path):
    assert resume(tmp_path) is None


def test_each_commit_is_confirmed(saved):
    assert store.verified_steps(saved) == [1, 2, 3]
    record = json.loads((saved / "verified" / "3.json").read_text())
    assert record["digests"] == store.measure(make(3))[0]


def test_retention_keeps_the_last_and_the_multiples(tmp_path):
    kept = store.Checkpoints(tmp_path, keep=2, keep_every=4)
    for step in range(1, 12):
        kept.save(step, make(step))
    kept.close()
    assert store.verified_steps(tmp_path) == [4, 8, 10, 11]
    assert sorted(int(p.stem) for p in (tmp_path / "verified").iterdir()) == [
        4,
        8,
        10,
        11,
    ]


def test_retention_by_time(tmp_path):
    """One step a minute for good: of five saved within seconds, the first and the last."""
    kept = store.Checkpoints(tmp_path, keep=1, keep_minutes=1.0)
    for step in range(1, 6):
        kept.save(step, make(step))
    kept.close()
    assert store.verified_steps(tmp_path) == [1, 5]


@pytest.mark.parametrize("harm", ["truncate", "remove", "metadata", "flip"])
def test_a_damaged_step_falls_back_to_the_one_before(saved, harm):
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
    assert int(resume(saved).step) == 2
    # Its number is free again, and what is left of it is kept.
    assert store.verified_steps(saved) == [1, 2]
    assert [p.name.split("-")[0] for p in (saved / "damaged").iterdir()] == ["3"]


def test_a_step_without_its_commit_marker_is_no_step(saved):
    (saved / "checkpoints" / "3" / "commit_success.txt").unlink()
    assert store.verified_steps(saved) == [1, 2]
    assert int(resume(saved).step) == 2


def test_a_kill_between_commit_and_verification_costs_nothing(saved):
    shutil.rmtree(saved / "verified")
    with pytest.raises(CheckpointError, match="no verified checkpoint"):
        store.choose(saved, None)
    assert int(resume(saved).step) == 3
    assert 3 in store.verified_steps(saved)


def test_wrong_digests_are_not_believed(saved):
    path = saved / "checkpoints" / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["digests"]["params/encoder/bias"] ^= 1
    path.write_text(json.dumps(meta))
    assert int(resume(saved).step) == 2


def test_a_step_that_holds_another_number_of_updates_is_not_believed(saved):
    kept = store.Checkpoints(saved, keep=4)
    kept.save(9, make(8))
    kept.close()
    assert int(resume(saved).step) == 3


def test_never_afresh_over_steps_that_cannot_be_read(saved):
    for step in (1, 2, 3):
        for file in data_files(saved, step):
            file.unlink()
    with pytest.raises(CheckpointError, match=r"\[3, 2, 1\]"):
        resume(saved)


def test_another_model_is_refused_with_the_leaves_that_differ(saved):
    with pytest.raises(CheckpointError, match=r"kernel.*\[128, 256\].*\[128, 128\]"):
        resume(saved, width=128)


def test_what_is_not_finite_is_not_saved(tmp_path):
    kept = store.Checkpoints(tmp_path, keep=3)
    kept.save(1, make(1))
    broken = make(2)
    broken = broken.replace(
        ema={"0.9": jax.tree.map(lambda p: p * jnp.nan, broken.params)}
    )
    with pytest.raises(NonFiniteError, match="ema/0.9/encoder"):
        kept.save(2, broken)
    kept.close()
    assert store.verified_steps(tmp_path) == [1]


def part(width=256):
    shapes = jax.eval_shape(lambda: init(width))["encoder"]
    return {
        "ema": {
            "0.9": {
                "encoder": jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype, sharding=mesh.replicated(mesh.make())
                    ),
                    shapes,
                )
            }
        }
    }


@pytest.mark.parametrize(
    ("said", "count", "raised"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", 2, PeerLost),
        ("FAILED_PRECONDITION: No space left on device", 2, StorageError),
        ("UNKNOWN: Gloo AllGather failed: Connection reset by peer", 1, StorageError),
    ],
)
def test_a_lost_process_is_not_taken_for_a_full_disk(
    tmp_path, monkeypatch, said, count, raised
):
    kept = store.Checkpoints(tmp_path, keep=3)

    def fails(*args, **how):
        raise ValueError(said)  # as Orbax hands on what JAX and TensorStore raise

    monkeypatch.setattr(kept._manager, "save", fails)
    monkeypatch.setattr(processes, "count", lambda: count)
    monkeypatch.setattr(processes, "LEAVE_SECONDS", 0)
    with pytest.raises(raised):
        kept.save(1, make(1))
    monkeypatch.undo()
    kept.close()


def test_a_part_can_be_read_alone(saved):
    found = store.restore_part(saved, 2, part())
    np.testing.assert_array_equal(
        found["ema"]["0.9"]["encoder"]["kernel"], init()["encoder"]["kernel"]
    )


def test_a_part_of_another_shape_or_name_is_refused(saved):
    with pytest.raises(CheckpointError, match="cannot be read"):
        store.restore_part(saved, 2, part(width=64))
    wrong = {"ema": {"0.5": part()["ema"]["0.9"]}}
    with pytest.raises(CheckpointError, match="no ema/0.5/encoder"):
        store.restore_part(saved, 2, wrong)


def test_choosing_a_step_that_is_not_there_names_those_that_are(saved):
    assert store.choose(saved, None) == 3
    with pytest.raises(CheckpointError, match=r"no verified step 7, only \[1, 2, 3\]"):
        store.choose(saved, 7)
