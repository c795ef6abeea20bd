"""The outputs of a run: metrics.jsonl, TensorBoard, W&B, images, parameters.txt."""

import io
import json
import logging
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from clu import parameter_overview
from etils import epath

from ul.core import extras, trees
from ul.core.errors import StorageError
from ul.core.files import make_directory, write_atomic
from ul.train.curves import parse_metrics_line
from ul.train.image_grids import to_pil

log = logging.getLogger("ul")


def save_bytes(path: epath.Path, content: bytes) -> None:
    """Write a file at once, and its directory if needed.

    Raises:
      StorageError: the file cannot be written.
    """
    make_directory(path.parent)
    write_atomic(path, content)


def save_png(path: epath.Path, image: np.ndarray) -> None:
    """Write a uint8 image [H, W, 1 or 3] as PNG, and its directory if needed.

    Raises:
      StorageError: the file cannot be written.
    """
    content = io.BytesIO()
    to_pil(image).save(content, "PNG")
    save_bytes(path, content.getvalue())


class MetricsWriter:
    """Writes scalars to metrics.jsonl, and to TensorBoard and W&B if they are enabled.

    A failure to write never stops a run and is logged once. A tracker that failed is
    disabled. The file and the images are tried again each time, because a full disk may
    have space again.
    """

    def __init__(
        self, workdir, start: int, *, tensorboard: bool, wandb: bool, config: dict
    ):
        """Open the files of a run that continues from step `start`.

        Lines of later steps are removed, because the resumed run writes them again.
        """
        self._workdir = epath.Path(workdir)
        self._failed: set[str] = set()
        self._file: IO[str] | None = None
        self._try("metrics.jsonl", lambda: self._open_metrics(start))
        self._trackers: dict[str, Any] = {}
        if tensorboard:
            self._try("tensorboard", lambda: self._open_tensorboard(start))
        if wandb:
            tracker = _wandb(self._workdir, config)
            self._trackers |= {"wandb": tracker} if tracker else {}

    def _open_metrics(self, start: int) -> None:
        path = self._workdir / "metrics.jsonl"
        if path.exists():
            content = path.read_bytes()
            kept = _lines_until(content, start)
            if kept != content:
                write_atomic(path, kept)
        self._file = path.open("a")

    def _open_tensorboard(self, start: int) -> None:
        self._trackers["tensorboard"] = _tensorboard(self._workdir, start)

    def write_parameters(self, params) -> None:
        """Write parameters.txt: name, shape and size of each; the totals are logged."""
        table = parameter_overview.get_parameter_overview(params, include_stats=False)
        path = self._workdir / "parameters.txt"
        self._try(path.name, lambda: path.write_text(table + "\n"))
        networks = ", ".join(
            f"{name} {trees.num_elements(tree) / 1e6:.2f}M"
            for name, tree in params.items()
        )
        total = trees.num_elements(params) / 1e6
        log.info("%.2fM parameters (%s), listed in parameters.txt", total, networks)

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        """Write one line of metrics.jsonl, and the same values to the trackers."""
        self._try("metrics.jsonl", lambda: self._write_line({"step": step} | values))
        self._track(
            "tensorboard",
            lambda t: [t.add_scalar(_tag(k), v, step) for k, v in values.items()],
        )
        self._track("wandb", lambda t: t.log(values, step=step))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write samples/<name>-<step>.png, and the same image to TensorBoard."""
        path = self._workdir / "samples" / f"{name}-{step:08d}.png"
        self._try(path.parent.name, lambda: save_png(path, image))
        self._track(
            "tensorboard",
            lambda t: t.add_image(f"eval/{name}", image, step, dataformats="HWC"),
        )

    def _write_line(self, record: dict) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def _try(self, name: str, write: Callable[[], Any]) -> None:
        try:
            write()
        except (OSError, StorageError) as e:
            if name not in self._failed:
                log.warning("%s cannot be written, but training continues: %s", name, e)
            self._failed.add(name)

    def _track(self, name: str, write: Callable[[Any], Any]) -> None:
        if name in self._trackers:
            try:
                write(self._trackers[name])
            except Exception as e:  # No error of a tracker may end the run.
                log.warning("%s failed and is disabled from here on: %s", name, e)
                del self._trackers[name]

    def close(self) -> None:
        """Close the file and the trackers."""
        if self._file is not None:
            self._try("metrics.jsonl", self._file.close)
        self._track("tensorboard", lambda t: t.close())
        self._track("wandb", lambda t: t.finish())


class NullWriter:
    """The writer of all processes but the first; it writes nothing."""

    def write_parameters(self, params) -> None:
        pass

    def write_scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        pass

    def close(self) -> None:
        pass


def _lines_until(content: bytes, last: int) -> bytes:
    """Return the lines of metrics.jsonl up to step `last`. They are sorted by step.

    Lines are read from the end, so that a long file is not parsed as a whole. An incomplete
    last line, which a kill may leave, is removed with the later steps.
    """
    end, num_broken = len(content), 0
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        record = parse_metrics_line(content[begin:end].decode(errors="replace"))
        is_whole = content[end - 1 : end] == b"\n"
        if record is not None and record["step"] <= last and is_whole:
            break
        num_broken += record is None
        end = begin
    if num_broken > 1:
        log.warning("metrics.jsonl: removed %d lines that are no records", num_broken)
    return content[:end]


def _tag(name: str) -> str:
    """Return the TensorBoard tag of a scalar; held-out ones have a group of their own."""
    is_held_out = name.startswith("eval_")
    return f"eval/{name.removeprefix('eval_')}" if is_held_out else f"train/{name}"


def _tensorboard(workdir: epath.Path, start: int):
    import tensorboardX  # takes a second, which other commands need not wait

    # purge_step hides what a killed run logged after its last checkpoint.
    return tensorboardX.SummaryWriter(
        str(workdir / "tensorboard"), purge_step=start or None
    )


def _wandb(workdir: epath.Path, config: dict):
    wandb = extras.require("wandb", "log.wandb", "wandb", "wandb")
    # Directories of the same name in different places hold different runs.
    path_hash = zlib.crc32(str(workdir.resolve()).encode())
    try:
        return wandb.init(
            dir=str(workdir),
            config=config,
            id=f"{workdir.name}-{path_hash:08x}",
            resume="allow",
        )
    except Exception as e:  # Without login or network the run continues untracked.
        log.warning("wandb is disabled: %s", e)
        return None
