"""Encode the images of a stage 2 once, as a latent cache for all its runs."""

import contextlib
import dataclasses
import json
import logging
import sys
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
        identity["shard_examples"] = shard_examples
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
    shards = latent_cache.plan_shards(identity)
    own = shards[processes.index() :: processes.count()]
    records = {shard: store.read_summary(shard) for shard in own}
    missing = [shard for shard in own if records[shard] is None]
    log.info("%d of %d shards are complete", len(own) - len(missing), len(own))
    examples = {
        split: datasets.without_text().fixed(split) for split in identity["splits"]
    }
    seconds = config.watchdog.evaluation
    counts = processes.all_gather("missing", str(len(missing)), seconds)
    with _progress_bar(missing) as bar:
        # In rounds: a failure on one process ends all of them after one shard.
        for i in range(max(map(int, counts))):

            def write(own_missing=missing[i : i + 1]):
                for shard in own_missing:
                    batches = _encoded(
                        config, autoencoder, examples[shard.split], shard, bar
                    )
                    records[shard] = latent_cache.write_shard(
                        store, shard, batches, identity["dtype"]
                    )

            processes.run_on_all("shard", write, seconds)
    text = json.dumps([records[shard] for shard in own])
    parts = [json.loads(t) for t in processes.all_gather("records", text, seconds)]
    return [parts[i % len(parts)][i // len(parts)] for i in range(len(shards))]


def _encoded(
    config: Stage2Config, autoencoder: api.Autoencoder, examples, shard: Shard, bar
):
    """Yield the batches of a shard with latents in place of images."""
    for batch in pipeline.batches_at(
        examples,
        range(shard.first, shard.first + shard.count),
        batch_size=config.eval.batch_size,
        threads=config.data.threads,
    ):
        image = batch.pop("image")
        context = {}
        if frames := config.context_frames:
            context["context"] = autoencoder.encode_context(image[:, :frames])
        yield batch | {"z_clean": autoencoder.encode(image)} | context
        bar.update(len(image))


def _progress_bar(missing: list[Shard]) -> tqdm:
    """Return a bar over the images that process 0 encodes, with rate and time left."""
    share = f", 1 of {processes.count()} parts" if processes.count() > 1 else ""
    return tqdm(
        total=sum(shard.count for shard in missing),
        unit="image",
        desc=f"encode{share}",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        disable=not processes.is_first(),
    )
