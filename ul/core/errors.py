"""Errors that a user is meant to read, each with the exit code of its kind.

One line: what is wrong, where, and what to change. The mains in `launch/`
print the line without a trace and exit with `code`.
"""


class UserError(Exception):
    """Base of all errors that end a command with one line."""

    code = 1


class ConfigError(UserError):
    """A config or an argument cannot be used."""

    code = 64


class OutOfMemory(ConfigError):
    """A device cannot hold what the config asks for."""


class DataError(UserError):
    """Data are missing, of the wrong form, or too many of them are broken."""

    code = 65


class CheckpointError(UserError):
    """A checkpoint is needed and none can be loaded."""

    code = 66


class UnreadableStep(CheckpointError):
    """One checkpoint cannot be read; an older one may be."""


class NoProgress(UserError):
    """Too many starts in a row saved nothing new."""

    code = 69


class NonFiniteError(UserError):
    """Training produced NaN or infinity."""

    code = 70


class WorkdirInUse(UserError):
    """Another process trains in this workdir."""

    code = 73


class StorageError(UserError):
    """A save or a write failed."""

    code = 74


class Preempted(UserError):
    """Stopped by a signal after a committed save; run the same command again."""

    code = 75


class Stalled(UserError):
    """Nothing moved for as long as was allowed."""

    code = 124


class PeerLost(UserError):
    """Another process of the run ended without a word; run the same command again."""

    code = 134


class Interrupted(Exception):
    """A look or an evaluation was broken off because a stop was asked for."""
