"""Storage fails at every call that the project makes, found by running it.

Each scenario is a piece of work on files. It runs once undisturbed, which gives the list of
its calls; then once for each call and fault.
"""

import errno
import functools
import itertools
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from orbax.checkpoint._src.futures import signaling_client

import ul
from experiments import sweeps as sweep_files
from launch.lib import trials
from launch.local import processes
from tests.checkpoints import test_store
from tests.data import test_latent_cache
from tests.lib import storage_faults, sweep_folder, untrained
from tests.lib.breaks import Break
from tests.lib.commands import DIGITS
from ul.checkpoints import reading, store, workdir
from ul.core import files, sealed_json
from ul.core import mesh as meshes
from ul.core.errors import StorageError, UnusablePath
from ul.data import image_files, latent_cache
from ul.evaluation import samples_npz
from ul.inference import export
from ul.metrics import references
from ul.sweeps import records, report
from ul.train import writer

LOST = OSError(errno.EIO, "Input/output error")
DENIED = OSError(errno.EACCES, "Permission denied")
ODD = OSError(errno.EREMOTEIO, "an error number that nobody expected")


@functools.cache
def make_state(step):
    """A state on one device: of eight, each would write its part of every array."""
    return test_store.make_state(step, meshes.make(devices=jax.devices()[:1]))


@functools.cache
def abstract():
    return test_store.abstract(meshes.make(devices=jax.devices()[:1]))


def prepare_checkpoints(folder):
    checkpoints = store.Checkpoints(folder, keep=2)
    for step in (1, 2):
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    # As a start leaves it that was killed in a save.
    files.write_atomic(epath.Path(folder) / reading.UNFINISHED, '{"step": 3}')
    shutil.copytree(folder / "checkpoints" / "2", folder / "checkpoints" / "3")
    (folder / "checkpoints" / "3" / reading.COMMIT_MARKER).unlink()


def use_checkpoints(folder):
    """Resume, save one more step and read it again."""
    path = epath.Path(folder)
    reading.check_nothing_is_missing(path)
    checkpoints = store.Checkpoints(folder, keep=2)
    try:
        restored = checkpoints.restore_latest(abstract())
        assert int(restored.step) == 2
        checkpoints.save(3, make_state(3))
        checkpoints.wait()
    finally:
        checkpoints.close()
    latest = reading.choose_verified_step(folder, None)
    again = reading.restore_subtree(folder, latest, {"params": abstract().params})
    return latest, np.asarray(jax.tree.leaves(again)[0]).sum()


def keep_checkpoints(folder):
    """What was verified stays verified, readable and in its place."""
    assert not (folder / "damaged").exists()
    steps = reading.verified_steps(folder)
    assert 2 in steps
    for step in steps:
        reading.restore_subtree(folder, step, {"params": abstract().params})


CONFIG = {"steps": 5, "data": {"source": {"kind": "digits"}}}


def prepare_workdir(folder):
    workdir.write_or_check_config(epath.Path(folder), CONFIG, {}, allow_changes=False)


def use_workdir(folder):
    path = epath.Path(folder)
    with workdir.count_start(path, 0, 5, is_new=False):
        workdir.write_or_check_config(
            path, CONFIG | {"steps": 6}, {}, allow_changes=False
        )
    workdir.clear_start_attempts(path)
    return workdir.load_saved(folder)["config"]


def keep_workdir(folder):
    assert workdir.load_saved(folder)["config"]["steps"] in (5, 6)


def prepare_shards(folder):
    test_latent_cache.write(epath.Path(folder))
    # The last shard is missing, and so is what declares the directory complete.
    (folder / "manifest.json").unlink()
    sorted(folder.glob("eval-*.array_record"))[-1].unlink()


def use_shards(folder):
    manifest = test_latent_cache.write(epath.Path(folder))
    shards = latent_cache.open_store(epath.Path(folder))
    shards.verify(manifest, part=(0, 1))
    return latent_cache.load_manifest(shards)


def keep_shards(folder):
    assert len(list(folder.glob("train-*.array_record"))) == len(
        [
            s
            for s in latent_cache.plan_shards(test_latent_cache.make_identity())
            if s.split == "train"
        ]
    )


