"""Make a stage 1 of another's KL autoencoder, for a stage 2 on its latents.

    python -m launch.import_autoencoder --config experiments/external.py:autoencoder \\
        --weights vae.safetensors --vae_config config.json --workdir runs/sd_vae
    python -m launch.train --config experiments/external.py:stage2 --workdir runs/sd_base \\
        --config.stage1.workdir=runs/sd_vae

Nothing is trained; evaluate, sample and `ul.load_autoencoder` take the workdir as any.
"""

from absl import flags

from launch.lib import cli
from ul import config
from ul.importing import autoencoder_weights
from ul.stages import registry

_CONFIG = cli.define_config(config.ExternalConfig)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Its safetensors file, of diffusers or CompVis."
)
_VAE_CONFIG = flags.DEFINE_string(
    "vae_config",
    None,
    "Its config.json of diffusers: sizes, scale and shift come from there, not --config.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the stage 1 will lie.")


def main() -> None:
    parsed, weights, workdir = _CONFIG(), cli.required(_WEIGHTS), cli.required(_WORKDIR)
    if _VAE_CONFIG.value:
        parsed = autoencoder_weights.settled(parsed, _VAE_CONFIG.value)
    numbers = autoencoder_weights.create(parsed, weights, workdir)
    latents = "x".join(map(str, registry.stage1(parsed).codec.latent_shape))
    print(
        f"Imported: {numbers / 1e6:.1f}M parameters, latents {latents} with scale "
        f"{parsed.scale:g}, shift {parsed.shift:g}: {workdir}"
    )


if __name__ == "__main__":
    cli.run(main)
