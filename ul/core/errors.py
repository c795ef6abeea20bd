"""Errors that a user is meant to read, each with the exit code of its kind.

The message is one line: what must hold, what was found and what to do. The commands in
`launch/` print that line without a trace and exit with `code`.
"""


class UserError(Exception):
    """Base of all errors that end a command with one line."""

    code = 1


class ConfigError(UserError):
    """A config or an argument cannot be used."""

    code = 64


class OutOfMemory(ConfigError):
    """A device has too little memory for the config."""


class DataError(UserError):
    """Data are missing, have the wrong format, or too many of them are broken."""

    code = 65


class CheckpointError(UserError):
    """A checkpoint is needed and none can be loaded."""

    code = 66


class UnreadableStep(CheckpointError):
    """One checkpoint cannot be read; an older one may be readable."""


class NoProgress(UserError):
    """Too many starts in a row saved no new checkpoint."""

    code = 69


class NonFiniteError(UserError):
    """Training produced NaN or infinity."""

    code = 70


class PosteriorCollapse(UserError):
    """The rate of a stage 1 stayed below its floor: the latents carry no information."""

    code = 76


class WorkdirInUse(UserError):
    """Another process trains in this workdir."""

    code = 73


class StorageError(UserError):
    """A file or a checkpoint could not be written."""

    code = 74


class UnusablePath(StorageError):
    """A path cannot be read or written, for a reason that waiting does not change."""

    code = ConfigError.code


class Preempted(UserError):
    """A signal ended the command; the same command continues it.

    Training that has done a step saves a checkpoint before this is raised.
    """

    code = 75


class Stalled(UserError):
    """A phase of the run made no progress for longer than its limit."""

    code = 124


class PeerLost(UserError):
    """Another process of the run ended without a reason; the same command resumes it."""

    code = 134


class Interrupted(Exception):
    """A validation or an evaluation was aborted because a stop was requested."""
