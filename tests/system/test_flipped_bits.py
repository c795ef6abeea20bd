"""A random bit of a file is flipped: the content is refused, or what is read is unchanged.

Checkpoints and config.json have tests of their own.
"""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from etils import epath

import ul
from tests.data import test_latent_cache
from tests.data.test_latent_cache import COUNTS
from tests.lib import untrained
from tests.lib.breaks import Break
from tests.system import test_storage_faults as scenarios
from ul.core import sealed_json
from ul.core.errors import UserError
from ul.data import latent_cache
from ul.data.latent_cache import LatentSource
from ul.evaluation import table
from ul.importing import captions as importing
from ul.inference import export
from ul.metrics import references
from ul.sweeps import records

NUM_FLIPS, NUM_FLIPS_NPZ = 50, 400


def prepare_cache(folder):
    test_latent_cache.write(epath.Path(folder))


def read_cache(folder):
    """Every latent and label, as a run reads them, after the checks of its start."""
    store = latent_cache.open_store(epath.Path(folder))
    manifest, _ = latent_cache.load_manifest(store)
    latent_cache.check_identity(store, manifest, test_latent_cache.make_identity())
    store.verify(manifest, part=(0, 1))
    examples = []
    for split, count in COUNTS.items():
        source = LatentSource(store, manifest, split)
        examples += [source[i] for i in range(count)]
    return manifest, [(e["label"], e["z_clean"].tobytes()) for e in examples]


def write_again(folder):
    """`ul encode` once more: damaged shards are written again."""
    (folder / "manifest.json").unlink(missing_ok=True)
    manifest = test_latent_cache.write(epath.Path(folder))
    return manifest, [f.read_bytes() for f in sorted(folder.glob("*.array_record"))]


def read_sweep(folder):
    record = records.read_sweep(epath.Path(folder))
    return record["trials"], record["configs"]


EVALUATION = {"date": "2026-11-30", "step": 8, "psnr_db": 25.5, "rate_bpp": 0.5}


def prepare_evaluation(folder):
    (folder / "evals").mkdir()
    text = json.dumps(sealed_json.seal(EVALUATION), indent=2)
    (folder / "evals" / "reconstruction-8.json").write_text(text)


def read_evaluation(folder):
    return [{k: e[k] for k in EVALUATION} for e in table.evaluations(folder)]


def prepare_export(folder):
    run = untrained.leave(folder.parent / "run", untrained.parsed("digits", "smoke"))
    export.export(run, folder)
    shutil.rmtree(run)


def read_export(folder):
    ae = ul.load_autoencoder(folder)
    return ae.step, ae.weights, [a.tobytes() for a in jax.tree.leaves(ae.params)]


def prepare_reference(folder):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 6))
    arrays = {"mu": rng.normal(size=6), "sigma": factor @ factor.T, "num_images": 50}
    protocol = {"image_shape": [8, 8, 3], "networks": {}, "split": "train"}
    arrays["protocol"] = json.dumps(protocol)
    references.write(
        epath.Path(folder) / "r.npz", {k: np.asarray(v) for k, v in arrays.items()}
    )


def read_reference(folder):
    reference = references.read(str(folder / "r.npz"), (8, 8, 3), lambda image: image)
    gaussians = {k: [a.tobytes() for a in v] for k, v in reference.gaussians.items()}
    record = reference.protocol
    return gaussians, record["num_images"], record["protocol"]


def prepare_prompts(folder):
    encoder = types.SimpleNamespace(
        tokens=4,
        channels=3,
        identity={"name": "x"},
        embed=lambda texts: [np.full((2, 3), len(text), np.float32) for text in texts],
    )
    importing.write_prompt_embeddings(["a dog", "two"], encoder, str(folder / "p.npz"))


def read_prompts(folder):
    source = {"kind": "colored_digits"}
    condition, prompts = importing.read_prompt_embeddings(str(folder / "p.npz"), source)
    return {k: v.tobytes() for k, v in condition.items()}, prompts


KINDS = {
    "export weights": (prepare_export, read_export, "*.safetensors"),
    "export config": (prepare_export, read_export, "config.json"),
    "export description": (prepare_export, read_export, "encoder.json"),
    "reference": (prepare_reference, read_reference, "r.npz"),
    "prompts": (prepare_prompts, read_prompts, "p.npz"),
    "manifest": (prepare_cache, read_cache, "manifest.json"),
    "shard": (prepare_cache, read_cache, "train-*.array_record"),
    "begun": (prepare_cache, write_again, "begun.json"),
    "summary": (prepare_cache, write_again, "train-*.json"),
    "shard again": (prepare_cache, write_again, "eval-*.array_record"),
    "sweep": (scenarios.prepare_sweep, read_sweep, "sweep.json"),
    "evaluation": (prepare_evaluation, read_evaluation, "evals/*.json"),
}


# They load a model fifty times.
SLOW = ("export weights", "export description")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ())
        for kind in KINDS
    ],
)
def test_no_flipped_bit_is_read(kind, tmp_path):
    prepare, read, pattern = KINDS[kind]
    start, refused, rng = tmp_path / "start", 0, np.random.default_rng(0)
    start.mkdir()
    prepare(start)
    name = sorted(start.glob(pattern))[0].relative_to(start)
    content = (start / name).read_bytes()
    shutil.copytree(start, tmp_path / "whole")
    expected = read(tmp_path / "whole")
    count = NUM_FLIPS_NPZ if pattern.endswith(".npz") else NUM_FLIPS
    for number, position in enumerate(rng.integers(8 * len(content), size=count)):
        folder = tmp_path / str(number)
        shutil.copytree(start, folder)
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        (folder / name).write_bytes(flipped)
        try:
            result = read(folder)
        except UserError:
            refused += 1
            continue
        assert result == expected, f"bit {position} of {name}"
    assert refused or read is write_again


BREAKS = (
    Break(
        "an .npz file is read although the name of an array was damaged",
        "ul/core/npz.py",
        "            damaged = archive.testzip()",
        "            damaged = None",
        "test_no_flipped_bit_is_read",
    ),
    Break(
        "a manifest whose bits were flipped is read",
        "ul/data/record_shards.py",
        "record = sealed_json.unseal(text, SEAL)",
        "record = json.loads(text)",
        "test_no_flipped_bit_is_read",
    ),
    Break(
        "an evaluation whose bits were flipped is read",
        "ul/evaluation/table.py",
        "results.append(sealed_json.unseal(files.read_text(file)))",
        "results.append(sealed_json.json.loads(files.read_text(file)))",
        "test_no_flipped_bit_is_read",
    ),
)
