"""Eight CPU devices, no silent rank promotion, flags that count as parsed."""

import fcntl
import gc
import json
import os
import shutil

from tests.lib import compilation_cache

os.environ["JAX_PLATFORMS"] = "cpu"
# Nothing here runs for long: compile fast, in this process and in the commands it starts.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
# The workers share the cores already, and idle BLAS threads spin.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
if "PYTEST_XDIST_WORKER" not in os.environ:
    compilation_cache.prune()
os.environ.update(compilation_cache.environment())

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()

import pytest  # noqa: E402

from tests.lib.commands import DIGITS, Commands  # noqa: E402
from ul.core import processes, sealed_json, storage  # noqa: E402

# Whose tests run whole commands, the longest first: no worker is left with them at the end.
LONG = (
    "test_train.py",
    # None of its tests needs `trained`, which the first worker trains meanwhile.
    "test_networks.py",
    "test_restore.py",
    "test_latent_cache.py",
    "test_experiments.py",
    "test_clips.py",
    "test_api.py",
    "test_evaluate.py",
)


def pytest_collection_modifyitems(items):
    # A tenth of the time goes into looking for garbage among a million objects otherwise.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    items.sort(
        key=lambda item: (
            LONG.index(item.path.name) if item.path.name in LONG else len(LONG)
        )
    )


@pytest.fixture(scope="session", autouse=True)
def immortal_worker():
    """Let no test end its worker, with all other tests, and none wait for failing storage.

    Code that ends its process at once raises SystemExit here.
    """

    def leave(code, *_, **__):
        raise SystemExit(code)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "hard_exit", leave)
        patch.setattr(storage, "FIRST_PAUSE_SECONDS", 0.001)
        yield


@pytest.fixture
def command():
    return Commands()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Both smoke stages, trained once for all test workers; each worker has a copy."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    own, shared = tmp_path_factory.mktemp("runs") / "trained", common / "trained"
    begun = common / "begun"
    with open(common / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker trains, the others wait
        if not shared.exists():
            run, workdir = Commands(), f"--config.stage1.workdir={begun / 'smoke'}"
            for variant, more in (("smoke", ()), ("smoke2", (workdir,))):
                config = f"--config={DIGITS}:{variant}"
                run("train", config, f"--workdir={begun / variant}", *more)
            begun.rename(shared)
    shutil.copytree(shared, own)
    for file in own.rglob("config.json"):  # stage 2 names its stage 1 by path
        text = file.read_text().replace(str(begun), str(own))
        file.write_text(json.dumps(sealed_json.seal(json.loads(text))))
    return own
