"""Load the guiding model for autoguidance (Karras et al., arXiv 2406.02507)."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from etils import epath

from ul.checkpoints import digests
from ul.core.errors import ConfigError
from ul.inference import weights as saved_weights
from ul.inference.weights import SavedRun
from ul.stages.registry import GeneratorConfig

# The guiding model and the guided one must agree in these. A model of pixels has no encoder.
SHARED: dict[str, Callable[[SavedRun], Any]] = {
    "stage": lambda run: run.stage.name,
    "encoder": lambda run: run.provenance.get("stage1", {}).get("encoder"),
    "schedule": lambda run: run.stage.sampler.schedule if run.stage.sampler else None,
    "latent shape": lambda run: run.stage.latent_shape,
    "data.num_classes": lambda run: run.stage.num_classes,
    "data.text": lambda run: run.datasets.data.text,
}


@dataclasses.dataclass(frozen=True)
class GuidingModel:
    """A smaller or less trained model that guidance leads away from.

    denoise_latent(params, z_t, logsnr, condition, key) -> z_hat. description: for the
    protocol of an evaluation.
    """

    denoise_latent: Callable
    params: Any
    description: dict[str, Any]


def load_guiding_model(spec: str, guided: SavedRun, mesh) -> GuidingModel:
    """Load WORKDIR[:step][@weights] as the guiding model of the run `guided`.

    Raises:
      ConfigError: it has other latents, another schedule or other classes.
      CheckpointError, DataError: as any loader.
    """
    match = re.fullmatch(r"(.+?)(?::(\d+))?(?:@(.+))?", spec)
    if match is None:
        raise ConfigError(
            f"The guiding model must be WORKDIR[:step][@weights]; got {spec!r}."
        )
    workdir, step, name = match.groups()
    run = saved_weights.load_run(workdir, GeneratorConfig)
    for key, value_of in SHARED.items():
        required, value = value_of(guided), value_of(run)
        if value != required:
            raise ConfigError(
                f"The guiding model in {workdir} must have the same {key} as the model in "
                f"{guided.workdir}, {required}; got {value}. Train it on the same latents, "
                "with the same schedule and classes."
            )
    chosen = saved_weights.choose(run, int(step) if step else None, name or "ema")
    params = saved_weights.restore_generator(chosen, run.stage, mesh)
    description: dict[str, Any] = {
        "workdir": str(epath.Path(workdir).resolve()),
        "step": chosen.step,
        "weights": chosen.name,
        "digest": digests.fingerprint(params),
    }
    if chosen.ema_sources:
        description["ema_sources"] = chosen.ema_sources
    assert run.stage.sampler is not None
    return GuidingModel(run.stage.sampler.denoise_latent, params, description)
