"""Checks and measurements on the first accelerator, each of which returns its figures.

`tests.gpu.run` calls them. `reduced` takes tiny networks, for a machine without a GPU.
"""

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments import imagenet512
from tests.lib import untrained
from ul.config import TrainConfig
from ul.core import trees
from ul.data import pipeline
from ul.data.datasets import Datasets
from ul.importing import images
from ul.models import dropout
from ul.models.attention import Blocks
from ul.planning.pods import chips, model_flops
from ul.runs.train_spec import TrainSpec
from ul.stages import registry
from ul.train import loop
from ul.train import state as states

GIB = 2**30
# These limit the error of all gradients together; one array may have five times as much.
# bfloat16 rounds to 0.004, and the errors of a few layers add up.
MAX_BFLOAT16_ERROR = 0.02
# JAX multiplies float32 numbers in TF32 on GPUs, which rounds them to 0.0005.
MAX_FLOAT32_ERROR = 5e-3


class Failed(Exception):
    """A result on the accelerator is wrong."""


def check_dropout(reduced: bool) -> dict:
    """Check that the accelerator drops the elements that the CPU drops."""
    shape = (8, 64, 256) if reduced else (64, 1024, 1280)
    with jax.default_device(jax.devices("cpu")[0]):
        expected = np.asarray(dropout.keep_mask(jax.random.key(0), shape, 0.1))
    mask = np.asarray(jax.jit(dropout.keep_mask, static_argnums=(1, 2))(
        jax.random.key(0), shape, 0.1
    ))  # fmt: skip
    if not np.array_equal(mask, expected):
        raise Failed("the mask differs from that of the CPU")
    return {"kept": float(mask.mean())}


def check_gradients(reduced: bool, *, attention: str, dtype: str, limit: float) -> dict:
    """Compare gradients of two transformer blocks with those in float32 on the CPU."""
    side, width = (8, 256) if reduced else (16, 512)

    def gradients(attention, dtype, device):
        blocks = Blocks(
            depth=2, head_dim=128, implementation=attention, dropout=0.1, remat="none",
            scan=False, dtype=jnp.dtype(dtype),
        )  # fmt: skip
        with jax.default_device(device):
            keys = jax.random.split(jax.random.key(1), 4)
            x = jax.random.normal(keys[0], (2, side, side, width))
            cond, target = (jax.random.normal(k, x.shape[::3]) for k in keys[1:3])
            params = untrained.awake(blocks.init(keys[3], x, cond)["params"])

            def loss(params, x):
                rngs = {"dropout": jax.random.key(2)}
                y = blocks.apply({"params": params}, x, cond, rngs=rngs)
                return (y.astype(jnp.float32) * target[:, None, None]).mean()

            return jax.jit(jax.grad(loss, (0, 1)))(params, x)

    expected = gradients("xla", "float32", jax.devices("cpu")[0])
    actual = gradients(attention, dtype, jax.devices()[0])
    leaves = [
        [np.float64(leaf) for leaf in jax.tree.leaves(x)] for x in (actual, expected)
    ]
    differences = [np.linalg.norm(a - e) for a, e in zip(*leaves, strict=True)]
    norms = [np.linalg.norm(e) for e in leaves[1]]
    total = float(np.linalg.norm(differences) / np.linalg.norm(norms))
    worst = max(float(d / n) for d, n in zip(differences, norms, strict=True) if n > 0)
    if total > limit or worst > 5 * limit:
        raise Failed(
            f"gradients differ by {total:.2g} of their norm, one by {worst:.2g}"
        )
    return {"relative error": total, "largest of an array": worst, "limit": limit}


def bernoulli_mask(key, shape, rate):
    """Return the mask of JAX's own generator, which dropout used before its hash."""
    return jax.random.bernoulli(key, 1.0 - rate, shape)


def measure_step(
    reduced: bool, *, stage: str, batch: int, seconds: float, attention="auto",
    remat=None, hashed_dropout=True,
) -> dict:  # fmt: skip
    """Return the speed and memory of updates on random data, on one device."""
    spec = TrainSpec(_config(stage, reduced, 4 if reduced else batch))
    spec = spec.with_attention(attention)
    spec = spec if remat is None else spec.with_remat(remat)
    mask = dropout.keep_mask
    dropout.keep_mask = mask if hashed_dropout else bernoulli_mask
    try:
        step, compiled, size, compile_seconds = _compile(spec)
    finally:
        dropout.keep_mask = mask
    times = _times(step, seconds)
    chip = chips.chip_of_device(jax.devices()[0].device_kind)
    flops = model_flops.closed_form_flops(spec.stage).training * spec.batch_size
    median = statistics.median(times)
    numbers = {
        "ms": 1e3 * median,
        "images/s": spec.batch_size / median,
        "TFLOP/s": flops / median / 1e12,
        "batch": spec.batch_size,
        "parameters, M": size / 1e6,
        "compile, s": compile_seconds,
        "memory, GiB": compiled.memory_analysis().temp_size_in_bytes / GIB,
    }
    return numbers | ({"MFU": flops / median / chip.flops} if chip else {})


