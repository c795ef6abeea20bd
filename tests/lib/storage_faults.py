"""Storage that fails at one chosen call of the project, as often as one likes.

All files of workdirs, caches and sweeps are reached through epath, whose calls to a file
system go through one class. Its methods are wrapped here: they record where in the project
each call came from, and one such place can be made to fail.
"""

import contextlib
import dataclasses
import inspect
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from etils.epath import backend

from ul.core import files

ROOT = Path(__file__).parents[2]
PACKAGES = (str(ROOT / "ul"), str(ROOT / "launch"))
TESTS = str(ROOT / "tests")
# The class of local paths. Its methods are the calls that a file system has.
BACKEND = backend._OsPathBackend
METHODS = tuple(
    name
    for name, _ in inspect.getmembers(BACKEND, inspect.isfunction)
    if not name.startswith("_")
)


SLOW_SECONDS = 0.1
# Methods that hide the errors of the file system, and what they return then.
SILENT = {"exists": False, "isdir": False, "glob": []}


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A call of a method of the file system, by a line of the project.

    in_orbax: by Orbax, which that line calls, or which works in a thread of its own.
    """

    file: str
    line: int
    method: str
    in_orbax: bool

    def __str__(self):
        return f"{self.file}:{self.line} {self.method}{' (Orbax)' * self.in_orbax}"


@dataclasses.dataclass
class Storage:
    """Count the calls of each place, and let one place fail.

    after: how many calls succeed before. times: how many fail then; None for all.
    error: None if the calls are slow instead, by SLOW_SECONDS.
    """

    places: dict[Place, int] = dataclasses.field(default_factory=dict)
    failing: Place | None = None
    error: OSError | None = None
    after: int = 0
    times: int | None = None

    def called(self, place: Place) -> None:
        number = self.places.get(place, 0)  # of this call, from 0 on
        self.places[place] = number + 1
        if place != self.failing or number < self.after:
            return
        if self.times is None or number < self.after + self.times:
            if self.error is not None:
                raise self.error
            time.sleep(SLOW_SECONDS)


def _place(method: str) -> Place | None:
    """Return the innermost line of the project's packages in the stack."""
    frame, in_orbax = sys._getframe(2), False
    while frame is not None:
        file = frame.f_code.co_filename
        in_orbax |= "/orbax/" in file
        if file.startswith(PACKAGES) and not (
            file.endswith(("core/files.py", "core/storage.py"))
        ):
            return Place(
                str(Path(file).relative_to(ROOT)), frame.f_lineno, method, in_orbax
            )
        if file.startswith(TESTS):
            return None
        frame = frame.f_back
    # Orbax writes in threads of its own.
    return Place("a thread", 0, method, True) if in_orbax else None


@contextlib.contextmanager
def watched(under: Path) -> Iterator[Storage]:
    """Record the calls for paths in a folder, and let one place fail on request."""
    storage, lock, inside = Storage(), threading.Lock(), str(under)
    originals = {name: getattr(BACKEND, name) for name in METHODS}

    def wrap(name):
        def method(self, path, *args, **kwargs):
            # Calls that one method makes of another are part of that method.
            is_nested = sys._getframe(1).f_code.co_filename == backend.__file__
            if str(path).startswith(inside) and not is_nested:
                place = _place(name)
                try:
                    with lock:
                        if place is not None:
                            storage.called(place)
                except OSError:
                    if name not in SILENT:
                        raise
                    return SILENT[name]
            return originals[name](self, path, *args, **kwargs)

        return method

    status = files._stat

    def checked_status(path):
        if str(path).startswith(inside) and (place := _place("stat")) is not None:
            with lock:
                storage.called(place)
        return status(path)

    for name in METHODS:
        setattr(BACKEND, name, wrap(name))
    files._stat = checked_status
    try:
        yield storage
    finally:
        files._stat = status
        for name, original in originals.items():
            setattr(BACKEND, name, original)
