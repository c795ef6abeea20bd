"""Price a whole recipe: training, latent cache and evaluation (`ul plan cost`)."""

from absl import flags

from launch.lib import plan_evaluation, plan_recipe
from ul.config import TrainConfig
from ul.planning import recipe_cost

_CACHED = flags.DEFINE_integer(
    "cached_images",
    2_562_334,
    "Images of the latent cache; by default ImageNet's training set with mirror images.",
    0,
)


def main(config: TrainConfig) -> None:
    """Print the costs."""
    recipe = plan_recipe.read_recipe(config)
    items = recipe_cost.training_costs(recipe, cached_images=_CACHED.value)
    plan_evaluation.print_table(items + plan_evaluation.metrics(recipe))
