"""What sets of imported images and of imported clips have in common (shards.py)."""

import hashlib

import numpy as np

from ul.core.errors import DataError
from ul.data import record_shards
from ul.data.record_shards import Store


def finish(to: Store, identity: dict, records: list[dict], bad: list[dict]) -> dict:
    """Write the manifest of shards that all are there, in their order; the manifest."""
    splits = {}
    for split, about in identity["splits"].items():
        own = [r for r in records if r["file"].startswith(f"{split}-")]
        labels = np.sum([r["labels"] for r in own], 0)
        splits[split] = about | {
            "count": int(labels.sum()),
            "labels": labels.tolist(),
            "shards": [
                {k: r[k] for k in ("file", "count", "bytes", "sha256")} for r in own
            ],
        }
    digests = "".join(r["sha256"] for r in records)
    manifest = identity | {
        "splits": splits,
        "rejected": bad,
        "digest": hashlib.sha256(digests.encode()).hexdigest(),
    }
    to.finish(manifest)
    return manifest


def unlike(there: dict, here: dict) -> list[str]:
    """What of two sets' identities differs, one phrase each.

    A set of before `made_with` was kept does not say, and may be of any version.
    """
    found = [
        f"{key}: {there.get(key)} there, {value} here"
        for key, value in here.items()
        if key not in ("made_with", "classes", "splits") and there.get(key) != value
    ]
    with_what = there.get("made_with", {})
    found += [
        f"made with {name} {with_what.get(name, 'of no known version')} there, "
        f"{version} here: install that one to go on"
        for name, version in here["made_with"].items()
        if with_what.get(name) != version
    ]
    for split, about in here["splits"].items():
        other = there.get("splits", {}).get(split, {})
        found += [
            f"{split} {key}: {other.get(key)} there, {value} here"
            for key, value in about.items()
            if other.get(key) != value
        ]
    if not found and there.get("classes") != here["classes"]:
        found.append("names of classes")
    return found


def opened(
    data: Store, split: str, keys: set[str]
) -> tuple[dict, record_shards.Records]:
    """The manifest, which has these `keys`, and the records of a split.

    Raises:
      DataError: none, one half written or with damaged shards, or an empty split.
    """
    manifest, _ = data.load({"size", "classes"} | keys)
    data.verify(manifest, part=None)
    if not manifest["splits"][split]["count"]:
        raise DataError(
            f"data.source.path {data.path} has nothing in its {split} split"
        )
    return manifest, record_shards.Records(data, manifest, split)
