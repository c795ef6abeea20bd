"""Identify and open the latent cache of a stage 2."""

import dataclasses
import json
from typing import Any

from ul.core import processes
from ul.core.errors import ConfigError
from ul.data import latent_cache, pipeline
from ul.data.datasets import SPLITS, Datasets
from ul.data.latent_cache import LatentCache
from ul.data.sources import captioned
from ul.stages.base import Stage2Config
from ul.stages.codec import Codec


def cache_identity(
    config: Stage2Config, datasets: Datasets, codec: Codec, encoder: dict
) -> dict[str, Any]:
    """Return the identity that a latent cache needs for this config.

    encoder: `Autoencoder.identity` of its stage 1.

    Raises:
      ConfigError: no cache can hold what this config trains on.
    """
    datasets = datasets.without_text()  # one cache serves any text encoder
    data = datasets.data
    if not codec.is_deterministic:
        raise ConfigError(
            "A latent cache needs a deterministic encoder; this stage 1 has an encoder "
            "with variance, whose latents are drawn again in every epoch. Train without "
            "latent_cache."
        )
    if data.augment == "stream":
        image = datasets.source("train")[0]["image"]
        if data.flip or image.shape != data.image_shape:
            raise ConfigError(
                "A latent cache needs data.augment='example'; got 'stream', which crops "
                "and flips again in every epoch. Give --config.data.augment=example to "
                "python -m ul encode and to training."
            )
    orientations = {"train": 2 if data.flip else 1, "eval": 1}
    examples = {split: datasets.fixed(split) for split in SPLITS}
    settings = {k: v for k, v in dataclasses.asdict(data).items() if k != "threads"}
    frames = config.context_frames
    return {
        "encoder": encoder,
        "data": json.loads(json.dumps(settings)),
        "latent_shape": list(config.latent_shape),
        "dtype": config.latent_dtype,
        **({"context_frames": frames} if frames else {}),
        "splits": {
            split: {
                "count": len(examples[split]),
                "orientations": orientations[split],
                "fingerprint": pipeline.fixed_fingerprint(examples[split]),
            }
            for split in SPLITS
        },
    }


def open_cache(
    config: Stage2Config, datasets: Datasets, identity: dict, provenance: dict
) -> LatentCache:
    """Open the cache at config.latent_cache, which must have this identity.

    provenance: what a run that used the cache before recorded of it. A run that begins
    compares the digests of all shards; one that resumes compares their sizes, and each
    record has a checksum besides.

    Raises:
      DataError: there is no cache, or it is damaged.
      ConfigError: it is of another encoder or of other examples.
    """
    assert config.latent_cache is not None
    store = latent_cache.open_store(config.latent_cache)
    manifest, digest = latent_cache.load_manifest(store)
    latent_cache.check_identity(store, manifest, identity)
    is_verified = provenance.get("manifest") == digest
    part = None if is_verified else (processes.index(), processes.count())
    store.verify(manifest, part=part)
    latents: dict[str, Any] = {
        split: latent_cache.LatentSource(store, manifest, split) for split in SPLITS
    }
    if config.data.text != (0, 0):
        latents = {
            split: captioned.CaptionedLatents(latents[split], datasets.source(split))
            for split in SPLITS
        }
    return LatentCache(
        latents["train"],
        pipeline.shuffled_dataset(latents["train"], config.seed),
        pipeline.sequential_dataset(latents["eval"]),
        {"path": config.latent_cache, "manifest": digest},
    )
