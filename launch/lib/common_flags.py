"""Flags that several commands define in the same way."""

from absl import flags

flags.disclaim_key_flags()  # a flag belongs to the command that calls its function


def define_step() -> flags.FlagHolder:
    """Define --step, the checkpoint to load."""
    return flags.DEFINE_integer(
        "step", None, "Checkpoint to load; if unset, the newest verified one."
    )


def define_weights() -> flags.FlagHolder:
    """Define --weights, which weights of the checkpoint to load."""
    return flags.DEFINE_string(
        "weights",
        "ema",
        "Weights to load: ema (the first average of config.ema), ema:DECAY, power:WIDTH "
        "or raw.",
    )


def define_seed() -> flags.FlagHolder:
    """Define --seed."""
    return flags.DEFINE_integer("seed", 0, "Seed of all random noise.")


def define_stage1_workdir() -> flags.FlagHolder:
    """Define --stage1_workdir, for another decoder or a stage-1 run that was moved."""
    holder = flags.DEFINE_string(
        "stage1_workdir",
        None,
        "Run with the decoder for a stage 2: its stage 1, if that was moved, or a decoder on "
        "the same encoder, such as a student.",
    )
    flags.DEFINE_alias("decoder", "stage1_workdir")
    return holder
