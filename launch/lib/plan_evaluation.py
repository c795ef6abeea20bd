"""Price the metrics of reconstructions and samples (`ul plan evaluation`)."""

from absl import flags

from launch.lib import plan_recipe
from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning import recipe_cost
from ul.planning.pods.chips import CHIPS
from ul.runs.train_spec import TrainSpec

CHIP = flags.DEFINE_enum("chip", "v5p", sorted(CHIPS), "Accelerator that is priced.")
NUM_CHIPS = flags.DEFINE_integer("chips", 64, "Number of chips.", 1)
UTILIZATION = flags.DEFINE_float(
    "utilization", 0.4, "Assumed model FLOPs utilization (MFU), in (0, 1]."
)
COUNT = flags.DEFINE_integer("count", 50_000, "Images that are evaluated.", 1)
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Guidance of the samples.")
IMAGE_SIZE = flags.DEFINE_list(
    "image_size",
    [],
    "Height,width in pixels of images that are reconstructed tile by tile; if empty, the "
    "size of training.",
)


def metrics(recipe: list[TrainSpec]) -> list[recipe_cost.CostItem]:
    """Return the costs of the metrics of a recipe."""
    stage2 = recipe[1].stage if len(recipe) > 1 else None
    return recipe_cost.evaluation_costs(
        recipe[0].stage,
        stage2,
        count=COUNT.value,
        guidance=GUIDANCE.value,
        image_size=_image_size(),
    )


def _image_size() -> tuple[int, int] | None:
    """Return the parsed flag.

    Raises:
      ConfigError: it does not hold two positive integers.
    """
    words = IMAGE_SIZE.value
    if not words:
        return None
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        raise ConfigError(
            "--image_size must be a height and a width in pixels, such as 1024,768; got "
            f"{','.join(words)}."
        )
    height, width = map(int, words)
    return height, width


def print_table(items: list[recipe_cost.CostItem]) -> None:
    """Print the costs on the requested chips."""
    print(
        recipe_cost.to_markdown(
            items, CHIPS[CHIP.value], UTILIZATION.value, NUM_CHIPS.value
        )
    )


def main(config: TrainConfig) -> None:
    """Print the costs of the metrics."""
    print_table(metrics(plan_recipe.read_recipe(config)))
