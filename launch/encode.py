"""Encode the images of stage 2 once and cache their latents.

    python -m ul encode --config photos:stage2_fixed \\
        --config.stage1.workdir=runs/p1 --out runs/latents
    python -m ul train --config photos:stage2_fixed --workdir runs/p2 \\
        --config.stage1.workdir=runs/p1 --config.latent_cache=runs/latents

Run the command again after an interruption: finished shards are kept, damaged ones are
written again. Many processes may run it together; the cache does not depend on their number.
"""

from absl import flags

from launch.lib import cli, cluster, compiled
from ul.core import processes
from ul.runs import encode

_CONFIG = cli.define_config()
_OUT = flags.DEFINE_string("out", None, "Directory of the latent cache. Required.")
_SHARD = flags.DEFINE_integer("shard_examples", 4096, "Examples in one shard file.", 1)


def main() -> None:
    """Write the cache and print its statistics."""
    config, out = _CONFIG(), cli.required(_OUT)
    cluster.join()
    compiled.enable()
    manifest = encode.encode(config, out, shard_examples=_SHARD.value)
    if processes.is_first():
        for split, about in manifest["splits"].items():
            size = sum(s["bytes"] for s in about["shards"]) / 2**20
            low, high = (about["statistics"][k] for k in ("min", "max"))
            print(
                f"{split}: {about['count']} latents of {manifest['latent_shape']}, "
                f"{manifest['dtype']}, {low:.2f} to {high:.2f}, {size:.1f} MiB"
            )


if __name__ == "__main__":
    cli.run(main, exit_code_table=True)
