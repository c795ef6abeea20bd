"""Import videos as clips (data/sources/imported_clips.py describes the result)."""

import bisect
import csv
import io
import logging
import os
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image, features

from ul.core import text_files
from ul.core.errors import DataError
from ul.core.files import display_name
from ul.data.sources import imported_clips, imported_images
from ul.importing import decoding, listing, writing
from ul.importing.archives import Entry
from ul.importing.decoding import FrameTimes
from ul.importing.listing import LabeledEntries

log = logging.getLogger("ul")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".flv")
# A file name of Kinetics: the video's id and the first and last second of the clip.
_KINETICS_NAME = re.compile(r"(.+)_(\d{6})_(\d{6})")
# A clip may be longer than its name says by this many seconds, because videos can be cut
# only at certain frames.
_TOLERANCE_SECONDS = 2
_COLUMNS = {"label", "youtube_id", "time_start", "time_end"}


def import_videos(
    paths: dict[str, str],
    out: str,
    *,
    size: int,
    num_frames: int,
    fps: float,
    labels: dict[str, str],
    shard_examples: int,
    jobs: int,
    max_bad_fraction: float,
) -> dict:
    """Write the clips of `paths` (train, eval) into the directory `out`; return the manifest.

    The class of a clip is the folder directly above it; the CSV file of a split in `labels`
    can name the classes instead. Of each clip the `num_frames` in the middle are kept, at
    `fps` frames a second, or at the clip's own rate if `fps` is 0. An interrupted import
    continues.

    Raises:
      UserError: its subclass determines the exit code. Complete shards are kept.
    """
    rate = Fraction(fps).limit_denominator(1001)

    def pack(entry: Entry, label: int, content: bytes) -> bytes:
        frames = _decode_middle(entry, content, num_frames, rate)
        squares = [imported_images.center_crop_square(frame, size) for frame in frames]
        return imported_clips.pack(label, np.stack([np.asarray(s) for s in squares]))

    entries, classes, split_fields = _labeled_entries(paths, labels)
    versions = imported_images.library_versions() | decoding.library_versions()
    versions["libwebp"] = str(features.version("webp"))
    record_format = writing.RecordFormat(
        noun="clip",
        settings={
            "size": size,
            "frames": num_frames,
            "fps": fps,
            "orientation": "upright",  # Older versions ignored rotations.
            "made_with": versions,
        },
        pack=pack,
        errors=(ValueError,),
        describe_error=str,
    )
    return writing.import_entries(
        imported_clips.open_store(out),
        record_format,
        entries,
        classes,
        paths=paths,
        split_fields=split_fields,
        shard_examples=shard_examples,
        jobs=jobs,
        max_bad_fraction=max_bad_fraction,
    )


def _decode_middle(
    entry: Entry, content: bytes, num_frames: int, fps: Fraction
) -> list[Image.Image]:
    def select(times: FrameTimes) -> Sequence[int]:
        return select_middle_frames(
            times,
            num_frames=num_frames,
            fps=fps,
            nominal_seconds=_nominal_seconds(entry),
        )

    return decoding.decode_frames(content, select)


def select_middle_frames(
    times: FrameTimes, *, num_frames: int, fps: Fraction, nominal_seconds: int | None
) -> Sequence[int]:
    """Return the numbers of the frames in the middle of a clip with these frame times.

    With `fps` above 0 they are the frames nearest to the middle points of a regular grid that
    starts at the first frame; of two equally near frames the earlier one is taken.
    `nominal_seconds` is the duration that the clip should have, if it is known.

    Raises:
      ValueError: the clip has too few frames or too long a duration, or its frames have no
        increasing times.
    """
    if len(times) < num_frames:
        raise ValueError(f"only {len(times)} of {num_frames} frames can be decoded")
    known = [t for t in times if t is not None]
    if len(known) < len(times):
        if fps:
            raise ValueError("its frames have no timestamps")
        known = []
    offsets = [t - known[0] for t in known]
    if (
        nominal_seconds is not None
        and offsets
        and offsets[-1] > nominal_seconds + _TOLERANCE_SECONDS
    ):
        raise ValueError(
            f"it lasts {float(offsets[-1]):.1f} s, but its file name says "
            f"{nominal_seconds} s"
        )
    if not fps:
        first = (len(times) - num_frames) // 2
        return range(first, first + num_frames)
    if any(after < before for before, after in zip(offsets, offsets[1:], strict=False)):
        raise ValueError("its timestamps decrease")
    num_points = int(offsets[-1] * fps) + 1
    if num_points < num_frames:
        raise ValueError(
            f"it is too short: {float(offsets[-1]):.2f} s give {num_points} of {num_frames} "
            f"frames at {float(fps):g} fps"
        )
    first = (num_points - num_frames) // 2
    return [_nearest(offsets, k / fps) for k in range(first, first + num_frames)]