def make_trials():
    points = sweep_files.grid("loss.weighting.factor", (1.5, 2.0))
    return trials.expand(sweep_files.trials(points, stage1=f"{DIGITS}:smoke"), ())


def prepare_sweep(folder):
    both = make_trials()
    records.write_or_check_sweep(folder, "s", both[:1], is_subset=True)
    records.mark_trial_finished(epath.Path(folder), both[0])


def use_sweep(folder):
    both = make_trials()
    records.write_or_check_sweep(folder, "s", both)
    rest = records.unfinished_trials(str(folder), both)
    for trial in rest:
        records.mark_trial_finished(epath.Path(folder), trial)
    return [t.name for t in rest], len(records.read_sweep(epath.Path(folder))["trials"])


def keep_sweep(folder):
    both = make_trials()
    assert records.is_trial_finished(folder, both[0])


def prepare_export(folder):
    untrained.leave(folder / "run", untrained.parsed("digits", "smoke"), steps=(2,))


def use_export(folder):
    """Export a run, and load what was written."""
    export.export(folder / "run", folder / "out")
    autoencoder = ul.load_autoencoder(folder / "out")
    return autoencoder.step, [a.tobytes() for a in jax.tree.leaves(autoencoder.params)]


def keep_export(folder):
    assert reading.verified_steps(folder / "run") == [2]


def write_reference(folder, name):
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3)}
    references.write(epath.Path(folder) / name, arrays)


def prepare_reference(folder):
    write_reference(folder, "old.npz")


def use_reference(folder):
    write_reference(folder, "new.npz")
    return [read_reference(folder, name) for name in ("old.npz", "new.npz")]


def read_reference(folder, name):
    reference = references.read(str(folder / name), (8, 8, 3), lambda image: image)
    return [a.tobytes() for a in reference.gaussians["pool"]]


def keep_reference(folder):
    assert read_reference(folder, "old.npz")


PICTURE = np.zeros((8, 8, 3), np.uint8)


def prepare_pictures(folder):
    writer.save_png(epath.Path(folder) / "evals" / "old.png", PICTURE)


def use_pictures(folder):
    """Write a picture of a new folder, and another one in place of an old one."""
    for name in ("evals/old.png", "samples/new.png"):
        writer.save_png(epath.Path(folder) / name, PICTURE + 1)
    return [image_files.read_image(str(p), 3).tobytes() for p in folder.glob("*/*.png")]


def keep_pictures(folder):
    """There is no half of a picture."""
    for path in folder.glob("*/*.png"):
        image_files.read_image(str(path), 3)


def use_report(folder):
    """Write the report of a sweep; return what it says but for the time."""
    page = epath.Path(report.write(str(folder), predict=False))
    written = {p.name for p in page.parent.iterdir() if not p.name.startswith(".")}
    return sorted(written), (page.parent / "trials.csv").read_text()


def prepare_report(folder):
    trial = sweep_folder.write_trial(folder, 2.0, 4.0)
    sweep_folder.write_sweep_json(folder, [trial])


def keep_report(folder):
    """The evaluations, which the report only reads."""
    for path in folder.glob("*/*/evals/*.json"):
        assert sealed_json.unseal(path.read_text())


def write_samples(path):
    with samples_npz.open_writer(path, 3, (8, 8, 3)) as samples:
        for label in range(3):
            samples.add(PICTURE[None] + label, [label])


def prepare_samples(folder):
    write_samples(folder / "old.npz")


def use_samples(folder):
    """Write and read two archives of samples, one of them in place of an old one."""
    for name in ("old.npz", "new/samples.npz"):
        write_samples(folder / name)
    return [read_samples(path) for path in sorted(folder.glob("**/*.npz"))]


def read_samples(path):
    return [b.tobytes() for b in samples_npz.SamplesReader(path).batches(2)]


def keep_samples(folder):
    """There is no half of an archive."""
    for path in folder.glob("**/*.npz"):
        assert read_samples(path)


def prepare_logs(folder):
    (folder / "0.log").write_text("the log of the last start\n")


def use_logs(folder):
    """Start commands that write into an old log and a new one."""
    logs = [folder / "0.log", folder / "logs" / "1.log"]
    for log in logs:
        process = processes.LocalProcess(["echo", "one more line"], {}, log)
        assert process.start().wait() == 0
    return [log.read_text() for log in logs]


