"""How much faster a step is on cached latents; run by hand, it prints ratios.

    python -m tests.bench.latent_cache --rounds=8 --steps=20
    python -m tests.bench.latent_cache --depths=2,2

experiments/photos.py:stage2_fixed with its stage 1's encoder, untrained: time does not ask
for weights. Both ways take turns in one process. Seconds are by the clock and of CPU time, all
threads: on a machine that others share only the second means something, and on a CPU alone.
A step is reading, to the device, the encoder where there is one, the update.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time

import jax
from etils import epath

from experiments import photos
from ul.data import latent_cache, pipeline
from ul.data.datasets import Datasets
from ul.runs import assemble
from ul.runs import latent_cache as caches
from ul.stages import registry
from ul.train import loop
from ul.train import state as states

CROPS = 64


def parsed(variant, **changes):
    settings = registry.to_dict(photos.get_config(variant))
    settings["data"]["source"]["crops"] = CROPS
    for section, values in changes.items():
        settings[section] |= values
    return registry.parse(settings)


def both(depths: tuple[int, ...], out: epath.Path) -> dict[str, loop.Run]:
    """A run on images and one on their latents."""
    stage1 = registry.build(parsed("stage1"))
    base = {"base": {"depths": depths}} if depths else {}
    config = parsed("stage2_fixed", **base)
    stage2, datasets = registry.build(config), Datasets.from_config(config)
    params = stage1.init(jax.random.key(0))
    cached = cache(config, datasets, stage1.codec, params, out)
    return {
        name: assemble.build_stage2_run(
            config, stage2, datasets, stage1.codec, params, chosen
        )
        for name, chosen in (("on the fly", None), ("cached", cached))
    }


def cache(config, datasets, codec, params, out: epath.Path) -> latent_cache.LatentCache:
    nowhere = {"workdir": "", "step": 0, "weights": "raw", "encoder": ""}
    identity = caches.cache_identity(config, datasets, codec, nowhere)
    identity["shard_examples"] = 4096
    records = []
    for shard in latent_cache.plan_shards(identity):
        examples = datasets.fixed(shard.split)
        batches = (
            batch | {"z_clean": jax.device_get(codec.encode(params, batch["image"]))}
            for batch in pipeline.batches_at(
                examples,
                range(shard.first, shard.first + shard.count),
                batch_size=128,
                threads=2,
            )
        )
        records.append(
            latent_cache.write_shard(
                latent_cache.open_store(out), shard, batches, config.latent_dtype
            )
        )
    latent_cache.write_manifest(latent_cache.open_store(out), identity, records)
    known = {"manifest": latent_cache.load_manifest(latent_cache.open_store(out))[1]}
    config = dataclasses.replace(config, latent_cache=str(out))
    return caches.open_cache(config, datasets, identity, known)


def steps(run: loop.Run, state, compiled, first: int, count: int):
    """Seconds of `count` steps, by the clock and of CPU; and the state after them."""
    began = time.perf_counter(), time.process_time()
    for step, batch in enumerate(run.batches(first, first + count), first + 1):
        state, _ = compiled(state, loop.place_batch(run, batch, step, None))
    jax.block_until_ready(state)
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    return spent, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--depths", default="", help="of the base model, as 4,6")
    options = parser.parse_args()
    depths = tuple(map(int, options.depths.split(","))) if options.depths else ()
    with tempfile.TemporaryDirectory() as scratch:
        made = both(depths, epath.Path(scratch))
        run = made["cached"]
        with jax.set_mesh(run.mesh):
            state = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
            batch = next(run.batches(0, 1))
            ready = loop.place_batch(run, batch, 1, None)
            compiled = loop.lower_step(run, state, ready).compile()
            for each in made.values():  # compile what is left, and read files once
                _, state = steps(each, state, compiled, 0, 2)
            ratios = []
            for i in range(options.rounds):
                seconds = {}
                order = list(made.items())
                for name, each in order if i % 2 else reversed(order):
                    seconds[name], state = steps(
                        each, state, compiled, i * options.steps, options.steps
                    )
                images, cached = seconds["on the fly"], seconds["cached"]
                ratios.append([a / b for a, b in zip(images, cached, strict=True)])
                each_step = {
                    k: [round(1000 * s / options.steps, 1) for s in v]
                    for k, v in seconds.items()
                }
                print(f"round {i + 1}: ms a step [clock, CPU] {each_step}", flush=True)
    for name, found in zip(("clock", "CPU"), zip(*ratios, strict=True), strict=True):
        print(
            f"{name}: on the fly / cached, median {statistics.median(found):.3f} of "
            f"{options.rounds} rounds, {min(found):.3f} to {max(found):.3f}"
        )


if __name__ == "__main__":
    main()