def _nearest(offsets: list[Fraction], time: Fraction) -> int:
    after = bisect.bisect_left(offsets, time)
    if after == 0:
        return 0
    if after == len(offsets):
        return after - 1
    later_is_nearer = offsets[after] - time < time - offsets[after - 1]
    return after if later_is_nearer else after - 1


def _stem(entry: Entry) -> str:
    return os.path.splitext(os.path.basename(entry.name))[0]


def _nominal_seconds(entry: Entry) -> int | None:
    """Return the duration of a clip according to its name, None if the name has none."""
    match = _KINETICS_NAME.fullmatch(_stem(entry))
    seconds = int(match[3]) - int(match[2]) if match else 0
    return seconds if seconds > 0 else None


def _labeled_entries(
    paths: dict[str, str], labels: dict[str, str]
) -> tuple[dict[str, LabeledEntries], list[str], dict[str, dict]]:
    """Return the clips of both splits with their labels, the names of the classes, and
    further fields of each split in the manifest."""
    entries: dict[str, list[Entry]] = {}
    groups: dict[str, list[str]] = {}
    split_fields: dict[str, dict[str, int]] = {}
    for split, path in paths.items():
        entries[split] = listing.list_entries(path, "clip", SUFFIXES)
        folders = [os.path.dirname(entry.name) for entry in entries[split]]
        groups[split] = [os.path.basename(folder) for folder in folders]
        split_fields[split] = {}
        if split in labels:
            entries[split], groups[split], split_fields[split] = _select_labeled(
                entries[split], f"--{split}_labels {labels[split]}", labels[split]
            )
    classes = listing.class_names(
        paths["train"], entries["train"], groups["train"], "clip"
    )
    split_fields["eval"] |= _count_shared_videos(entries)
    flag = f"--eval_labels {labels['eval']}" if "eval" in labels else "--eval"
    labeled = listing.assign_labels(entries, groups, classes, flag)
    return labeled, classes, split_fields


def _select_labeled(
    entries: list[Entry], flag: str, path: str
) -> tuple[list[Entry], list[str], dict[str, int]]:
    """Return the clips that a CSV file labels, their classes, and how many do not match."""
    label_by_stem = _read_labels(path, flag)
    labeled = [entry for entry in entries if _stem(entry) in label_by_stem]
    if not labeled:
        raise DataError(
            f"{flag} must label clips named <youtube_id>_<start, 6 digits>_<end, 6 digits>; "
            f"it labels none of {len(entries)} clips, such as {display_name(entries[0].name)}."
        )
    absent = len(label_by_stem.keys() - {_stem(entry) for entry in labeled})
    unlisted = len(entries) - len(labeled)
    if absent or unlisted:
        log.warning(
            "%s lists %d clips that do not exist, and lacks %d clips that exist; both kinds "
            "are skipped",
            flag,
            absent,
            unlisted,
        )
    groups = [label_by_stem[_stem(entry)] for entry in labeled]
    return labeled, groups, {"absent": absent, "unlisted": unlisted}


def _read_labels(path: str, flag: str) -> dict[str, str]:
    """Return the class of each clip, by its file name without suffix, in Kinetics' CSV."""
    labels: dict[str, str] = {}
    rows = csv.DictReader(io.StringIO(text_files.read(path, flag)))
    if missing := _COLUMNS - set(rows.fieldnames or ()):
        raise DataError(
            f"{flag} must have the columns {', '.join(sorted(_COLUMNS))}; missing: "
            f"{', '.join(sorted(missing))}."
        )
    try:
        for row in rows:
            start, end = (int(float(row[k])) for k in ("time_start", "time_end"))
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            if not row["label"]:
                raise ValueError(f"line {rows.line_num} has no label")
            if labels.setdefault(name, row["label"]) != row["label"]:
                raise DataError(
                    f"{flag} must give each clip one class; {name} is {labels[name]} and "
                    f"{row['label']}."
                )
    except (csv.Error, ValueError, TypeError, OverflowError) as e:
        raise DataError(
            f"{flag} cannot be read: line {rows.line_num}: {e}. Repair the line."
        ) from e
    return labels


def _count_shared_videos(entries: dict[str, list[Entry]]) -> dict[str, int]:
    """Count the held-out clips that come from the video of a training clip, and warn."""

    def video(entry: Entry) -> str:
        match = _KINETICS_NAME.fullmatch(_stem(entry))
        return match[1] if match else _stem(entry)

    train = {video(entry): entry for entry in entries["train"]}
    shared = [entry for entry in entries["eval"] if video(entry) in train]
    if shared:
        log.warning(
            "%d held-out clips come from videos with training clips, for example %s and %s",
            len(shared),
            display_name(shared[0].name),
            display_name(train[video(shared[0])].name),
        )
    return {"also_in_train": len(shared)}
