"""Where an evaluation lands: a JSON record with its protocol, pictures beside it."""

import collections
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.config import RunConfig, TrainConfig
from ul.core.errors import DataError, StorageError
from ul.core.files import write_atomic
from ul.core.provenance import code_version
from ul.evaluation.request import Request
from ul.metrics import streaming
from ul.train.writer import save_bytes, save_png

PICTURES = 10


def check_count(count: int) -> None:
    """Raises DataError for fewer than two held-out images."""
    if count < 2:
        raise DataError("the data hold out one image; an evaluation needs two or more")


def zoom(images: np.ndarray) -> int:
    return max(1, 48 // images.shape[-3])


def sampler(parsed: RunConfig) -> dict | None:
    """How a stage samples, for a protocol; None of what is imported: it does not."""
    return vars(parsed.sampling) if isinstance(parsed, TrainConfig) else None


def folder(workdir) -> epath.Path:
    """workdir/evals, made before anything expensive.

    Raises:
      StorageError: it cannot be made.
    """
    where = epath.Path(workdir) / "evals"
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{where} cannot be made: {e}") from e
    return where


def say_skipped(skipped: Mapping[str, str]) -> None:
    """A line for each reason, with the metrics that it keeps from being measured."""
    names = collections.defaultdict(list)
    for name, reason in skipped.items():
        names[reason].append(name)
    for reason, these in names.items():
        print(f"skipped: {', '.join(these)}: {reason}", flush=True)


@dataclasses.dataclass(frozen=True)
class Record:
    """What an evaluation of `loaded` (api's Autoencoder or Generator) found."""

    evaluation: str
    stem: str
    loaded: Any
    request: Request
    result: Mapping[str, Any]
    skipped: Mapping[str, str]
    protocol: Mapping[str, Any]

    def name(self) -> str:
        """<stem>-<step>-<weights>-seed<seed>-n<count>, and what was not the usual: other
        metrics, labels, a reference."""
        weights = self.loaded.weights.replace(":", "")
        name = f"{self.stem}-{self.loaded.step}-{weights}"
        name += f"-seed{self.request.seed}-n{self.result['num_examples']}"
        unusual = {
            "metrics": self.request.metrics,
            "labels": None if self.request.labels == "cyclic" else self.request.labels,
            "reference": self.request.reference,
        }
        if self.request.guide is not None:  # names from before guides stay
            unusual["guide"] = self.request.guide
        if any(unusual.values()):
            text = json.dumps(unusual)
            name += f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return name

    def content(self, workdir) -> dict[str, Any]:
        """The JSON, but for when it was written."""
        count = self.result["num_examples"]
        titles = {name: streaming.printed(name, count) for name in self.result}
        return {
            "evaluation": self.evaluation,
            "step": self.loaded.step,
            "weights": self.loaded.weights,
            **({"weights_made_of": of} if (of := self.loaded.ema_sources) else {}),
            "seed": self.request.seed,
            **self.result,
            "printed": {name: title for name, title in titles.items() if title},
            "skipped": dict(self.skipped),
            "command": self.request.command(
                generation=self.evaluation == "generation",
                step=self.loaded.step,
                num_examples=count,
            ),
            "protocol": dict(self.protocol),
            "workdir": str(workdir),
            "code_version": code_version(),
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
        }


def write(
    folder, record: Record, picture, drawings: Mapping[str, bytes] | None = None
) -> dict:
    """evals/<name>.json, a picture beside it, and `drawings` (by the ends of their names).

    Raises:
      StorageError: the disk refuses.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = record.content(folder.parent) | {"written": now}
    save_png(folder / f"{record.name()}.png", picture)
    for end, content_of in (drawings or {}).items():
        save_bytes(folder / f"{record.name()}-{end}", content_of)
    write_atomic(folder / f"{record.name()}.json", json.dumps(content, indent=2))
    return content
