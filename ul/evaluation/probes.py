"""Probes: whether samples show their condition, judged by classifiers of real images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ul.data.sources.colored_digits import ColoredDigits
from ul.evaluation import prompts
from ul.evaluation.context import EvaluatedGenerator
from ul.evaluation.measurement import EvaluatedExample, Measurement, Obstacle
from ul.metrics import moving_digits, streaming
from ul.metrics.classifier import SvmClassifier
from ul.metrics.clip_score import ClipScore

# The real clips, and the frames of each, that teach which moving digit is which.
NUM_CLIPS, NUM_FRAMES = 2048, 4


class Probe(Measurement):
    """Means over the samples of the predictions of a classifier trained on real images.

    real: the same values of held-out real images; their means are in the result, too,
    under `<key>_real`. The constructor trains the classifier and sets it.
    """

    real: Mapping[str, np.ndarray]

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def scores(
        self, image: np.ndarray, example: EvaluatedExample, first: int
    ) -> dict[str, np.ndarray]:
        """Return a value [N] of each image by key: whether it is right, or an error."""
        raise NotImplementedError

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        for name, values in self.scores(image, example, first).items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.sum())
        self._count += len(image)

    def result(self) -> dict[str, Any]:
        samples = {name: total / self._count for name, total in self._sums.items()}
        real = {f"{n}_real": float(np.mean(values)) for n, values in self.real.items()}
        return samples | real

    def protocol(self) -> dict[str, Any]:
        return {"classifier": f"{SvmClassifier.name}, trained on the training split"}


class ClassProbe(Probe):
    """Whether samples of digits show the class of their label."""

    def __init__(self, run: EvaluatedGenerator):
        super().__init__()
        train = run.datasets.collect("train", streaming.FULL_COUNT)
        held_out = run.datasets.collect("eval", streaming.FULL_COUNT)
        self._classifier = SvmClassifier(train["image"], train["label"])
        self.real = self.scores(held_out["image"], held_out, 0)

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        return _unless_source(run, "digits")

    def scores(
        self, image: np.ndarray, example: EvaluatedExample, first: int
    ) -> dict[str, np.ndarray]:
        return {"class_accuracy": self._classifier.predict(image) == example["label"]}


class CaptionProbe(Probe):
    """Whether samples of colored_digits show the digit and the color of their captions.

    The digit is read from the largest channel of each pixel, the color from all channels.
    """

    def __init__(self, run: EvaluatedGenerator):
        super().__init__()
        train, self._source = (
            run.datasets.source(split) for split in ("train", "eval")
        )
        image, label = _all_examples(train)
        gray = _to_gray(image)
        # Every digit comes in all colors; the classifier needs it once.
        _, unique = np.unique(gray.reshape(len(gray), -1), axis=0, return_index=True)
        self._digit = SvmClassifier(gray[unique], label[unique])
        self._color = SvmClassifier(image, _colors(train, range(len(train))))
        image, label = _all_examples(self._source)
        self.real = self.scores(image, {"label": label}, 0)

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        return _unless_source(run, "colored_digits", "text")

    def scores(
        self, image: np.ndarray, example: EvaluatedExample, first: int
    ) -> dict[str, np.ndarray]:
        """Compare image i with the caption of held-out example first + i."""
        rows = (i % len(self._source) for i in range(first, first + len(image)))
        digit = self._digit.predict(_to_gray(image)) == example["label"]
        color = self._color.predict(image) == _colors(self._source, rows)
        return {
            "text_accuracy": digit & color,
            "text_accuracy_digit": digit,
            "text_accuracy_color": color,
        }


class MotionProbe(Probe):
    """Whether a moving digit stays the same digit and moves as in the held-out clip.

    Only frames after the context are measured. The position error is reported with that of
    a digit that stands still after the last context frame.
    """

    def __init__(self, run: EvaluatedGenerator):
        super().__init__()
        train = run.datasets.collect("train", NUM_CLIPS)
        held_out = run.datasets.collect("eval", NUM_CLIPS)
        self._num_context = run.stage.conditions.context_frames
        self._classifier = moving_digits.MovingDigitClassifier(
            train["image"], train["label"], frames=NUM_FRAMES
        )
        self.real = self.scores(held_out["image"], held_out, 0)

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        return _unless_source(run, "moving_digits", "context")

    def scores(
        self, image: np.ndarray, example: EvaluatedExample, first: int
    ) -> dict[str, np.ndarray]:
        real, generated = example["image"], slice(self._num_context, None)
        num_generated = real.shape[1] - self._num_context
        standing = real[:, self._num_context - 1 : self._num_context]
        positions = moving_digits.locate(real[:, generated])

        def position_error(clips):
            offset = moving_digits.locate(clips) - positions
            return np.linalg.norm(offset, axis=-1).mean(-1)

        digit = self._classifier.predict(image, generated)
        return {
            "identity_kept": digit == example["label"],
            "position_error_px": position_error(image[:, generated]),
            "position_error_standing_px": position_error(
                standing.repeat(num_generated, 1)
            ),
        }


class ClipScoreMeasurement(Measurement):
    """The CLIP score of samples and their captions, with its standard error."""

    def __init__(self, run: EvaluatedGenerator):
        self._generator = run.generator
        self._clip = run.context.clip()
        self._score = ClipScore(self._clip, run.mesh)

    @classmethod
    def obstacle(cls, run: EvaluatedGenerator) -> Obstacle | None:
        if not prompts.has_text(run.generator):
            return Obstacle("the model is not conditioned on text", inherent=True)
        reason = run.context.clip_obstacle()
        return None if reason is None else Obstacle(reason)

    def add(self, image: np.ndarray, example: EvaluatedExample, first: int) -> None:
        captions = prompts.captions(self._generator, first, first + len(image))
        self._score.add(image, captions)

    def result(self) -> dict[str, Any]:
        return self._score.record()

    def protocol(self) -> dict[str, Any]:
        return {"clip": self._clip.protocol()}


def _unless_source(
    run: EvaluatedGenerator, kind: str, condition: str = "label"
) -> Obstacle | None:
    """An obstacle unless the run is of that data source, with that condition."""
    if run.datasets.source_kind == kind and condition in run.stage.conditions:
        return None
    return Obstacle(
        f"only a model of the source {kind}, conditioned on {condition}, has it",
        inherent=True,
    )


def _all_examples(source: ColoredDigits) -> tuple[np.ndarray, np.ndarray]:
    """All images and their labels, in order."""
    examples = [source[i] for i in range(len(source))]
    images = np.stack([e["image"] for e in examples])
    return images, np.asarray([e["label"] for e in examples])


def _colors(source: ColoredDigits, rows) -> np.ndarray:
    return np.asarray([source.color_index(i) for i in rows])


def _to_gray(image: np.ndarray) -> np.ndarray:
    return image.max(-1, keepdims=True)


COMPUTATIONS: dict[str, type[Measurement]] = {
    "class_probe": ClassProbe,
    "caption_probe": CaptionProbe,
    "motion_probe": MotionProbe,
    "clip_score": ClipScoreMeasurement,
}
