"""The networks that a section's `kind` chooses from, by what they compute.

A network is a Flax Linen module whose fields are its settings, with `dtype` among them:

  encoder: x [B, *grid, C] to z_clean [B, *g, latent_channels]; has `latent_channels` and
    `latent_shape(image_shape)`.
  image denoiser: (x_t, logsnr [B], z_0) to v like x_t; has `latent_grid(image_shape)`.
  latent denoiser: (z_t, logsnr [B], **conditions) to v like z_t; takes `num_classes` and
    `text_channels`.

Each has `check(section, shape, ...)`, which raises ConfigError for settings that do not
fit each other or the data; a latent denoiser's also takes `has_text`. Settings named
`dropout`, `remat` and `attention` mean what they mean in the ViT. `ul plan` counts the
FLOPs of a new network after a row in `CLOSED_FORMS` of ul/planning/pods/closed_form.py.
"""

from ul.models.encoder import Encoder
from ul.models.uvit import UViT
from ul.models.vit import ViT

ENCODERS = {"resnet": Encoder}
IMAGE_DENOISERS = {"uvit": UViT}
LATENT_DENOISERS = {"vit": ViT}
