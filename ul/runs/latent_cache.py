"""Which cache of latents a stage-2 config needs, and whether one is that."""

import dataclasses
import json
from typing import Any

from ul.data import datasets
from ul.config import Stage2Config
from ul.core import processes
from ul.core.errors import ConfigError
from ul.data.sources import registry
from ul.data import latent_cache, pipeline
from ul.data.latent_cache import Cache
from ul.stages.codec import Codec


def identity(config: Stage2Config, codec: Codec, encoder: dict) -> dict[str, Any]:
    """What makes a cache this config's, given its stage 1 (`Autoencoder.identity`).

    Raises:
      ConfigError: no cache can hold what this config trains on.
    """
    config = datasets.untold(config)  # one cache for any text encoder
    data = config.data
    if not codec.exact:
        raise ConfigError(
            "stage 1's encoder has a variance of its own and stage 2 learns its draws, "
            "new ones in every epoch: they cannot be cached"
        )
    if data.augment == "stream":
        image = datasets.source(config, "train")[0]["image"]
        if data.flip or image.shape != data.image_shape:
            raise ConfigError(
                "data.augment is 'stream': every epoch crops and flips anew, which no "
                "cache can hold; give --config.data.augment=example to launch.encode "
                "and to training"
            )
    ways = {"train": 2 if data.flip else 1, "eval": 1}
    examples = {split: datasets.fixed(config, split) for split in ways}
    kept = {k: v for k, v in dataclasses.asdict(data).items() if k != "threads"}
    return {
        "encoder": encoder,
        "data": json.loads(json.dumps(kept)),
        "latent_shape": list(config.latent_shape),
        "dtype": config.latent_dtype,
        # Not in caches of images.
        **({"context_frames": few} if (few := config.context_frames) else {}),
        "splits": {
            split: {
                "count": len(examples[split]),
                "orientations": ways[split],
                "fingerprint": pipeline.fixed_fingerprint(examples[split]),
            }
            for split in ways
        },
    }


def opened(config: Stage2Config, wanted: dict, known: dict) -> Cache:
    """The cache at config.latent_cache, which must be the `wanted` one.

    `known`: what a run that used it before remembers. Digests of all shards are compared
    when a run begins; when it goes on, sizes: each record has a checksum besides.

    Raises:
      DataError: there is none, or it is damaged. ConfigError: it is of another encoder
        or of other examples.
    """
    assert config.latent_cache is not None
    cache = latent_cache.store(config.latent_cache)
    manifest, name = latent_cache.load(cache)
    latent_cache.check(cache, manifest, wanted)
    begun = known.get("manifest") == name
    part = None if begun else (processes.index(), processes.count())
    cache.verify(manifest, part=part)
    train: Any
    held_out: Any
    train, held_out = (
        latent_cache.Latents(cache, manifest, split) for split in ("train", "eval")
    )
    if config.data.text != (0, 0):
        train = registry.WithText(train, datasets.source(config, "train"))
        held_out = registry.WithText(held_out, datasets.source(config, "eval"))
    provenance = {"path": config.latent_cache, "manifest": name}
    order = pipeline.in_turn(held_out)
    return Cache(pipeline.endless(train, config.seed), order, provenance)
