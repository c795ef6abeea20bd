"""Do samples show what was asked for? Judges that learned from real images are asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ul.config import Stage2Config
from ul.data import datasets
from ul.data.sources.colored_digits import ColoredDigits
from ul.inference import api
from ul.metrics import moving_digits, streaming
from ul.metrics.classifier import SvmClassifier
from ul.stages import registry

Rows = Mapping[str, np.ndarray]  # [N] by metric: bool, or a distance


class Judge(Protocol):
    """right: which images show what was asked, or how far they are from it. real: of
    held-out images, the same."""

    real: Rows

    def right(self, image: np.ndarray, asked: Mapping, first: int) -> Rows: ...


class Classes:
    """The class that was asked for."""

    def __init__(self, gen: api.Generator):
        train = datasets.collect(gen.config, "train", streaming.FULL)
        held_out = datasets.collect(gen.config, "eval", streaming.FULL)
        self._classifier = SvmClassifier(train["image"], train["label"])
        self.real = self.right(held_out["image"], held_out, 0)

    def right(self, image: np.ndarray, asked: Mapping, first: int) -> Rows:
        """Whether each image is of its class."""
        found = self._classifier.predict(image)
        return {"class_accuracy": found == asked["label"]}


class Words:
    """The digit and the colour in the caption of colored_digits; in grey, by the pixels'
    largest channel, and by all of them."""

    def __init__(self, gen: api.Generator):
        train, self._source = (
            datasets.source(gen.config, s) for s in ("train", "eval")
        )
        image, label = _whole(train)
        grey = _grey(image)
        # Every digit comes in all colours: once is enough.
        _, once = np.unique(grey.reshape(len(grey), -1), axis=0, return_index=True)
        self._digit = SvmClassifier(grey[once], label[once])
        self._colour = SvmClassifier(image, _colours(train, range(len(train))))
        image, label = _whole(self._source)
        self.real = self.right(image, {"label": label}, 0)

    def right(self, image: np.ndarray, asked: Mapping, first: int) -> Rows:
        """Whether image i shows what the caption of held-out example first + i says."""
        rows = (i % len(self._source) for i in range(first, first + len(image)))
        digit = self._digit.predict(_grey(image)) == asked["label"]
        colour = self._colour.predict(image) == _colours(self._source, rows)
        return {
            "text_accuracy": digit & colour,
            "text_accuracy_digit": digit,
            "text_accuracy_colour": colour,
        }


class Motion:
    """Of a moving digit's first frames: does it stay what it is, and go where it went?

    Beside its distance from there, that of a digit that stands still from the last frame
    given on.
    """

    def __init__(self, gen: api.Generator):
        assert isinstance(gen.config, Stage2Config)
        train = datasets.collect(gen.config, "train", CLIPS)
        held_out = datasets.collect(gen.config, "eval", CLIPS)
        self._few = gen.config.context_frames
        self._judge = moving_digits.MovingDigitClassifier(
            train["image"], train["label"], frames=FRAMES
        )
        self.real = self.right(held_out["image"], held_out, 0)

    def right(self, image: np.ndarray, asked: Mapping, first: int) -> Rows:
        """Over the frames that were not given, against the example they are of."""
        rest, real = slice(self._few, None), asked["image"]
        held = real[:, self._few - 1 : self._few].repeat(real.shape[1] - self._few, 1)
        wanted = moving_digits.locate(real[:, rest])

        def away(clips):
            far = np.linalg.norm(moving_digits.locate(clips) - wanted, axis=-1)
            return far.mean(-1)

        return {
            "identity_kept": self._judge.predict(image, rest) == asked["label"],
            "position_error_px": away(image[:, rest]),
            "position_error_standing_px": away(held),
        }


def _whole(source: ColoredDigits) -> tuple[np.ndarray, np.ndarray]:
    """All images and their labels, in order."""
    found = [source[i] for i in range(len(source))]
    return np.stack([f["image"] for f in found]), np.asarray(
        [f["label"] for f in found]
    )


def _colours(source: ColoredDigits, rows) -> np.ndarray:
    return np.asarray([source.color_index(i) for i in rows])


def _grey(image: np.ndarray) -> np.ndarray:
    return image.max(-1, keepdims=True)


JUDGES: dict[str, Callable[[api.Generator], Judge]] = {
    "class_accuracy": Classes,
    "text_accuracy": Words,
    "identity_kept": Motion,
}
# Of moving digits: so many real clips, and frames of each, teach which digit is which.
CLIPS, FRAMES = 2048, 4


def obstacle(name: str, gen: api.Generator) -> str | None:
    """Why no judge of that name sits over such a run; None if one can."""
    kind = gen.config.data.source["kind"]
    conditions = registry.conditions(gen.config)
    fits = {
        "class_accuracy": kind == "digits",
        "text_accuracy": kind == "colored_digits" and "text" in conditions,
        "identity_kept": kind == "moving_digits" and "context" in conditions,
    }
    return None if fits[name] else "not for a run of this kind"


class Bench:
    """All judges of an evaluation; what they said of every sample so far."""

    def __init__(self, gen: api.Generator, metrics: Sequence[str]):
        self._judges = [JUDGES[name](gen) for name in metrics if name in JUDGES]
        self._right: dict[str, float] = {}
        self._count = 0

    def see(self, image: np.ndarray, asked: Mapping) -> None:
        """The next samples, in order, and what was asked."""
        for judge in self._judges:
            for name, right in judge.right(image, asked, self._count).items():
                self._right[name] = self._right.get(name, 0.0) + float(right.sum())
        self._count += len(image)

    def shares(self) -> dict[str, float]:
        """Means over the samples, and over held-out real images as `.._real`."""
        found = {name: right / self._count for name, right in self._right.items()}
        return found | dict(self._of_real())

    def _of_real(self) -> Iterator[tuple[str, float]]:
        for judge in self._judges:
            for name, right in judge.real.items():
                yield f"{name}_real", float(np.mean(right))
