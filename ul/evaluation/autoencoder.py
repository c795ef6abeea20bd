"""What an autoencoder costs and gives back: rate, where its bits go, reconstructions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ul import api, build, runs
from ul.build import Diffusions
from ul.config import Autoencoder, Joint
from ul.data import sources
from ul.diffusion import waterfilling
from ul.evals import (
    bit_pictures,
    bits,
    chunks,
    frechet,
    likelihood,
    rate,
    reconstruction,
)
from ul.evals.features import pixels
from ul.evaluation.records import PICTURES, check_count, folder, sampler, write, zoom
from ul.train.writer import grid

# Fewer examples than this for each dimension and a covariance says little.
EXAMPLES_PER_DIMENSION = 10
MOST_DIMENSIONS = 4096
MAPS = 16
# Of what is imported: nothing bounds what its latents hold.
NO_RATE = "latents without noise have no rate; a stage 2 on them gives base_rate_bpp"
# A map is of one example: it needs more noise levels than a mean over many.
DRAWS_OF_A_MAP = 64


def autoencoder(
    workdir, *, step, weights: str, seed: int, num_examples: int | None
) -> dict:
    """Held-out rate with its standard error, where the bits go, a likelihood bound;
    PSNR, SSIM and Frechet distance of reconstructions.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders.
    """
    ae = api.restore_stage1(
        workdir, ("encoder", "prior", "decoder"), step=step, weights=weights
    )
    where, count = folder(workdir), num_examples or ae.config.eval.examples
    assert isinstance(ae.config, Autoencoder)
    made = build.stage1(ae.config)
    images = runs.collect(ae.config, "eval", count)["image"]
    check_count(images)
    result: dict[str, Any] = {"skipped": {"rate_bpp": NO_RATE}}
    if made.objective is not None:
        result = _rate(ae, made.objective, count, seed)
    drawings: dict[str, bytes] = {}
    if made.diffusions is not None:
        found, drawings = _bits(ae, made.diffusions, images, seed)
        result |= found | _bound(ae, made.diffusions, images, seed)
    again = ae.reconstruct(images, seed=seed, progress=True)
    area = int(np.prod(ae.image_shape[:2]))
    result["psnr_db"] = float(reconstruction.psnr_db(images, again).mean())
    result["pooled_psnr_db"] = reconstruction.pooled_psnr_db(images, again)
    result["ssim"] = float(reconstruction.ssim(images, again).mean())
    if pixels.fits(ae.image_shape):
        seen, real = (frechet.statistics(pixels.features(i)) for i in (again, images))
        result["reconstruction_frechet"] = frechet.distance(seen, real)
    result["decoder"] = "sampled" if made.codec.sampled else "one call"
    if "rate_bpp" in result:
        bits_of, sampled = result["rate_bpp"] * area, made.codec.sampled
        result["gaussian_psnr_db"] = _gaussian_bound(ae.config, bits_of, sampled)
    result |= _optimum(ae.config)
    result["num_examples"] = len(images)
    own = "" if made.codec.exact else "draw from the encoder's variance, "
    protocol = {
        "split": "eval",
        "reconstruction": f"encode, {own}add logsnr-{made.codec.latent_logsnr:g} noise, decode",
        "psnr": "per image, peak 255, then the mean; pooled: of the mean squared error",
        "ssim": f"scikit-image, flat window {reconstruction.ssim_window(images.shape[1:])}",
        "rate": f"{ae.config.stage}: mean of {ae.config.eval.draws} draws an example"
        if made.objective
        else None,
        "bound": likelihood.NAME if made.diffusions else None,
        "reconstruction_frechet": f"{pixels.NAME}: not FID; against the same images",
        "sampler": sampler(ae.config) if made.codec.sampled else None,
    }
    picture = grid(
        np.concatenate([images[:PICTURES], again[:PICTURES]]), PICTURES, zoom(images)
    )
    return write(where, "reconstruction", ae, seed, result, protocol, picture, drawings)


def _rate(
    ae: api.Autoencoder, objective: Callable, count: int, seed: int
) -> dict[str, Any]:
    """Every term of the objective on held-out images, in bits per pixel."""
    moments = rate.HeldOut(objective, draws=ae.config.eval.draws)(
        ae.params,
        runs.eval_batches(ae.config, runs.dataset(ae.config, "eval"), count),
        api.seed_key(seed),
        batch_size=ae.config.eval.batch_size,
        prepare=lambda batch: batch,
        on=ae.mesh,
    )
    area, result = int(np.prod(ae.image_shape[:2])), {}
    for name, m in moments.items():
        if name.endswith("_nats"):
            key = name.removesuffix("_nats") + "_bpp"
            result[key], result[f"{key}_sem"] = rate.bits_per_pixel(m, area)
    return result


def _rows(images) -> dict[str, np.ndarray]:
    row = np.arange(len(images), dtype=np.int32)
    stratum = (row / len(images)).astype(np.float32)
    return {"image": images, "row": row, "stratum": stratum}


def where_bits_go(
    ae: api.Autoencoder, both: Diffusions, images, seed: int
) -> bits.Shares:
    """The rate of uint8 images [N, H, W, C], split; under a bar."""
    found = chunks.map_rows(
        lambda image, row, stratum: bits.split(
            both.networks,
            both.prior_schedule,
            ae.params,
            image,
            row,
            stratum,
            api.seed_key(seed),
            draws=max(ae.config.eval.draws, DRAWS_OF_A_MAP),
        ),
        _rows(images),
        batch_size=ae.config.eval.batch_size,
        on=ae.mesh,
        title="where the bits go",
    )
    return bits.shares(found, both.prior_schedule, int(np.prod(ae.image_shape[:2])))


def _bits(ae, both: Diffusions, images, seed: int) -> tuple[dict, dict]:
    """Where the bits go, as numbers and as pictures."""
    shares = where_bits_go(ae, both, images, seed)
    numbers = {
        "bits_by_logsnr": {
            "logsnr": shares.logsnr.tolist(),
            "bpp_per_unit": shares.level.tolist(),
            "sem": shares.level_sem.tolist(),
        },
        "bits_by_channel": {
            "bpp": shares.channel.tolist(),
            "sem": shares.channel_sem.tolist(),
        },
    }
    drawings = {
        "bits": bit_pictures.curves(shares),
        "bit-maps": bit_pictures.maps(images[:MAPS], shares.place[:MAPS]),
    }
    return numbers, drawings


def _bound(ae, both: Diffusions, images, seed: int) -> dict[str, Any]:
    """The likelihood bound, in bits per dimension."""
    nats = chunks.map_rows(
        lambda image, row, stratum: likelihood.bound_nats(
            both.networks,
            both.prior_schedule,
            both.decoder_schedule,
            ae.params,
            image,
            row,
            stratum,
            api.seed_key(seed),
            draws=ae.config.eval.draws,
        ),
        _rows(images),
        batch_size=ae.config.eval.batch_size,
        on=ae.mesh,
        title="likelihood bound",
    )
    dimensions = int(np.prod(ae.image_shape))
    bpd, sem = likelihood.bits_per_dimension(nats, dimensions)
    return {"bound_bpd": bpd, "bound_bpd_sem": sem}


def _optimum(parsed) -> dict[str, float]:
    """The exact optimum, where data are Gaussian and the objective is UL's."""
    if type(parsed) is not Joint or parsed.data.source["kind"] != "gaussian":
        return {}
    known = {k: parsed.data.source[k] for k in ("exponent", "std")}
    variances = sources.gaussian_variances(parsed.data.image_shape, **known).ravel()
    precision = waterfilling.posterior_precision(parsed.loss.factor, parsed.loss.bias)
    area = int(np.prod(parsed.data.image_shape[:2]))
    distortion = float(waterfilling.distortion(variances, precision))
    return {
        "optimum_bpp": float(waterfilling.rate_bits(variances, precision)) / area,
        "optimum_psnr_db": reconstruction.sampled_psnr_db(distortion, len(variances)),
    }


def _gaussian_bound(parsed, rate_bits: float, sampled: bool) -> float | None:
    """PSNR at that rate if the training images were Gaussian; None if they are too few
    for their dimensions, or those too many for one covariance."""
    dimensions = int(np.prod(parsed.data.image_shape))
    enough = EXAMPLES_PER_DIMENSION * dimensions
    too_few = len(runs.plain_train(parsed)) < enough
    if too_few or dimensions > MOST_DIMENSIONS or rate_bits <= 0:
        return None
    train = runs.collect(parsed, "train", max(enough, 10_000))["image"]
    variances = reconstruction.covariance_spectrum(train)
    return reconstruction.gaussian_psnr_db(variances, rate_bits, sampled=sampled)
