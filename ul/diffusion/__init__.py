"""Layer 1: the mathematics of diffusion, in pure functions of arrays.

`logsnr` is log(alpha^2 / sigma^2). The process is variance preserving: alpha^2 =
sigmoid(logsnr), sigma^2 = sigmoid(-logsnr). The time t runs from 0, the lowest noise level,
to 1, the highest. A denoiser is a callable `denoise(z_t, logsnr [B]) -> x_hat`, which
predicts the clean signal from the noisy one.
"""
