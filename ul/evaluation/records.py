"""The files of an evaluation: a JSON with its protocol, and pictures beside it."""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from ul.core import files, sealed_json
from ul.core.errors import DataError
from ul.core.files import write_atomic
from ul.core.provenance import code_version
from ul.evaluation.request import Request
from ul.metrics import registry
from ul.metrics.metric import GENERATION
from ul.stages.stage import Stage
from ul.train import image_grids
from ul.train.writer import save_bytes, save_png

NUM_PICTURES = 10
# Pictures of smaller images are magnified to this height.
PICTURE_HEIGHT = 48


def check_count(count: int) -> None:
    """Raise DataError for fewer than two held-out images."""
    if count < 2:
        raise DataError(
            f"An evaluation needs at least 2 held-out images; the data source has {count}."
        )


def zoom(images: np.ndarray) -> int:
    """Return by how much a picture of images [..., H, W, C] is magnified."""
    return max(1, PICTURE_HEIGHT // images.shape[-3])


def animation(examples: np.ndarray) -> dict[str, bytes]:
    """Return clips as one GIF, by the end of its file name; nothing for images."""
    if examples.ndim == 4:
        return {}
    gif = image_grids.encode_gif(examples, image_grids.GIF_FPS, zoom(examples))
    return {"clips.gif": gif}


def sampler_protocol(stage: Stage) -> dict | None:
    """Return how a stage samples; None for an imported one, which does not sample."""
    return None if stage.sampling is None else vars(stage.sampling)


def evaluation_folder(workdir) -> epath.Path:
    """Create workdir/evals and return it. Call it before anything expensive.

    Raises:
      StorageError: it cannot be created.
    """
    folder = epath.Path(workdir) / "evals"
    files.make_directory(folder)
    return folder


def counted_titles(keys: Mapping[str, Any], count: int) -> dict[str, str]:
    """Return the column titles that name the count of examples, as "FID@500", by key."""
    titles = {
        column.key: metric.column_title(column, count)
        for metric, column in registry.columns()
        if metric.column_title(column, count) != column.title
    }
    return {key: titles[key] for key in keys if key in titles}


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The numbers of one evaluation, and all that its JSON says about them.

    loaded: the Autoencoder or Generator of ul.inference.api. stem: how the file names
    begin. skipped: why a metric is missing, by its name.
    """

    evaluation: str
    stem: str
    loaded: Any
    request: Request
    numbers: Mapping[str, Any]
    skipped: Mapping[str, str]
    protocol: Mapping[str, Any]

    def name(self) -> str:
        """Return <stem>-<step>-<weights>-seed<seed>-n<count>, the name of the files.

        A digest follows where metrics, labels or the reference are not the default.
        """
        weights = self.loaded.weights.replace(":", "")
        name = f"{self.stem}-{self.loaded.step}-{weights}"
        name += f"-seed{self.request.seed}-n{self.numbers['num_examples']}"
        changed = {
            "metrics": self.request.metrics,
            "labels": None if self.request.labels == "cyclic" else self.request.labels,
            "reference": self.request.reference,
        }
        if self.request.autoguidance is not None:
            changed["autoguidance"] = self.request.autoguidance
        if "decoder_run" in self.numbers:
            changed["decoder_run"] = self.numbers["decoder_run"]
        if any(changed.values()):
            digest = hashlib.sha256(json.dumps(changed).encode()).hexdigest()
            name += f"-{digest[:8]}"
        return name

    def content(self, workdir) -> dict[str, Any]:
        """Return the JSON without its date."""
        count = self.numbers["num_examples"]
        sources = self.loaded.ema_sources
        return {
            "evaluation": self.evaluation,
            "step": self.loaded.step,
            "weights": self.loaded.weights,
            **({"ema_sources": sources} if sources else {}),
            "seed": self.request.seed,
            **self.numbers,
            "titles": counted_titles(self.numbers, count),
            "skipped": dict(self.skipped),
            "command": self.request.command(
                generation=self.evaluation == GENERATION,
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
    folder: epath.Path,
    result: EvaluationResult,
    picture: np.ndarray,
    figures: Mapping[str, bytes],
) -> dict:
    """Write <name>.json, a picture and the figures (by the ends of their names) to a folder.

    Returns the content of the JSON.

    Raises:
      StorageError: a file cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = result.content(folder.parent) | {"date": now}
    save_png(folder / f"{result.name()}.png", picture)
    for end, figure in figures.items():
        save_bytes(folder / f"{result.name()}-{end}", figure)
    content = sealed_json.seal(content)
    write_atomic(folder / f"{result.name()}.json", json.dumps(content, indent=2))
    return content
