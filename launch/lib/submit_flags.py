"""Flags that `ul train`, `ul submit` and `ul sweep` define in the same way."""

from absl import flags

flags.disclaim_key_flags()  # a flag belongs to the command that calls its function


def define_max_attempts(
    default: int | None, note: str, *, minimum: int = 0
) -> flags.FlagHolder:
    """Define --max_attempts; `note` says what its smallest value or its absence means."""
    text = f"Stop with exit code 69 if this many starts saved no new checkpoint{note}."
    return flags.DEFINE_integer("max_attempts", default, text, minimum)


def define_retries() -> flags.FlagHolder:
    """Define --retries of `ul sweep`, with None for never.

    It is also a setting of `local`; another default would count as given to other places.
    """
    text = "How often a trial is run again after an exit code that allows it."
    return flags.DEFINE_integer("retries", None, text, 0)


def define_job_name(source: str) -> flags.FlagHolder:
    """Define --name, the name of the submitted job."""
    return flags.DEFINE_string(
        "name", None, f"Name of the submitted job; if unset, the name of {source}."
    )


def define_python() -> flags.FlagHolder:
    """Define --python, the interpreter where the job runs."""
    return flags.DEFINE_string(
        "python",
        None,
        "Python interpreter in the place where the job runs; if unset, this interpreter "
        "for local and slurm, python for gke, .venv/bin/python for tpu_vm.",
    )


def define_dry_run() -> flags.FlagHolder:
    """Define --dry_run and its alias --dry-run."""
    holder = flags.DEFINE_bool(
        "dry_run", False, "Print what would run or be submitted, and do nothing else."
    )
    flags.DEFINE_alias("dry-run", "dry_run")
    return holder


def define_set() -> flags.FlagHolder:
    """Define --set, which changes the configs of a sweep."""
    text = (
        "KEY=VALUE: change one setting in the configs of all trials. STAGE:KEY=VALUE changes "
        "it in one stage, for example stage2:steps=100."
    )
    return flags.DEFINE_multi_string("set", [], text)
