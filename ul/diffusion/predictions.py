"""Conversions between the predictions x, eps and v at one noisy z_t, all through x.

v = alpha eps - sigma x (Salimans & Ho, Progressive Distillation, appendix D). All signals
are [B, ...] of one shape; logsnr is [B] or a scalar.
"""

from ul.diffusion.gaussian import alpha, expand, sigma


def x_from_v(v, z_t, logsnr):
    """Return x = alpha z_t - sigma v."""
    logsnr = expand(logsnr, z_t)
    return alpha(logsnr) * z_t - sigma(logsnr) * v


def v_from_x(x, z_t, logsnr):
    """Return v = (alpha z_t - x) / sigma."""
    logsnr = expand(logsnr, z_t)
    return (alpha(logsnr) * z_t - x) / sigma(logsnr)


def x_from_eps(eps, z_t, logsnr):
    """Return x = (z_t - sigma eps) / alpha."""
    logsnr = expand(logsnr, z_t)
    return (z_t - sigma(logsnr) * eps) / alpha(logsnr)


def eps_from_x(x, z_t, logsnr):
    """Return eps = (z_t - alpha x) / sigma."""
    logsnr = expand(logsnr, z_t)
    return (z_t - alpha(logsnr) * x) / sigma(logsnr)
