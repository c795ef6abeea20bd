"""A folder of compiled programs, so that a second start does not compile again."""

import logging
import re
import warnings

import jax
from etils import epath

from ul.core import cpu_features, storage

log = logging.getLogger("ul")

# Programs that compile faster are not worth a file.
MIN_COMPILE_SECONDS = 0.1
_WARNING = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(.*?)': (\w*)"
)
# Zlib, zstd and XLA raise these errors for a damaged program. Other errors, such as those of
# a network file system, may pass.
_DAMAGE = ("error", "ZstdError", "JaxRuntimeError", "XlaRuntimeError", "ValueError")


class SavedTime:
    """Seconds of compilation that the cache saved in this process.

    programs: number of programs that were read from it.
    """

    seconds = 0.0
    programs = 0

    @classmethod
    def add(cls, event: str, duration_secs: float, **_) -> None:
        """Count an event of JAX."""
        if event == "/jax/compilation_cache/compile_time_saved_sec":
            cls.seconds += duration_secs
            cls.programs += 1


jax.monitoring.register_event_duration_secs_listener(SavedTime.add)


def enable(directory: str | epath.Path) -> None:
    """Keep compiled programs below `directory`, and use those that are there.

    A cache that the environment or the caller has set already stays in use. If the folder
    cannot be created, a warning is logged, and programs are not cached. A damaged program is
    removed and compiled again. Call it after JAX has joined other processes.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    folder = epath.Path(directory) / _device_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except Exception as e:
        if not storage.is_storage_error(e):
            raise
        log.warning("%s cannot be created, so programs are not cached: %s", folder, e)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _handle_warnings(folder)


def _device_name() -> str:
    """Return a name of the devices for which programs are compiled.

    JAX's own keys contain the versions and the flags of XLA, but not the instructions of a
    CPU, and a program with other instructions would end the process.
    """
    device = jax.local_devices()[0]
    name = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
    return f"{name}-{cpu_features.digest()}" if device.platform == "cpu" else name


def _handle_warnings(folder: epath.Path) -> None:
    """Replace JAX's warnings by one line, and remove programs that are damaged.

    JAX would leave a damaged file as it is and compile the program again at every start.
    """
    show = warnings.showwarning

    def show_warning(message, category, filename, lineno, file=None, line=None):
        match = _WARNING.match(str(message))
        if not match:
            return show(message, category, filename, lineno, file, line)
        action, program, error = match.groups()
        if action == "writing":
            log.warning("%s cannot be kept in %s: %s", program, folder, message)
        else:
            log.warning(
                "the compiled program %s in %s cannot be read (%s); it is compiled again",
                program,
                folder,
                error,
            )
            if error in _DAMAGE:
                _remove(folder, program)

    warnings.showwarning = show_warning


def _remove(folder: epath.Path, program: str) -> None:
    """Remove all files of a program: JAX's warning does not name the damaged one."""
    try:
        for file in folder.glob(f"{program}-*"):
            file.unlink(missing_ok=True)
    except Exception as e:  # It is raised within JAX's compilation, which goes on.
        log.warning("%s in %s cannot be removed: %s", program, folder, e)
