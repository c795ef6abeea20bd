"""What is to be evaluated and how, and the command that does it again."""

import dataclasses
import math
import shlex
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ul.core import rng
from ul.core.errors import ConfigError
from ul.inference import api
from ul.metrics.streaming import METRICS

RECONSTRUCTION = (
    "rate",
    "bits",
    "bound",
    "psnr",
    "ssim",
    "lpips",
    "rfid",
    "reconstruction_frechet",
    "gaussian_psnr",
)
GENERATION = (
    "frechet",
    "fid",
    "sfid",
    "inception_score",
    "precision",
    "recall",
    "fd_dinov2",
    "fvd",
    "base_rate",
    "class_accuracy",
    "text_accuracy",
    "identity_kept",
    "clip_score",
)
LABELS = ("cyclic", "random")
# Samples, where nothing is said.
SAMPLES = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One evaluation of one checkpoint of a run.

    step: None is the newest. num_examples: held-out images (None: the config's) or
    samples (None: 500). metrics: names; None is all that can be measured. weights_dir:
    of the feature networks. reference: an .npz of statistics; None takes the training
    images. npz: where the samples go as well. guide: WORKDIR[:step][@weights].

    Raises:
      ConfigError: at once, for what no run has.
    """

    workdir: str
    step: int | None = None
    weights: str = "ema"
    seed: int = 0
    num_examples: int | None = None
    guidance: float = 1.0
    labels: str = "cyclic"
    metrics: tuple[str, ...] | None = None
    stage1: str | None = None
    weights_dir: str | None = None
    reference: str | None = None
    npz: str | None = None
    guide: str | None = None

    def __post_init__(self):
        if self.num_examples is not None and self.num_examples < 2:
            raise ConfigError(
                f"--num_examples is {self.num_examples}; it must be at least 2"
            )
        if not math.isfinite(self.guidance):
            raise ConfigError(f"--guidance {self.guidance} is not a finite number")
        if self.labels not in LABELS:
            raise ConfigError(
                f"--labels {self.labels!r} is unknown; known are {', '.join(LABELS)}"
            )
        known(self.metrics or (), (*RECONSTRUCTION, *GENERATION))

    def command(self, *, generation: bool, step: int, num_examples: int) -> str:
        """The command line that gives the same numbers, whatever is newest then."""
        flags: dict[str, object] = {
            "workdir": self.workdir,
            "step": step,
            "weights": self.weights,
            "seed": self.seed,
            "num_examples": num_examples,
        }
        if generation:
            flags |= {"guidance": f"{self.guidance!r}", "labels": self.labels}
        more = {
            "metrics": ",".join(self.metrics) if self.metrics else None,
            "stage1_workdir": self.stage1,
            "weights_dir": self.weights_dir,
            "reference": self.reference if generation else None,
            "npz": self.npz if generation else None,
            "guide": self.guide if generation else None,
        }
        flags |= {name: value for name, value in more.items() if value is not None}
        words = ["python", "-m", "launch.evaluate"]
        return shlex.join([*words, *(f"--{name}={v}" for name, v in flags.items())])


def known(metrics: Sequence[str], names: Sequence[str]) -> None:
    """Raises ConfigError for a metric that is not among `names`."""
    for metric in metrics:
        if metric not in names:
            raise ConfigError(
                f"--metrics has unknown {metric!r}; known are {', '.join(names)}"
            )


def wanted(
    metrics: Sequence[str] | None, of: Sequence[str], shape: tuple[int, ...]
) -> tuple[str, ...]:
    """Metrics of one evaluation `of` a kind, for data of that shape; all if None.

    Raises:
      ConfigError: one is asked for by name that such data have not.
    """

    def fits(name: str) -> bool:
        return name not in METRICS or METRICS[name].rank == len(shape)

    if metrics is None:
        return tuple(name for name in of if fits(name))
    for name in metrics:
        if name in of and not fits(name):
            kind = "videos [T, H, W, C]" if METRICS[name].rank == 4 else "images"
            raise ConfigError(f"{name} needs {kind}; these data are {list(shape)}")
    return tuple(name for name in of if name in metrics)


def label_of(request: Request, count: int, num_classes: int) -> np.ndarray:
    """Labels [count] to sample: round the classes, or drawn by row and seed."""
    row = np.arange(count, dtype=np.int32)
    if request.labels == "cyclic":
        return row % num_classes
    key = rng.stream(api.seed_key(request.seed), "labels")
    drawn = np.asarray(rng.uniform(key, jnp.asarray(row)))
    return np.minimum((drawn * num_classes).astype(np.int32), num_classes - 1)


def label_protocol(request: Request) -> str:
    if request.labels == "cyclic":
        return "i mod num_classes"
    return "uniformly random, drawn by seed and i"