def _config(stage: str, reduced: bool, batch: int) -> TrainConfig:
    config = imagenet512.get_config(f"{stage},smoke" if reduced else stage).unlock()
    config.mesh = {"data": 1, "fsdp": 1}
    config.batch_size = batch
    return registry.parse(registry.to_dict(config))


def _compile(spec: TrainSpec):
    """Compile an update.

    Returns a function that makes it, the program, the number of parameters, and the seconds
    of compilation.
    """
    mesh = spec.make_mesh(jax.devices()[:1])
    update = spec.make_update(mesh)
    state = states.initialize(update.init, update.tx, update.ema_names, mesh)
    keys = iter(jax.random.split(jax.random.key(0), 100))

    def random(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jax.random.normal(next(keys), leaf.shape, leaf.dtype)
        most = 256 if leaf.dtype == jnp.uint8 else 2
        return jax.random.randint(next(keys), leaf.shape, 0, most, leaf.dtype)

    abstract = spec.abstract_batch(mesh)
    batch = jax.device_put(
        jax.tree.map(random, abstract), jax.tree.map(lambda a: a.sharding, abstract)
    )
    size = trees.num_elements(state.params)
    begun = time.perf_counter()
    with jax.set_mesh(mesh):
        compiled = loop.lower_step(update, state, batch).compile()
    compile_seconds = time.perf_counter() - begun

    def step():
        nonlocal state
        with jax.set_mesh(mesh):
            state, moments = compiled(state, batch)
        jax.block_until_ready(moments)

    return step, compiled, size, compile_seconds


def _times(step, seconds: float) -> list[float]:
    """Return the seconds of at least three calls after two that do not count."""
    step(), step()
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def measure_torch(reduced: bool, *, batch: int, seconds: float) -> dict:
    """Return the speed of updates of the base of stage 2 in PyTorch, compiled on a GPU."""
    import torch

    from tests.bench.torch_steps import denoising_loss
    from ul.inference.pytorch import networks

    config = _config("stage2_medium", reduced, 4 if reduced else batch)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    conditions = {"text_channels": 0, "has_context": False}
    conditions["num_classes"] = config.data.num_classes
    network = networks.ViT(config.base | conditions, config.latent_shape).to(device)
    compiled = torch.compile(network) if device == "cuda" else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    x = torch.randn(config.batch_size, *config.latent_shape, device=device)
    label = torch.zeros(config.batch_size, dtype=torch.long, device=device)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = denoising_loss(x, compiled, torch.ones_like, label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    median = statistics.median(_times(step, seconds))
    return {
        "ms": 1e3 * median,
        "images/s": config.batch_size / median,
        "batch": config.batch_size,
        "parameters, M": sum(p.numel() for p in network.parameters()) / 1e6,
    }


def measure_input(reduced: bool, *, seconds: float, threads: int = 16) -> dict:
    """Return how many imported images per second the input pipeline delivers."""
    side, count = (64, 16) if reduced else (512, 256)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "eval"):
            where = Path(folder) / split / "class"
            where.mkdir(parents=True)
            for i in range(count):
                # Smooth shapes with a little noise compress about as photographs do.
                small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
                image = np.int16(small.resize((side, side), Image.Resampling.BICUBIC))
                image += rng.integers(-3, 4, image.shape, np.int16)
                Image.fromarray(np.uint8(image.clip(0, 255))).save(where / f"{i}.png")
        paths = {s: f"{folder}/{s}" for s in ("train", "eval")}
        images.import_images(
            paths, f"{folder}/out", size=side, shard_examples=64,
            jobs=os.cpu_count() or 1, max_bad_fraction=0.0,
        )  # fmt: skip
        config = imagenet512.get_config("stage1").unlock()
        config.data.update(threads=threads, image_shape=(side, side, 3))
        config.data.source.path = f"{folder}/out"
        datasets = Datasets.from_config(registry.parse(registry.to_dict(config)))
        size = 4 if reduced else 64
        batches = pipeline.train_batches(
            datasets.train, batch_size=size, start=0, stop=10**6, threads=threads
        )
        times = _times(functools.partial(next, batches), seconds)
        batches.close()
    return {"images/s": size / statistics.median(times), "threads": threads}


def train_photos(reduced: bool, *, seconds: float) -> dict:
    """Train photographs of 64x64 by the command; stop it by SIGTERM after some seconds."""
    variant = "smoke" if reduced else "stage1_64"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ul", "train", "--config", f"photos:{variant}"]
        command += ["--workdir", f"{folder}/run", "--config.steps=1000000"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            _, errors = process.communicate()
        verified = sorted(int(p.stem) for p in Path(folder).glob("run/verified/*.json"))
    if process.returncode != 75:
        last = errors.strip().splitlines()[-1:]
        raise Failed(f"ul train must exit with 75; got {process.returncode}: {last}")
    return {"steps": max(verified, default=0), "seconds": seconds}
