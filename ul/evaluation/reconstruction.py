"""What an autoencoder costs and gives back: rate, where its bits go, reconstructions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ul.config import AutoencoderConfig, JointConfig
from ul.core import batching
from ul.data import datasets
from ul.data.sources import gaussian
from ul.diffusion import waterfilling
from ul.evaluation import bit_plots
from ul.evaluation import request as requests
from ul.evaluation.context import Shared, data_digest, needs_of
from ul.evaluation.records import (
    PICTURES,
    Record,
    check_count,
    folder,
    sampler,
    say_skipped,
    write,
    zoom,
)
from ul.evaluation.request import Request
from ul.inference import api
from ul.metrics import likelihood, rate_split, reconstruction, streaming
from ul.metrics.extractors import MissingWeights
from ul.metrics.features import lpips, pixels
from ul.metrics.streaming import METRICS, Comparison, Extractor, Reference, Statistics
from ul.objectives import held_out
from ul.stages import registry
from ul.stages.registry import Diffusions, Stage1
from ul.train import image_grids

# Fewer examples than this for each dimension and a covariance says little.
EXAMPLES_PER_DIMENSION = 10
MOST_DIMENSIONS = 4096
MAPS = 16
# Of what is imported: nothing bounds what its latents hold.
NO_RATE = "latents without noise have no rate; a stage 2 on them gives base_rate_bpp"
# A map is of one example: it needs more noise levels than a mean over many.
DRAWS_OF_A_MAP = 64


def autoencoder(request: Request, shared: Shared) -> dict:
    """Held-out rate with its standard error, where the bits go, a likelihood bound;
    PSNR, SSIM, LPIPS and Frechet distances of reconstructions to their originals.

    Raises:
      ConfigError, CheckpointError, DataError: as the loaders; damaged weights.
    """
    ae = api.restore_stage1(
        request.workdir,
        ("encoder", "prior", "decoder"),
        step=request.step,
        weights=request.weights,
    )
    assert isinstance(ae.config, AutoencoderConfig)
    where, made = folder(request.workdir), registry.stage1(ae.config)
    examples = datasets.dataset(ae.config, "eval")
    count = min(request.num_examples or ae.config.eval.num_examples, len(examples))
    check_count(count)
    metrics, skipped = _plan(request, shared, ae, made, count)
    say_skipped(skipped)
    result: dict[str, Any] = {}
    if made.objective is not None and {"rate", "gaussian_psnr"} & set(metrics):
        result = _rate(ae, made.objective, count, request.seed)
    look = _Pass(request, shared, ae, made, metrics, count)
    for part in datasets.parts(ae.config, examples, range(count), "reconstruct"):
        look.add(part["image"])
    found, drawings = look.result()
    result |= found | {"decoder": "sampled" if made.codec.sampled else "one call"}
    if "gaussian_psnr" in metrics:
        whole = result["rate_bpp"] * int(np.prod(ae.image_shape[:-1]))
        bound = _gaussian_bound(ae.config, whole, made.codec.sampled)
        result["gaussian_psnr_db"] = bound
    result |= _optimum(ae.config) if "rate" in metrics else {}
    result["num_examples"] = count
    record = Record(
        evaluation="reconstruction",
        stem="reconstruction",
        loaded=ae,
        request=request,
        result=result,
        skipped=skipped,
        protocol=_protocol(request, shared, ae, made, metrics, count)
        | {"data_digest": data_digest(examples)},
    )
    return write(where, record, look.picture(), drawings)


def _plan(
    request: Request, shared: Shared, ae: api.Autoencoder, made: Stage1, count: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What can be measured, and why the rest cannot."""
    skipped: dict[str, str] = {}
    names = requests.wanted(request.metrics, requests.RECONSTRUCTION, ae.image_shape)
    for name in names:
        reason = None
        if name in METRICS:
            reason = streaming.obstacle(name, ae.image_shape, count, shared.networks)
        elif name == "lpips":
            reason = _no_lpips(shared, ae.image_shape)
        elif name in ("rate", "gaussian_psnr") and made.objective is None:
            reason = NO_RATE
        elif name in ("bits", "bound") and made.diffusions is None:
            reason = "the prior and the decoder are not both diffusions"
        if reason is not None:
            skipped[name] = reason
    measured = tuple(name for name in names if name not in skipped)
    if request.metrics is None and made.diffusions is None:
        del skipped["bits"], skipped["bound"]  # such a run has none to miss
    return measured, skipped


