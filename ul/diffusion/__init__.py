"""Floor 1: the mathematics of diffusion. Pure functions of arrays: no Flax, no I/O.

`logsnr` is log(alpha^2 / sigma^2), variance preserving: alpha^2 = sigmoid(logsnr),
sigma^2 = sigmoid(-logsnr). t runs from 0 (least noise) to 1 (most noise).
A denoiser is a callable `denoise(z_t, logsnr [B]) -> x_hat`, the expected clean
signal given the noisy one.
"""
