"""Requests: which run is evaluated and how, and the command that repeats it."""

import dataclasses
import math
import shlex
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from ul.core import rng
from ul.core.errors import ConfigError
from ul.inference import api
from ul.metrics import registry
from ul.metrics.metric import Metric

LABELS = ("cyclic", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One evaluation of one checkpoint of a run.

    step: None means the newest. num_examples: number of held-out images (None: the
    config's number) or samples (the same). metrics: names of the metrics; None means all
    that can be measured. weights_dir: directory with the weights of the feature networks.
    reference: an .npz of statistics; None compares with the training images. npz: a file
    that the samples are also written to.
    autoguidance: the guiding model, WORKDIR[:step][@weights]. decoded: measure decoded
    training images, too, even if the config does not.

    Raises:
      ConfigError: a value that no run supports.
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
    autoguidance: str | None = None
    decoded: bool = False

    def __post_init__(self):
        if self.num_examples is not None and self.num_examples < 2:
            raise ConfigError(
                f"--num_examples must be at least 2; got {self.num_examples}."
            )
        if not math.isfinite(self.guidance):
            raise ConfigError(
                f"--guidance must be a finite number; got {self.guidance}."
            )
        if self.labels not in LABELS:
            raise ConfigError(
                f"--labels must be one of {', '.join(LABELS)}; got {self.labels!r}."
            )
        check_metrics(self.metrics or (), registry.names())

    def command(self, *, generation: bool, step: int, num_examples: int) -> str:
        """Return the command that reproduces these numbers even if newer checkpoints exist."""
        flags: dict[str, object] = {
            "workdir": self.workdir,
            "step": step,
            "weights": self.weights,
            "seed": self.seed,
            "num_examples": num_examples,
        }
        if generation:
            flags |= {"guidance": f"{self.guidance!r}", "labels": self.labels}
        optional = {
            "metrics": ",".join(self.metrics) if self.metrics else None,
            "stage1_workdir": self.stage1,
            "weights_dir": self.weights_dir,
            "reference": self.reference if generation else None,
            "npz": self.npz if generation else None,
            "autoguidance": self.autoguidance if generation else None,
        }
        flags |= {name: value for name, value in optional.items() if value is not None}
        words = ["python", "-m", "ul", "evaluate"]
        return shlex.join([*words, *(f"--{name}={v}" for name, v in flags.items())])


def check_metrics(requested: Iterable[str], known: Sequence[str]) -> None:
    """Raise ConfigError for a requested metric that is not among the known names."""
    for name in requested:
        if name not in known:
            raise ConfigError(
                f"--metrics must be names from {', '.join(known)}; got {name!r}."
            )


def select_metrics(
    requested: Sequence[str] | None,
    candidates: Sequence[Metric],
    shape: tuple[int, ...],
) -> tuple[Metric, ...]:
    """Return the candidates to measure on examples of a shape: the requested, or all.

    Raises:
      ConfigError: a metric was requested by name that is not defined for such examples.
    """
    if requested is None:
        return tuple(m for m in candidates if m.supports(shape))
    selected = tuple(m for m in candidates if m.name in requested)
    for metric in selected:
        if not metric.supports(shape):
            raise ConfigError(
                f"--metrics {metric.name} needs {' or '.join(metric.data)}; the examples "
                f"of this run have the shape {list(shape)}. Remove it from "
                "--metrics."
            )
    return selected


def sample_labels(request: Request, count: int, num_classes: int) -> np.ndarray:
    """Return the labels [count] of samples: in turn, or drawn by row and seed."""
    row = np.arange(count, dtype=np.int32)
    if request.labels == "cyclic":
        return row % num_classes
    key = rng.stream(api.seed_key(request.seed), "labels")
    uniform = np.asarray(rng.uniform(key, jnp.asarray(row)))
    return np.minimum((uniform * num_classes).astype(np.int32), num_classes - 1)


def label_protocol(request: Request) -> str:
    """Return how the labels of samples were chosen."""
    if request.labels == "cyclic":
        return "i mod num_classes"
    return "uniformly random, drawn by seed and i"
