"""SIGTERM and Ctrl-C as a request to stop at the next step."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

log = logging.getLogger("ul")


class StopRequest:
    """Truthy once a signal came; `name` is its name."""

    name = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """The first signal sets the request; the second ends the process at once."""
    request = StopRequest()

    def handle(number, frame):
        if request:
            os._exit(128 + number)
        request.name = signal.Signals(number).name
        log.warning(
            "received %s: saving after this step; once more to stop at once",
            request.name,
        )

    before = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
