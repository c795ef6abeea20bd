"""Count the FLOPs of each network for one image (`ul plan flops`)."""

from absl import flags

from ul.config import TrainConfig
from ul.stages import kinds, registry
from ul.sweeps.report import costs, published

_PUBLISHED = flags.DEFINE_bool(
    "published", False, "Also print the training FLOPs and the FID of published models."
)


def main(config: TrainConfig) -> None:
    """Print the FLOPs."""
    stage = registry.build(kinds.with_attention(config, "xla"))
    print(f"FLOPs per image (1 MAC = 2 FLOP):\n\n{costs.network_table(stage)}")
    if _PUBLISHED.value:
        print(
            f"\n{published.DATASET}, FID of 50,000 samples:\n\n{costs.published_table()}"
        )