def _no_lpips(shared: Shared, shape: tuple[int, ...]) -> str | None:
    """Why there is no LPIPS; None if there is."""
    if min(shape[-3:-1]) < lpips.MIN_SIDE:
        return f"needs images at least {lpips.MIN_SIDE} wide and high"
    try:
        shared.networks.get("lpips")
    except MissingWeights as e:
        return str(e)
    return None


class _Pass:
    """One pass over held-out images, a part at a time; figures and pictures at its end."""

    def __init__(
        self,
        request: Request,
        shared: Shared,
        ae: api.Autoencoder,
        made: Stage1,
        metrics: tuple[str, ...],
        count: int,
    ):
        self._ae, self._made, self._count = ae, made, count
        self._metrics, self._seed, self._first = metrics, request.seed, 0
        needs = needs_of(metrics)
        self._extract = Extractor(needs, shared.networks, ae.mesh)
        self._real, self._again = Statistics(needs), Statistics(needs)
        self._values: dict[str, list[np.ndarray]] = {}
        self._bits: list[rate_split.RateSplitNats] = []
        self._shown: tuple[np.ndarray, np.ndarray] | None = None
        self._lpips = None
        if "lpips" in metrics:
            self._lpips = shared.networks.get("lpips").on(ae.mesh)

    def add(self, image: np.ndarray) -> None:
        """The next images, uint8 [N, H, W, C]."""
        ae, first = self._ae, self._first
        again = ae.reconstruct(image, seed=self._seed, first=first)
        self._keep("mse", reconstruction.mse(image, again))
        if "ssim" in self._metrics:
            each = reconstruction.mean_over_frames(reconstruction.ssim, image, again)
            self._keep("ssim", each)
        if (network := self._lpips) is not None:
            each = reconstruction.mean_over_frames(
                lambda a, b: network(image=a, other=b), image, again
            )
            self._keep("lpips", each)
        self._real.add(self._extract(image))
        self._again.add(self._extract(again))
        both, rows = self._made.diffusions, _rows(image, first, self._count)
        if both is not None and "bits" in self._metrics:
            self._bits.append(_split(ae, both, rows, self._seed, title=""))
        if both is not None and "bound" in self._metrics:
            self._keep("bound", _bound_nats(ae, both, rows, self._seed))
        if self._shown is None:
            self._shown = image[: max(PICTURES, MAPS)], again[:PICTURES]
        self._first += len(image)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self._values.setdefault(name, []).append(np.asarray(values))

    def result(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Numbers, and drawings by suffix."""
        of = {name: np.concatenate(parts) for name, parts in self._values.items()}
        found: dict[str, Any] = {}
        drawings: dict[str, bytes] = {}
        both, shape = self._made.diffusions, self._ae.image_shape
        if both is not None and self._bits:
            whole = jax.tree.map(lambda *parts: np.concatenate(parts), *self._bits)
            area = int(np.prod(shape[:-1]))
            shares = rate_split.average_rate_split(whole, both.prior_schedule, area)
            found |= _numbers(shares)
            drawings = self._drawings(shares)
        if "bound" in of:
            mean, sem = likelihood.bits_per_dimension(of["bound"], int(np.prod(shape)))
            found |= {"bound_bpd": mean, "bound_bpd_sem": sem}
        if "psnr" in self._metrics:
            found["psnr_db"] = float(reconstruction.psnr_from_mse(of["mse"]).mean())
            found["pooled_psnr_db"] = float(
                reconstruction.psnr_from_mse(of["mse"].mean())
            )
        found |= {k: float(of[k].mean()) for k in ("ssim", "lpips") if k in of}
        gaussians = {need: self._real.gaussian(need) for need in self._real.needs}
        against = Comparison(self._again, Reference(gaussians, None, {}))
        for name in self._metrics:
            if name in METRICS:
                found[name] = METRICS[name].value(against)
        return found, drawings

    def _drawings(self, shares: rate_split.RateSplit) -> dict[str, bytes]:
        assert self._shown is not None
        found = {"bits.png": bit_plots.curves(shares)}
        image, again = self._shown
        if image.ndim == 4:
            maps = bit_plots.maps(image[:MAPS], shares.bpp_by_position[:MAPS])
            found["bit-maps.png"] = maps
        else:
            both = np.concatenate([image[:PICTURES], again])
            found["clips.gif"] = image_grids.encode_gif(
                both, image_grids.GIF_FPS, zoom(image)
            )
        return found

    def picture(self) -> np.ndarray:
        """Originals above, reconstructions below."""
        assert self._shown is not None
        image, again = self._shown
        pairs = np.concatenate([image[:PICTURES], again])
        return image_grids.draw_grid(pairs, PICTURES, zoom(image))


def _protocol(
    request: Request,
    shared: Shared,
    ae: api.Autoencoder,
    made: Stage1,
    metrics: tuple[str, ...],
    count: int,
) -> dict[str, Any]:
    own = "" if made.codec.exact else "draw from the encoder's variance, "
    same: Mapping[str, Reference] = {}
    protocol: dict[str, Any] = {
        "split": "eval",
        "count": count,
        "seed": request.seed,
        "reconstruction": f"encode, {own}add logsnr-{made.codec.latent_logsnr:g} noise, decode",
        "sampler": sampler(ae.config) if made.codec.sampled else None,
    }
    said = {
        "psnr": "per image, peak 255, then the mean; pooled: of the mean squared error",
        "ssim": reconstruction.ssim_description(ae.image_shape),
        "rate": f"{ae.config.stage}: mean of {ae.config.eval.num_draws} draws an example",
        "bound": likelihood.DESCRIPTION,
        "reconstruction_frechet": f"{pixels.NAME}: not FID; against the same images",
        "rfid": "against the same images",
    }
    protocol |= {name: text for name, text in said.items() if name in metrics}
    protocol |= streaming.protocol(metrics, same, shared.networks)
    if "lpips" in metrics:
        network = shared.networks.get("lpips").protocol()
        protocol["networks"] = protocol["networks"] | {"lpips": network}
    return protocol


def _rate(
    ae: api.Autoencoder, objective: Callable, count: int, seed: int
) -> dict[str, Any]:
    """Every term of the objective on held-out images, in bits per pixel."""
    moments = held_out.HeldOut(objective, num_draws=ae.config.eval.num_draws)(
        ae.params,
        datasets.eval_batches(ae.config, datasets.dataset(ae.config, "eval"), count),
        api.seed_key(seed),
        batch_size=ae.config.eval.batch_size,
        prepare=lambda batch: batch,
        mesh=ae.mesh,
    )
    area, result = int(np.prod(ae.image_shape[:-1])), {}
    for name, m in moments.items():
        if name.endswith("_nats"):
            key = name.removesuffix("_nats") + "_bpp"
            result[key], result[f"{key}_sem"] = held_out.bits_per_pixel(m, area)
    return result


def _rows(images, first: int, total: int) -> dict[str, np.ndarray]:
    row = np.arange(first, first + len(images), dtype=np.int32)
    stratum = (row / total).astype(np.float32)
    return {"image": images, "row": row, "stratum": stratum}


def _split(
    ae: api.Autoencoder, both: Diffusions, rows: dict, seed: int, title: str
) -> rate_split.RateSplitNats:
    """The rate of some rows, split; with a `title`, under a bar."""
    return batching.map_rows(
        lambda image, row, stratum: rate_split.split_rate_nats(
            both.networks,
            both.prior_schedule,
            ae.params,
            image,
            row,
            stratum,
            api.seed_key(seed),
            num_draws=max(ae.config.eval.num_draws, DRAWS_OF_A_MAP),
        ),
        rows,
        batch_size=ae.config.eval.batch_size,
        mesh=ae.mesh,
        title=title,
    )


def where_bits_go(
    ae: api.Autoencoder, both: Diffusions, images, seed: int
) -> rate_split.RateSplit:
    """The rate of uint8 images [N, H, W, C], split; under a bar."""
    rows = _rows(images, 0, len(images))
    found = _split(ae, both, rows, seed, title="where the bits go")
    return rate_split.average_rate_split(
        found, both.prior_schedule, int(np.prod(ae.image_shape[:-1]))
    )


def _numbers(shares: rate_split.RateSplit) -> dict[str, Any]:
    """Where the bits go, as a record keeps it."""
    return {
        "bits_by_logsnr": {
            "logsnr": shares.logsnr.tolist(),
            "bpp_per_unit": shares.bpp_by_logsnr.tolist(),
            "sem": shares.bpp_by_logsnr_sem.tolist(),
        },
        "bits_by_channel": {
            "bpp": shares.bpp_by_channel.tolist(),
            "sem": shares.bpp_by_channel_sem.tolist(),
        },
    }


def _bound_nats(ae, both: Diffusions, rows: dict, seed: int) -> np.ndarray:
    """The likelihood bound of some rows, nats [N]."""
    return batching.map_rows(
        lambda image, row, stratum: likelihood.bound_nats(
            both.networks,
            both.prior_schedule,
            both.decoder_schedule,
            ae.params,
            image,
            row,
            stratum,
            api.seed_key(seed),
            num_draws=ae.config.eval.num_draws,
        ),
        rows,
        batch_size=ae.config.eval.batch_size,
        mesh=ae.mesh,
    )


def _optimum(parsed) -> dict[str, float]:
    """The exact optimum, where data are Gaussian and the objective is UL's."""
    if type(parsed) is not JointConfig or parsed.data.source["kind"] != "gaussian":
        return {}
    known = {k: parsed.data.source[k] for k in ("exponent", "std")}
    variances = gaussian.coefficient_variances(parsed.data.image_shape, **known).ravel()
    precision = waterfilling.posterior_precision(
        parsed.loss.weighting.factor, parsed.loss.weighting.bias
    )
    area = int(np.prod(parsed.data.image_shape[:-1]))
    distortion = float(waterfilling.distortion(variances, precision))
    return {
        "optimum_bpp": float(waterfilling.rate_bits(variances, precision)) / area,
        "optimum_psnr_db": reconstruction.posterior_sample_psnr_db(
            distortion, len(variances)
        ),
    }


def _gaussian_bound(parsed, rate_bits: float, sampled: bool) -> float | None:
    """PSNR at that rate if the training images were Gaussian; None if they are too few
    for their dimensions, or those too many for one covariance."""
    dimensions = int(np.prod(parsed.data.image_shape))
    enough = EXAMPLES_PER_DIMENSION * dimensions
    too_few = len(datasets.plain_train(parsed)) < enough
    if too_few or dimensions > MOST_DIMENSIONS or rate_bits <= 0:
        return None
    train = datasets.collect(parsed, "train", max(enough, 10_000))["image"]
    variances = reconstruction.covariance_spectrum(train)
    return reconstruction.gaussian_psnr_db(
        variances, rate_bits, posterior_samples=sampled
    )
