"""The data of a run in words: the lines of the log at its start, and warnings."""

from collections.abc import Iterator, Mapping
from typing import Any

# More classes are summarized.
MAX_CLASSES_LISTED = 12


def lines(report: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield one line for each split of `Datasets.report`."""
    for split, about in report.items():
        text = f"{split}: {about['examples']:,} examples"
        if about["classes"]:
            text += f"; {_describe_classes(about['classes'])}"
        if about["skipped"]:
            reasons = ", ".join(f"{n:,} {why}" for why, n in about["skipped"].items())
            text += f"; skipped files: {reasons}"
        yield text


def warnings(
    report: Mapping[str, Mapping[str, Any]], num_classes: int
) -> Iterator[str]:
    """Yield what is probably a mistake in data that a model of `num_classes` trains on."""
    if "train" not in report:
        return
    classes = report["train"]["classes"]
    if classes and num_classes > len(classes):
        yield (
            f"data.num_classes is {num_classes}, but the data have {len(classes)} classes; "
            f"{num_classes - len(classes)} classes have no image, and samples of them mean "
            "nothing"
        )
    empty = [name for name, count in classes.items() if count == 0]
    if empty:
        yield (
            f"{len(empty)} of {len(classes)} classes have no training image, for example "
            f"{empty[0]}; samples of them mean nothing"
        )


def _describe_classes(classes: Mapping[str, int | None]) -> str:
    counts = [count for count in classes.values() if count is not None]
    if len(counts) < len(classes):
        return f"{len(classes):,} classes"
    if len(classes) > MAX_CLASSES_LISTED:
        return (
            f"{len(classes):,} classes of {min(counts):,} to {max(counts):,} examples"
        )
    listed = ", ".join(f"{name} {count:,}" for name, count in classes.items())
    return f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} ({listed})"
