"""Encode the images of a stage 2 once, as a latent cache for all its runs."""

import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

from ul.checkpoints import workdir
from ul.config import TrainConfig
from ul.core import mesh as meshes
from ul.core import processes
from ul.core.errors import ConfigError
from ul.data import latent_cache, pipeline
from ul.data.datasets import Datasets
from ul.data.record_shards import Shard, ShardStore
from ul.inference import api
from ul.runs.latent_cache import cache_identity
from ul.runs.session import check_processes_agree
from ul.stages import registry
from ul.stages.base import Stage2Config

log = logging.getLogger("ul")


def encode(config: TrainConfig, path: str, *, shard_examples: int) -> dict[str, Any]:
    """Write the latent cache at `path`, or continue it; return its manifest.

    Every process of the run calls this; process p of P writes every P-th shard from the
    p-th, on its own devices. Complete shards are kept.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """
    if not isinstance(config, Stage2Config):
        raise ConfigError(
            "A latent cache needs a config of stage 'base', which trains on latents; got "
            f"{config.stage!r}."
        )
    store, seconds = latent_cache.open_store(path), config.watchdog.start / 2.0
    datasets = Datasets.from_config(config)
    with contextlib.ExitStack() as stack:

        def claim():
            stack.enter_context(workdir.lock_directory(path))

        processes.run_on_first("lock cache directory", claim, seconds)
        autoencoder, identity = processes.run_on_all(
            "build", lambda: _encoder(config, datasets), seconds
        )
        # Older caches had shards with both orientations.
        plan = "one orientation per shard"
        identity |= {"shard_examples": shard_examples, "shard_plan": plan}
        data = {
            "data": json.dumps(identity["splits"]),
            "dataset": datasets.report(),
        }
        check_processes_agree(dataclasses.asdict(config), data, seconds)
        processes.run_on_first(
            "begin", lambda: store.begin(identity, latent_cache.differences), seconds
        )
        with processes.translate_jax_errors():
            records = _write_shards(config, datasets, autoencoder, store, identity)
        return processes.run_on_first(
            "manifest",
            lambda: latent_cache.write_manifest(store, identity, records),
            seconds,
        )


def _encoder(
    config: Stage2Config, datasets: Datasets
) -> tuple[api.Autoencoder, dict[str, Any]]:
    """Return stage 1's encoder on this process's devices, and the cache's identity."""
    autoencoder, stage1 = api.restore_frozen_stage1(
        config.stage1.workdir,
        registry.build(config),
        ("encoder",),
        step=config.stage1.step,
        weights=config.stage1.weights,
        mesh=meshes.make(),
    )
    local = meshes.make(devices=jax.local_devices())
    params = meshes.to_host(autoencoder.mesh, autoencoder.params)
    params = jax.device_put(params, meshes.replicated(local))
    autoencoder = dataclasses.replace(autoencoder, params=params, mesh=local)
    return autoencoder, cache_identity(config, datasets, autoencoder.codec, stage1)


def _write_shards(
    config: Stage2Config,
    datasets: Datasets,
    autoencoder: api.Autoencoder,
    store: ShardStore,
    identity: dict,
) -> list[dict]:
    """Write this process's shards; return the records of all shards in their order."""
    groups = latent_cache.plan_groups(identity)
    own = groups[processes.index() :: processes.count()]
    records = {s: store.read_summary(s) for group in own for s in group}
    missing = [tuple(s for s in group if records[s] is None) for group in own]
    missing = [group for group in missing if group]
    num_missing = sum(map(len, missing))
    log.info("%d of %d shards are complete", len(records) - num_missing, len(records))
    seconds = config.watchdog.evaluation
    counts = processes.all_gather("missing", str(len(missing)), seconds)
    with _progress_bar(missing) as bar:
        # In rounds: a failure on one process ends all of them after one group of shards.
        for i in range(max(map(int, counts))):

            def write(own_missing=missing[i : i + 1]):
                for group in own_missing:
                    batches = _encoded(config, datasets, autoencoder, group, bar)
                    records.update(_write_group(store, group, batches, identity))

            processes.run_on_all("shard", write, seconds)
    text = json.dumps({shard.name: record for shard, record in records.items()})
    parts = processes.all_gather("records", text, seconds)
    by_name = {name: r for part in parts for name, r in json.loads(part).items()}
    return [by_name[shard.name] for shard in latent_cache.plan_shards(identity)]


def _write_group(
    store: ShardStore,
    group: tuple[Shard, ...],
    batches: Iterator[list[dict]],
    identity: dict,
) -> dict[Shard, dict]:
    """Write shards of the same images, and return their summaries.

    batches: a batch for each shard of the group. All but the first shard wait in memory.
    """
    waiting: list[list[dict]] = [[] for _ in group[1:]]

    def first_batches():
        for first, *others in pipeline.read_ahead(batches):
            for kept, batch in zip(waiting, others, strict=True):
                kept.append(batch)
            yield first

    dtype, first, *others = identity["dtype"], *group
    summaries = {first: latent_cache.write_shard(store, first, first_batches(), dtype)}
    for shard, kept in zip(others, waiting, strict=True):
        summaries[shard] = latent_cache.write_shard(store, shard, kept, dtype)
    return summaries


def _encoded(
    config: Stage2Config,
    datasets: Datasets,
    autoencoder: api.Autoencoder,
    group: tuple[Shard, ...],
    bar: tqdm,
) -> Iterator[list[dict]]:
    """Yield batches with latents in place of images, one for each shard of the group.

    Images are read once for both orientations.
    """
    examples = datasets.without_text().ordered(group[0].split)
    first = group[0].first % len(examples)
    for batch in pipeline.batches_at(
        examples,
        range(first, first + group[0].count),
        batch_size=config.eval.batch_size,
        threads=config.data.threads,
    ):
        image, row = batch.pop("image"), batch.pop("row")
        encoded = []
        for shard in group:
            is_mirrored = shard.first >= len(examples)
            oriented = image[..., ::-1, :] if is_mirrored else image
            latents = {"z_clean": autoencoder.encode(oriented)}
            if frames := config.context_frames:
                context = autoencoder.encode_context(oriented[:, :frames])
                latents["context"] = context
            encoded.append(batch | {"row": row + shard.first - first} | latents)
            bar.update(len(image))
        yield encoded


def _progress_bar(missing: list[tuple[Shard, ...]]) -> tqdm:
    """Return a bar over the images that process 0 encodes, with rate and time left."""
    share = f", 1 of {processes.count()} parts" if processes.count() > 1 else ""
    return tqdm(
        total=sum(shard.count for group in missing for shard in group),
        unit="image",
        desc=f"encode{share}",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        disable=not processes.is_first(),
    )
