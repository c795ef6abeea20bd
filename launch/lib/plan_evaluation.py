"""Price the metrics of reconstructions and samples (`ul plan evaluation`)."""

from absl import flags

from launch.lib import files
from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning import recipe_cost
from ul.planning.pods.chips import CHIPS
from ul.runs.train_spec import TrainSpec
from ul.stages import registry

STAGE1 = flags.DEFINE_string(
    "stage1_config",
    None,
    "Config of the stage 1 of --config, for example imagenet512:stage1. Required for a stage "
    "2.",
)
CHIP = flags.DEFINE_enum("chip", "v5p", sorted(CHIPS), "Accelerator that is priced.")
NUM_CHIPS = flags.DEFINE_integer("chips", 64, "Number of chips.", 1)
UTILIZATION = flags.DEFINE_float(
    "utilization", 0.4, "Assumed model FLOPs utilization (MFU), in (0, 1]."
)
COUNT = flags.DEFINE_integer("count", 50_000, "Images that are evaluated.", 1)
GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Guidance of the samples.")


def read_recipe(config: TrainConfig) -> list[TrainSpec]:
    """Return the stages of a recipe: stage 1, and the stage 2 on it.

    Raises:
      ConfigError: --stage1_config is missing, or its stage does not fit.
    """
    recipe = [TrainSpec(config)]
    if recipe[0].stage.uses_stage1:
        if not STAGE1.value:
            raise ConfigError(
                "--stage1_config is required for a stage 2, but it is not set. Pass "
                "--stage1_config=NAME:VARIANT, the config of its stage 1."
            )
        typed = files.call_user_function("--stage1_config", STAGE1.value, "get_config")
        stage1_config = registry.parse(registry.to_dict(typed), TrainConfig)
        recipe.insert(0, TrainSpec(stage1_config))
        if recipe[0].stage.codec is None:
            raise ConfigError(
                "--stage1_config must be a stage 1 with encoder and decoder; got stage "
                f"{recipe[0].stage.name!r}."
            )
        registry.check_stage1(recipe[1].stage, recipe[0].stage, STAGE1.value)
    return recipe


def metrics(recipe: list[TrainSpec]) -> list[recipe_cost.CostItem]:
    """Return the costs of the metrics of a recipe."""
    stage2 = recipe[1].stage if len(recipe) > 1 else None
    return recipe_cost.evaluation_costs(
        recipe[0].stage, stage2, count=COUNT.value, guidance=GUIDANCE.value
    )


def print_table(items: list[recipe_cost.CostItem]) -> None:
    """Print the costs on the requested chips."""
    print(
        recipe_cost.to_markdown(
            items, CHIPS[CHIP.value], UTILIZATION.value, NUM_CHIPS.value
        )
    )


def main(config: TrainConfig) -> None:
    """Print the costs of the metrics."""
    print_table(metrics(read_recipe(config)))
