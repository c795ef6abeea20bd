"""Digests, shapes and dtypes of all arrays of a state, by path."""

import hashlib
import json

import jax

from ul.core import trees


def shape_and_dtype(leaf) -> list:
    """Return [shape, dtype] of an array as JSON stores it."""
    return [list(leaf.shape), str(leaf.dtype)]


def shapes_and_dtypes(tree) -> dict[str, list]:
    """Return `shape_and_dtype` of every leaf by path."""
    leaves = trees.leaves_by_path(tree)
    return {path: shape_and_dtype(leaf) for path, leaf in leaves.items()}


# Compiled once for each shape, of which a network has few; a program for the whole tree
# takes several times as long to compile.
_digest = jax.jit(trees.digest_and_count_nonfinite)


def digest_leaves(tree) -> tuple[dict[str, str], list[str]]:
    """Return the digest of every leaf by path, and the paths of non-finite leaves.

    A digest is 16 hexadecimal digits and does not depend on how the leaf is sharded.
    """
    leaves = trees.leaves_by_path(tree)
    results = jax.device_get([_digest(leaf) for leaf in leaves.values()])
    by_path = dict(zip(leaves, results, strict=True))
    digests = {
        path: f"{int(words[0]):08x}{int(words[1]):08x}"
        for path, (words, _) in by_path.items()
    }
    return digests, [path for path, (_, count) in by_path.items() if count]


def fingerprint(tree) -> str:
    """Return sixteen hex digits that identify the values of all leaves."""
    digests, _ = digest_leaves(tree)
    text = json.dumps(digests, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def leaf_differences(saved: dict[str, list], expected: dict[str, list]) -> list[str]:
    """Return a phrase for each path whose shape or dtype differs or that one side lacks."""
    return [
        f"{path}: saved {saved.get(path, 'nothing')}, "
        f"expected {expected.get(path, 'nothing')}"
        for path in sorted(saved.keys() | expected.keys())
        if saved.get(path) != expected.get(path)
    ]
