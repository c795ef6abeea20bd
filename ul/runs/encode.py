"""Latents of a stage-2 config, encoded once for all its runs (data/latent_cache.py)."""

import contextlib
import dataclasses
import json
import logging
import sys
from typing import Any

import jax
from tqdm import tqdm

from ul.inference import api
from ul.runs import latent_cache as caches
from ul import config
from ul.data import datasets
from ul.core import mesh as meshes
from ul.core import processes
from ul.core.errors import ConfigError
from ul.data import latent_cache, pipeline
from ul.data.record_shards import Shard, Store
from ul.runs.session import check_alike
from ul.checkpoints import workdir

log = logging.getLogger("ul")


def encode(parsed: config.TrainConfig, where: str, *, shard_examples: int) -> dict[str, Any]:
    """Write the cache `where`, or go on with it; its manifest.

    Every process of the run calls this; process p of P writes every P-th shard from the
    p-th, on its own devices. Shards that are whole stay.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    if not isinstance(parsed, config.Stage2Config):
        raise ConfigError(
            f"stage {parsed.stage!r} has no latents below it; give a stage 2 ('base')"
        )
    out, seconds = latent_cache.store(where), parsed.watchdog.start / 2.0
    with contextlib.ExitStack() as held:

        def claim():
            held.enter_context(workdir.locked(where))

        processes.from_first("out", claim, seconds)
        ae, identity = processes.agree("build", lambda: _encoder(parsed), seconds)
        identity["shard_examples"] = shard_examples
        check_alike(dataclasses.asdict(parsed), json.dumps(identity["splits"]), seconds)
        processes.from_first(
            "begin", lambda: out.begin(identity, latent_cache.unlike), seconds
        )
        with processes.plain_errors():
            records = _shards(parsed, ae, out, identity)
        return processes.from_first(
            "manifest", lambda: latent_cache.finish(out, identity, records), seconds
        )


def _encoder(parsed: config.Stage2Config) -> tuple[api.Autoencoder, dict]:
    """Stage 1's encoder on this process's devices, and the cache's identity."""
    ae, below = api.restore_below(parsed, ("encoder",), step=None, mesh=meshes.make())
    local = meshes.make(devices=jax.local_devices())
    params = meshes.to_host(ae.mesh, ae.params)
    params = jax.device_put(params, meshes.replicated(local))
    ae = dataclasses.replace(ae, params=params, mesh=local)
    return ae, caches.identity(parsed, ae.codec, below)


def _shards(parsed: config.Stage2Config, ae, out: Store, identity: dict) -> list[dict]:
    """Records of all shards in their order; those of this process are written here."""
    every = latent_cache.plan(identity)
    own = every[processes.index() :: processes.count()]
    found = {shard: out.finished(shard) for shard in own}
    missing = [shard for shard in own if found[shard] is None]
    log.info("%d of %d shards are there", len(own) - len(missing), len(own))
    examples = {
        split: datasets.fixed(datasets.untold(parsed), split)
        for split in identity["splits"]
    }
    seconds = parsed.watchdog.evaluation
    most = max(map(int, processes.gather("missing", str(len(missing)), seconds)))
    with _bar(missing) as bar:
        # In rounds: what fails on one process ends all after one shard.
        for i in range(most):

            def write(mine=missing[i : i + 1]):
                for shard in mine:
                    batches = _encoded(parsed, ae, examples[shard.split], shard, bar)
                    found[shard] = latent_cache.write(out, shard, batches, identity["dtype"])

            processes.agree("shard", write, seconds)
    texts = processes.gather("records", json.dumps([found[s] for s in own]), seconds)
    parts = [json.loads(text) for text in texts]
    return [parts[i % len(parts)][i // len(parts)] for i in range(len(every))]


def _encoded(parsed, ae: api.Autoencoder, examples, shard: Shard, bar):
    """Batches of a shard, their images encoded."""
    for batch in pipeline.in_order(
        examples,
        range(shard.first, shard.first + shard.count),
        batch_size=ae.config.eval.batch_size,
        threads=parsed.data.threads,
    ):
        image = batch.pop("image")
        more = {}
        if few := parsed.context_frames:
            more["context"] = ae.encode_context(image[:, :few])
        yield batch | {"z_clean": ae.encode(image)} | more
        bar.update(len(image))


def _bar(missing: list[Shard]) -> tqdm:
    """Over what process 0 has to encode, with rate and time left."""
    share = f", 1 of {processes.count()} parts" if processes.count() > 1 else ""
    return tqdm(
        total=sum(shard.count for shard in missing),
        unit="image",
        desc=f"encode{share}",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        disable=not processes.is_first(),
    )