def keep_logs(folder):
    assert (folder / "0.log").read_text().startswith("the log of the last start\n")


SCENARIOS = {
    "samples": (prepare_samples, use_samples, keep_samples),
    "logs": (prepare_logs, use_logs, keep_logs),
    "report": (prepare_report, use_report, keep_report),
    "pictures": (prepare_pictures, use_pictures, keep_pictures),
    "reference": (prepare_reference, use_reference, keep_reference),
    "export": (prepare_export, use_export, keep_export),
    "checkpoints": (prepare_checkpoints, use_checkpoints, keep_checkpoints),
    "workdir": (prepare_workdir, use_workdir, keep_workdir),
    "shards": (prepare_shards, use_shards, keep_shards),
    "sweep": (prepare_sweep, use_sweep, keep_sweep),
}
FAULTS = {
    "once": (LOST, 1),
    "last": (LOST, 1),
    "odd": (ODD, 1),
    "always": (LOST, None),
    "denied": (DENIED, None),
    "slow": (None, None),
}


@pytest.fixture
def short_waits(monkeypatch):
    """The threads of a save that failed wait seconds for each other, not ten minutes."""
    client = type(signaling_client.get_signaling_client())
    original = client.blocking_key_value_get
    monkeypatch.setattr(
        client,
        "blocking_key_value_get",
        lambda self, key, timeout_secs: original(self, key, min(timeout_secs, 3)),
    )


# In the default suite, the faults that matter most.
CASES = [
    pytest.param(name, faults, marks=pytest.mark.slow if slow else ())
    for name in SCENARIOS
    for faults, slow in (
        (("once", "always"), name in ("export", "report")),
        (("last", "odd", "denied", "slow"), True),
    )
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(("name", "faults"), CASES)
def test_no_failing_call_loses_anything(name, faults, tmp_path, monkeypatch):
    prepare, use, keep = SCENARIOS[name]
    start, ended, number = tmp_path / "start", [], itertools.count()
    start.mkdir()
    prepare(start)

    def attempt(fault=None, place=None):
        # Threads of a save that failed may still write into the folder of their attempt.
        folder = tmp_path / str(next(number))
        shutil.copytree(start, folder)
        with storage_faults.watched(folder) as watched:
            watched.failing = place
            if fault:
                watched.error, watched.times = FAULTS[fault]
                watched.after = calls[place] - 1 if fault == "last" else 0
            try:
                result = use(folder)
            except StorageError as e:
                result = e
        keep(folder)
        return result, watched.places

    expected, calls = attempt()
    places = sorted(calls)
    assert places and not isinstance(expected, StorageError)
    for place in places:
        for fault in faults:
            is_silent = place.method in storage_faults.SILENT
            # Storage that fails for good also fails in other calls than these of Orbax.
            if place.in_orbax and is_silent and FAULTS[fault][1] is None:
                continue
            if fault == "last" and calls[place] == 1:
                continue
            try:
                result, _ = attempt(fault, place)
            except Exception as e:
                ended.append(f"{place} {fault}: {type(e).__name__}: {e}")
                continue
            failed = isinstance(result, StorageError)
            if fault == "slow" and result != expected:
                ended.append(f"{place} {fault}: {result}")
                continue
            if FAULTS[fault][1] and failed and not place.in_orbax:
                ended.append(f"{place} {fault}: {result}")
            elif not failed and result != expected:
                ended.append(f"{place} {fault}: {result} in place of {expected}")
            elif failed and (fault == "denied") != isinstance(result, UnusablePath):
                ended.append(f"{place} {fault}: {type(result).__name__}: {result}")
    assert not ended, "\n".join(
        [f"{len(ended)} of {len(faults) * len(places)}", *ended]
    )


BREAKS = (
    Break(
        "storage that fails taken for a missing commit marker",
        "ul/checkpoints/reading.py",
        "return files.exists(marker)",
        "return marker.exists()",
        "test_no_failing_call_loses_anything",
    ),
    Break(
        "a step whose arrays were not found taken for a saved one",
        "ul/checkpoints/store.py",
        "if not files.exists(self._array_index(step)):",
        "if False:",
        "test_no_failing_call_loses_anything",
    ),
)
