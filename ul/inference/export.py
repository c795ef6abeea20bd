"""Export a run's networks as files that load without its workdir and without Orbax."""

import functools
import logging
from typing import Any

from etils import epath

from ul.checkpoints import digests, safetensors
from ul.checkpoints.workdir import load_run_record
from ul.inference import api
from ul.inference import weights as saved_weights
from ul.stages.codec import Codec

log = logging.getLogger("ul")

NETWORKS = ("encoder", "decoder", "prior")
# The section of a config with the noise schedule that a network is trained on.
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
    """Write the networks of a run into the directory `out`; return the files' paths.

    A stage 2 or a separate decoder is written with the stage 1 that it was trained on, in
    out/stage1. The directory can be read wherever a workdir can.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; `out` has other content.
      StorageError: a file cannot be written.
    """
    run, out = saved_weights.load_run(workdir), epath.Path(out)
    restore = functools.partial(
        api.restore_stage1, workdir, NETWORKS, step=step, weights=weights
    )
    if run.stage.is_autoencoder and not run.stage.uses_stage1:
        ae = restore(stage1_workdir=stage1_workdir)
        return _write(workdir, out, ae, ae.params, ae.codec)
    paths = []
    if run.stage.uses_stage1:
        kept_step, kept_weights = api.recorded_weights(run, stage1_workdir)
        stage1_workdir = saved_weights.find_stage1(run, stage1_workdir)
        inside = out / "stage1"
        if inside.resolve() != epath.Path(stage1_workdir).resolve():
            paths = export(stage1_workdir, inside, step=kept_step, weights=kept_weights)
    if run.stage.is_autoencoder:
        ae = restore(stage1_workdir=stage1_workdir)
        own = {"decoder": ae.params["decoder"]}
        return paths + _write(workdir, out, ae, own, ae.codec)
    generator = api.load_generator(
        workdir, step=step, weights=weights, stage1_workdir=stage1_workdir
    )
    networks = {"base": generator.params}
    codec = generator.autoencoder.codec
    return paths + _write(workdir, out, generator, networks, codec)


def _write(
    workdir,
    out: epath.Path,
    loaded: api.Autoencoder | api.Generator,
    networks: dict[str, Any],
    codec: Codec,
) -> list[str]:
    run = load_run_record(workdir)
    source = {
        "workdir": str(epath.Path(workdir).resolve()),
        "code_version": run["code_version"],
        "step": loaded.step,
        "weights": loaded.weights,
        "ema_sources": loaded.ema_sources,
    }
    descriptions = {
        name: _description(name, run["config"], run["provenance"], codec)
        | {"source": source | {"digest": digests.fingerprint(params)}}
        for name, params in networks.items()
    }
    files = safetensors.serialize_networks(networks, descriptions)
    record = {"step": loaded.step, "weights": loaded.weights, "source": source}
    safetensors.write_export(out, run, record, files)
    return [str(out / name) for name in files]


def _description(
    name: str, config: dict, provenance: dict, codec: Codec
) -> dict[str, Any]:
    """Return what is needed to build a network and to use it, from a saved config."""
    # A pixel-diffusion run has its network in the section `decoder`.
    section = "decoder" if name == "base" and "base" not in config else name
    settings = section if section in config else "networks"
    sources = {
        "settings": settings,
        "schedule": SCHEDULES.get(name, ""),
        "guidance": "guidance",
        "sampling": "" if name == "encoder" else "sampling",
    }
    description = {key: config[s] for key, s in sources.items() if s in config}
    description |= {
        "stage": config["stage"],
        "dtype": config["dtype"],
        "image_shape": config["data"]["image_shape"],
        "latent_shape": codec.latent_shape,
        "latent_logsnr": codec.latent_logsnr,
        "num_classes": config["data"]["num_classes"],
    }
    if name == "base" and "latents" in provenance:
        description["latent_variance"] = provenance["latents"]["variance"]
    return {key: value for key, value in description.items() if value is not None}
