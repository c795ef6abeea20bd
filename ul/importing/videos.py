"""Import videos as clips of one size (see data/sources/imported_clips.py)."""

import bisect
import csv
import logging
import os
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import features

from ul.core.errors import DataError
from ul.data.sources import imported_clips, imported_images
from ul.importing import decoding, listing, writing
from ul.importing.archives import Entry
from ul.importing.decoding import Times
from ul.importing.listing import Labelled, shown

log = logging.getLogger("ul")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".flv")
# Kinetics' names: the video, and from which to which second of it.
_NAME = re.compile(r"(.+)_(\d{6})_(\d{6})")
# Seconds that a clip may be longer than its name says: cuts are made where they can be.
_SLACK = 2
_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}


def clips_of(
    paths: dict[str, str],
    where: str,
    *,
    size: int,
    frames: int,
    fps: float,
    labels: dict[str, str],
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the clips of `paths` (train, eval) as shards, or go on with it; the manifest.

    A clip's class is the folder directly above it, or what its split's CSV of `labels` says.
    Of each the `frames` in the middle, at `fps` a second, 0: as they are.

    Raises:
      UserError: of the kind that its exit code says; finished shards stay.
    """
    rate = Fraction(fps).limit_denominator(1001)

    def pack(entry: Entry, label: int, content: bytes) -> bytes:
        said = _said_seconds(entry)

        def pick(times: Times) -> Sequence[int]:
            return middle(times, frames=frames, fps=rate, said=said)

        found = decoding.frames(content, pick)
        squares = [
            np.asarray(imported_images.centre_square(frame, size)) for frame in found
        ]
        return imported_clips.pack(label, np.stack(squares))

    listed, classes, about = _listed(paths, labels)
    made_with = imported_images.made_with() | decoding.made_with()
    made_with["libwebp"] = str(features.version("webp"))
    kind = writing.Kind(
        noun="clip",
        settings={"size": size, "frames": frames, "fps": fps, "made_with": made_with},
        pack=pack,
        broken=(ValueError,),
        reason=str,
    )
    return writing.write(
        imported_clips.store(where),
        kind,
        listed,
        classes,
        paths=paths,
        about=about,
        shard_examples=shard_examples,
        jobs=jobs,
        max_bad_fraction=max_bad_fraction,
    )


def middle(
    times: Times, *, frames: int, fps: Fraction, said: int | None
) -> Sequence[int]:
    """Numbers of the `frames` in the middle of a clip whose frames have these times.

    At `fps` above 0: of a grid from the first frame on, each point's nearest frame, the
    earlier of two. `said`: seconds that it should last.

    Raises:
      ValueError: there are too few, or it is another length.
    """
    if len(times) < frames:
        raise ValueError(f"{len(times)} of {frames} frames decode")
    known = [t for t in times if t is not None]
    if len(known) < len(times):
        if fps:
            raise ValueError("its frames have no times")
        known = []
    since = [t - known[0] for t in known]
    if said is not None and since and since[-1] > said + _SLACK:
        raise ValueError(f"it lasts {float(since[-1]):.1f} s, its name says {said}")
    if not fps:
        first = (len(times) - frames) // 2
        return range(first, first + frames)
    if any(after < before for before, after in zip(since, since[1:], strict=False)):
        raise ValueError("its frames' times run back")
    points = int(since[-1] * fps) + 1
    if points < frames:
        raise ValueError(
            f"it lasts {float(since[-1]):.2f} s, {points} of {frames} frames at "
            f"{float(fps):g} a second"
        )
    first = (points - frames) // 2
    return [_nearest(since, k / fps) for k in range(first, first + frames)]


def _nearest(since: list[Fraction], time: Fraction) -> int:
    after = bisect.bisect_left(since, time)
    if after == 0:
        return 0
    if after == len(since):
        return after - 1
    return after if since[after] - time < time - since[after - 1] else after - 1


def _stem(entry: Entry) -> str:
    return os.path.splitext(os.path.basename(entry.name))[0]


def _said_seconds(entry: Entry) -> int | None:
    """How long it should be by its name; None where that says nothing."""
    named = _NAME.fullmatch(_stem(entry))
    seconds = int(named[3]) - int(named[2]) if named else 0
    return seconds if seconds > 0 else None


def _listed(
    paths: dict[str, str], labels: dict[str, str]
) -> tuple[dict[str, Labelled], list[str], dict[str, dict]]:
    """Clips and labels of both splits, names of classes, and what else is to be said."""
    found: dict[str, list[Entry]] = {}
    groups: dict[str, list[str]] = {}
    about: dict[str, dict[str, int]] = {}
    for split, path in paths.items():
        found[split] = listing.entries(path, "clip", SUFFIXES)
        above = [os.path.dirname(entry.name) for entry in found[split]]
        groups[split], about[split] = [os.path.basename(name) for name in above], {}
        if split in labels:
            found[split], groups[split], about[split] = _by_list(
                found[split], f"--{split}_labels {labels[split]}", labels[split]
            )
    classes = listing.classes_of(
        paths["train"], found["train"], groups["train"], "clip"
    )
    about["eval"] |= _in_both(found)
    said = f"--eval_labels {labels['eval']}" if "eval" in labels else "--eval"
    return listing.labelled(found, groups, classes, said), classes, about


def _by_list(
    found: list[Entry], said: str, path: str
) -> tuple[list[Entry], list[str], dict[str, int]]:
    """Those of the clips that the list has, their classes, and how many are on one side."""
    label = _read(path, said)
    listed = [entry for entry in found if _stem(entry) in label]
    if not listed:
        raise DataError(
            f"{said} says nothing of {shown(found[0])}, nor of {len(found) - 1} more; "
            "wanted are files named <youtube_id>_<start, 6 digits>_<end, 6 digits>"
        )
    absent = len(label.keys() - {_stem(entry) for entry in listed})
    unlisted = len(found) - len(listed)
    if absent or unlisted:
        log.warning(
            "%s: %d of its clips are not there, and %d that are there it has not: these are "
            "passed over", said, absent, unlisted,
        )  # fmt: skip
    groups = [label[_stem(entry)] for entry in listed]
    return listed, groups, {"absent": absent, "unlisted": unlisted}


def _read(path: str, said: str) -> dict[str, str]:
    """The class by a clip's name, of a list as Kinetics has them."""
    label: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := _COLUMNS - set(rows.fieldnames or ()):
                raise DataError(f"{said} has no column {', '.join(sorted(missing))}")
            for row in rows:
                start, end = (int(float(row[k])) for k in ("time_start", "time_end"))
                name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
                if label.setdefault(name, row["label"]) != row["label"]:
                    raise DataError(
                        f"{said} says that {name} is {label[name]} and {row['label']}"
                    )
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as e:
        raise DataError(f"{said} cannot be read: {e}") from e
    return label


def _in_both(found: dict[str, list[Entry]]) -> dict[str, int]:
    """How many held-out clips are of a video that a training clip is of; they are said."""

    def video(entry: Entry) -> str:
        named = _NAME.fullmatch(_stem(entry))
        return named[1] if named else _stem(entry)

    train = {video(entry): entry for entry in found["train"]}
    both = [entry for entry in found["eval"] if video(entry) in train]
    if both:
        log.warning(
            "%d held-out clips are of videos that are trained on, as %s and %s",
            len(both), shown(both[0]), shown(train[video(both[0])]),
        )  # fmt: skip
    return {"also_in_train": len(both)}
