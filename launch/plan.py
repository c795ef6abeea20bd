"""Before a run is paid for: which bitrate it gives, and what it needs of a pod.

    python -m launch.plan bitrate --config experiments/photos.py:stage1
    python -m launch.plan bitrate --config experiments/photos.py:stage1 --target-bpp 0.06
    python -m launch.plan flops --config experiments/imagenet512.py:stage1
    python -m launch.plan pod --config experiments/imagenet512.py:stage1 \\
        --topology v5p:4x4x4 --mesh data=4,fsdp=16
    python -m launch.plan pod --config experiments/imagenet512.py:stage2 \\
        --topology v6e:16x16 --mesh data=16,fsdp=16 --mesh data=32,fsdp=8 --search

`pod` needs no pod: TPU topologies want the `tpu` extra, cpu:8 nothing. It exits with 64
after its table if the step does not fit; with --search what does not fit is a row.
"""

from absl import flags

from launch.lib import cli, plan_bitrate, plan_pod
from ul.config import TrainConfig
from ul.sweeps.report import costs, published

_BESIDE = flags.DEFINE_bool("published", False, "flops: published models too.")


def _flops(parsed: TrainConfig) -> None:
    print(f"An image, 1 MAC = 2 FLOP:\n\n{costs.network_table(parsed)}")
    if _BESIDE.value:
        print(
            f"\n{published.DATASET}, FID of 50,000 samples:\n\n{costs.published_table()}"
        )


_CONFIG = cli.define_config()
COMMANDS = {
    "bitrate": lambda: plan_bitrate.main(_CONFIG()),
    "flops": lambda: _flops(_CONFIG()),
    "pod": lambda: plan_pod.main(_CONFIG()),
}

if __name__ == "__main__":
    cli.run(COMMANDS)
