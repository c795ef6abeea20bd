"""A run's networks as files that need neither its workdir nor Orbax to be loaded."""

import logging
from typing import Any

from etils import epath

from ul import config
from ul.checkpoints import safetensors, store
from ul.checkpoints.workdir import load_config
from ul.inference import api
from ul.inference import weights as stored_weights

log = logging.getLogger("ul")

NETWORKS = ("encoder", "decoder", "prior")
# Which section of a config has the noise that a network is trained on.
SCHEDULES = {
    "decoder": "decoder_schedule",
    "prior": "prior_schedule",
    "base": "schedule",
}


def export(
    workdir,
    out,
    *,
    step: int | None = None,
    weights: str = "ema",
    stage1_workdir: str | None = None,
) -> list[str]:
    """Write the networks of a run into the directory `out`; the files' paths.

    Of a stage 2 it is the base, and the stage 1 that it was trained on in out/stage1.
    What lies there is read as a workdir is.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; `out` has other content.
      StorageError: the disk refuses.
    """
    parsed, out = (
        stored_weights.load_config_of(workdir, config.RunConfig),
        epath.Path(out),
    )
    if isinstance(parsed, config.AutoencoderConfig):
        ae = api.restore_stage1(workdir, NETWORKS, step=step, weights=weights)
        return _write(workdir, out, ae, ae.params, ae.codec)
    written = []
    if isinstance(parsed, config.Stage2Config):
        used = load_config(workdir)["provenance"]["stage1"]
        stage1_workdir = stored_weights.below(workdir, stage1_workdir)
        inside, which = out / "stage1", dict(step=used["step"], weights=used["weights"])
        if inside.resolve() != epath.Path(stage1_workdir).resolve():
            written = export(stage1_workdir, inside, **which)
    gen = api.load_generator(
        workdir, step=step, weights=weights, stage1_workdir=stage1_workdir
    )
    networks = {"base": gen.params}
    return written + _write(workdir, out, gen, networks, gen.autoencoder.codec)


def _write(workdir, out: epath.Path, loaded, networks: dict, codec) -> list[str]:
    run = load_config(workdir)
    source = {
        "workdir": str(epath.Path(workdir).resolve()),
        "code": run["code"],
        "step": loaded.step,
        "weights": loaded.weights,
        "ema_sources": loaded.ema_sources,
    }
    about = {
        name: _about(name, run["config"], codec)
        | {"source": source | {"digest": store.fingerprint(params)}}
        for name, params in networks.items()
    }
    made = safetensors.files(networks, about)
    what = {"step": loaded.step, "weights": loaded.weights, "source": source}
    safetensors.write(out, run, what, made)
    return [str(out / name) for name in made]


def _about(name: str, settings: dict, codec) -> dict[str, Any]:
    """What one needs to build a network and to use it, of a resolved config."""
    pixels = name == "base" and name not in settings
    own = settings.get("decoder" if pixels else name, settings.get("networks"))
    found = {
        "stage": settings["stage"],
        "settings": own,
        "schedule": settings.get(SCHEDULES.get(name, "")),
        "sampling": None if name == "encoder" else settings.get("sampling"),
        "guidance": settings.get("guidance"),
        "dtype": settings["dtype"],
        "image_shape": settings["data"]["image_shape"],
        "latent_shape": codec.latent_shape,
        "latent_logsnr": codec.latent_logsnr,
        "num_classes": settings["data"]["num_classes"],
    }
    return {key: value for key, value in found.items() if value is not None}
