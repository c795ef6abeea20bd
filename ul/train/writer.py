"""What a run says: metrics.jsonl, TensorBoard, W&B, pictures, the parameter table."""

import json
import logging
import zlib
from typing import Any

import numpy as np
from clu import parameter_overview
from etils import epath
from PIL import Image

from ul.core import trees
from ul.core.errors import ConfigError, StorageError
from ul.core.files import write_atomic

log = logging.getLogger("ul")


def grid(images: np.ndarray, columns: int, scale: int = 1) -> np.ndarray:
    """[N, H, W, C] uint8 to one picture with a thin frame, each pixel `scale` wide."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    sheet = np.full(
        (rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 40, np.uint8
    )
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)


def save_bytes(path: epath.Path, content: bytes) -> None:
    """Raises:
    StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e


def save_png(path: epath.Path, image: np.ndarray) -> None:
    """uint8 [H, W, 1 or 3] to a PNG file.

    Raises:
      StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as f:
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
                f, "PNG"
            )
    except OSError as e:
        raise StorageError(f"{path} cannot be written: {e}") from e


class Writer:
    """Scalars go to metrics.jsonl always, to TensorBoard and W&B where asked.

    Telling never stops a run: a failure is said once. A tracker is then off; the file
    and the pictures are tried again each time, for a full disk may be emptied.
    """

    def __init__(
        self, workdir, start: int, *, tensorboard: bool, wandb: bool, config: dict
    ):
        """Lines beyond step `start` are dropped: the resumed run says them again."""
        self._workdir = epath.Path(workdir)
        path = self._workdir / "metrics.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    kept += [line] if json.loads(line)["step"] <= start else []
                except (ValueError, KeyError):
                    pass  # a line cut short by a kill
            write_atomic(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._trackers: dict[str, Any] = {}
        self._failed: set[str] = set()
        if tensorboard:
            self._trackers["tensorboard"] = _tensorboard(self._workdir, start)
        if wandb:
            tracker = _wandb(self._workdir, config)
            self._trackers |= {"wandb": tracker} if tracker else {}

    def parameters(self, params) -> None:
        """parameters.txt: every name, shape and size; the log has the totals."""
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        path = self._workdir / "parameters.txt"
        self._try(path.name, lambda: path.write_text(table + "\n"))
        parts = ", ".join(f"{k} {trees.size(v) / 1e6:.2f}M" for k, v in params.items())
        total = trees.size(params) / 1e6
        log.info("%.2fM parameters (%s): parameters.txt", total, parts)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._try("metrics.jsonl", lambda: self._line({"step": step} | values))
        self._track(
            "tensorboard",
            lambda t: [t.add_scalar(k, v, step) for k, v in values.items()],
        )
        self._track("wandb", lambda t: t.log(values, step=step))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture: samples/<name>-<step>.png, and to TensorBoard."""
        path = self._workdir / "samples" / f"{name}-{step:08d}.png"
        self._try(path.parent.name, lambda: save_png(path, image))
        self._track(
            "tensorboard", lambda t: t.add_image(name, image, step, dataformats="HWC")
        )

    def _line(self, record: dict) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _try(self, what: str, call) -> None:
        try:
            call()
        except (OSError, StorageError) as e:
            if what not in self._failed:
                log.warning("%s cannot be written, training goes on: %s", what, e)
            self._failed.add(what)

    def _track(self, name: str, call) -> None:
        if name in self._trackers:
            try:
                call(self._trackers[name])
            except Exception as e:  # a tracker's trouble is never the run's
                log.warning("%s failed and is off from here: %s", name, e)
                del self._trackers[name]

    def close(self) -> None:
        self._try("metrics.jsonl", self._file.close)
        self._track("tensorboard", lambda t: t.close())
        self._track("wandb", lambda t: t.finish())


class Silent:
    """The writer of every process but the first."""

    def parameters(self, params) -> None:
        pass

    def scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        pass

    def close(self) -> None:
        pass


def _tensorboard(workdir: epath.Path, start: int):
    try:
        import tensorboardX
    except ImportError as e:
        raise ConfigError(
            "log.tensorboard needs tensorboardX: pip install 'unified-latents[tensorboard]'"
        ) from e
    # purge_step hides what a killed run logged beyond its checkpoint.
    return tensorboardX.SummaryWriter(
        str(workdir / "tensorboard"), purge_step=start or None
    )


def _wandb(workdir: epath.Path, config: dict):
    try:
        import wandb
    except ImportError as e:
        raise ConfigError(
            "log.wandb needs wandb: pip install 'unified-latents[wandb]'"
        ) from e
    # Runs of one name in different places are different runs.
    place = zlib.crc32(str(workdir.resolve()).encode())
    try:
        return wandb.init(
            dir=str(workdir),
            config=config,
            id=f"{workdir.name}-{place:08x}",
            resume="allow",
        )
    except (
        Exception
    ) as e:  # no login, no network: a tracker's trouble is never the run's
        log.warning("wandb is off: %s", e)
        return None
