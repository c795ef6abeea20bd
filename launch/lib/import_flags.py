"""Flags that the commands which prepare data share."""

import os

from absl import flags

flags.disclaim_key_flags()  # a flag belongs to the command that calls its function


def define_sources(noun: str, forms: str) -> dict[str, flags.FlagHolder]:
    """Define --train and --eval; returns them by split. `forms`: what they may be."""
    names = {"train": "Training", "eval": "Held-out"}
    return {
        split: flags.DEFINE_string(split, None, f"{name} {noun}: {forms}. Required.")
        for split, name in names.items()
    }


def define_out() -> flags.FlagHolder:
    """Define --out."""
    return flags.DEFINE_string("out", None, "Directory of the shards. Required.")


def define_size(default: int) -> flags.FlagHolder:
    """Define --size, the side of the square images."""
    return flags.DEFINE_integer(
        "size", default, "Side of the square output in pixels.", 8, 4096
    )


def define_shard_examples(noun: str, default: int) -> flags.FlagHolder:
    """Define --shard_examples."""
    return flags.DEFINE_integer("shard_examples", default, f"{noun} in one shard.", 1)


def define_jobs(noun: str) -> flags.FlagHolder:
    """Define --jobs; the default is the number of CPU cores."""
    text = f"Number of {noun} processed at the same time."
    return flags.DEFINE_integer("jobs", os.cpu_count() or 1, text, 1)


def define_max_fraction(name: str, default: float, noun: str) -> flags.FlagHolder:
    """Define a flag for the fraction of unusable inputs that is not yet an error."""
    return flags.DEFINE_float(
        name, default, f"Largest fraction of {noun}; more are an error.", 0.0, 1.0
    )
