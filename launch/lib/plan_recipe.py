"""The stages of a recipe, of which a plan reads the configs."""

from absl import flags

from launch.lib import files
from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning import recipe_cost
from ul.runs.train_spec import TrainSpec
from ul.stages import registry

_STAGE1 = flags.DEFINE_string(
    "stage1_config",
    None,
    "Config of the stage 1 of a stage 2, for example imagenet512:stage1. `evaluation` and "
    "`cost` need it; with it `pod` adds the time of encoding images without a latent cache.",
)


def read_recipe(config: TrainConfig) -> list[TrainSpec]:
    """Return the stages of a recipe: stage 1, and the stage 2 on it.

    Raises:
      ConfigError: --stage1_config is missing, or its stage does not fit.
    """
    recipe = [TrainSpec(config)]
    if recipe[0].stage.uses_stage1:
        if not _STAGE1.value:
            raise ConfigError(
                "--stage1_config is required for a stage 2, but it is not set. Pass "
                "--stage1_config=NAME:VARIANT, the config of its stage 1."
            )
        typed = files.call_user_function("--stage1_config", _STAGE1.value, "get_config")
        stage1_config = registry.parse(registry.to_dict(typed), TrainConfig)
        recipe.insert(0, TrainSpec(stage1_config))
        if recipe[0].stage.codec is None:
            raise ConfigError(
                "--stage1_config must be a stage 1 with encoder and decoder; got stage "
                f"{recipe[0].stage.name!r}."
            )
        registry.check_stage1(recipe[1].stage, recipe[0].stage, _STAGE1.value)
    return recipe


def online_encoder_flops(config: TrainConfig) -> float:
    """Return the FLOPs with which a step of stage 2 encodes its images.

    It is 0 for other stages, with a latent cache, and if --stage1_config is not given.

    Raises:
      ConfigError: the stage of --stage1_config does not fit.
    """
    if not _STAGE1.value or getattr(config, "latent_cache", None):
        return 0.0
    recipe = read_recipe(config)
    if len(recipe) == 1:
        return 0.0
    flops = recipe_cost.forward_flops(recipe[0].stage)
    return config.batch_size * flops["encoder"]
