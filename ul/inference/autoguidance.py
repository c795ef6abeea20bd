"""A lesser stage 2 that guides another: what it must share, and its parameters."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from etils import epath

from ul import config
from ul.checkpoints import store
from ul.checkpoints.workdir import load_config
from ul.core.errors import ConfigError
from ul.inference import weights as stored_weights
from ul.stages import registry

# What both must have in common, of a config and its workdir; of pixels there is no encoder.
SHARED: dict[str, Callable[[Any, Any], Any]] = {
    "encoder": lambda c, where: (
        load_config(where)["provenance"].get("stage1", {}).get("encoder")
    ),
    "schedule": lambda c, where: c.schedule,
    "shape of latents": lambda c, where: registry.latent_shape(c),
    "data.num_classes": lambda c, where: c.data.num_classes,
    "data.text": lambda c, where: c.data.text,
}


@dataclasses.dataclass(frozen=True)
class Guide:
    """denoise_latent(params, z_t, logsnr, condition, key) -> z_hat. about: what a protocol
    says of it."""

    denoise_latent: Callable
    params: Any
    about: dict[str, Any]


def load(
    guide: str, guided: config.Stage2Config | config.PixelDiffusionConfig, workdir, mesh
) -> Guide:
    """WORKDIR[:step][@weights] as the guide of the run `guided` in `workdir`.

    Raises:
      ConfigError: it is of other latents, another schedule or other classes.
      CheckpointError, DataError: as any loader.
    """
    found = re.fullmatch(r"(.+?)(?::(\d+))?(?:@(.+))?", guide)
    if found is None:
        raise ConfigError(f"guide is {guide!r}; it must be WORKDIR[:step][@weights]")
    where, step, weights = found.groups()
    parsed = stored_weights.load_config_of(where, type(guided))
    for name, of in SHARED.items():
        ours, theirs = of(guided, workdir), of(parsed, where)
        if ours != theirs:
            raise ConfigError(
                f"the guide {where} has another {name} ({theirs}) than {workdir} ({ours}); "
                "it must be trained on the same latents, with the same schedule and classes"
            )
    at = None if step is None else int(step)
    chosen = stored_weights.choose(where, parsed, at, weights or "ema")
    params = stored_weights.base(chosen, parsed, mesh)
    about: dict[str, Any] = {
        "workdir": str(epath.Path(where).resolve()),
        "step": chosen.step,
        "weights": chosen.name,
        "digest": store.fingerprint(params),
    }
    about |= {"ema_sources": chosen.ema_sources} if chosen.ema_sources else {}
    return Guide(registry.latent_sampler(parsed).denoise_latent, params, about)
