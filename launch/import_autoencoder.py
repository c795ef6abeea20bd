"""Import a Stable-Diffusion-style KL autoencoder as a stage-1 run.

    python -m ul import_autoencoder --config external:autoencoder \\
        --weights vae.safetensors --vae_config config.json --workdir runs/sd_vae
    python -m ul train --config external:stage2 --workdir runs/sd_base \\
        --config.stage1.workdir=runs/sd_vae

Nothing is trained. The workdir can be evaluated, exported and loaded like a trained one.
"""

from absl import flags

from launch.lib import cli
from ul.importing import autoencoder_weights
from ul.stages import registry
from ul.stages.external import ExternalConfig

_CONFIG = cli.define_config(ExternalConfig)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Safetensors file of the autoencoder, in the layout of diffusers or CompVis. Required.",
)
_VAE_CONFIG = flags.DEFINE_string(
    "vae_config",
    None,
    "config.json of the autoencoder as diffusers writes it. Its sizes, scale and shift "
    "then replace those of --config.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the stage-1 run to write. Required."
)


def main() -> None:
    """Write the workdir."""
    config, weights, workdir = _CONFIG(), cli.required(_WEIGHTS), cli.required(_WORKDIR)
    if _VAE_CONFIG.value:
        config = autoencoder_weights.apply_vae_config(config, _VAE_CONFIG.value)
    count = autoencoder_weights.import_autoencoder(config, weights, workdir)
    shape = "x".join(map(str, registry.build(config).latent_shape))
    print(
        f"Imported: {count / 1e6:.1f}M parameters, latents {shape} with scale "
        f"{config.scale:g}, shift {config.shift:g}: {workdir}"
    )


if __name__ == "__main__":
    cli.run(main)
