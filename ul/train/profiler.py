"""Traces of single steps for the JAX profiler."""

import jax

from ul.core.errors import ConfigError


class Profiler:
    """Traces the steps first .. last into workdir/profile, or none if both are 0."""

    def __init__(self, workdir, first: int, last: int):
        if last < first or first < 0:
            raise ConfigError(
                "--profile_steps=first:last must not end before it begins; got "
                f"{first}:{last}."
            )
        self._path, self._first, self._last = f"{workdir}/profile", first, last
        self._running = False

    def before_step(self, step: int) -> None:
        """Start the trace if `step` is its first step."""
        if self._last and step == self._first:
            options = jax.profiler.ProfileOptions()
            # The Python tracer hooks every thread and has crashed with reader threads.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._path, profiler_options=options)
            self._running = True

    def after_step(self, step: int, state) -> None:
        """Write the trace if `step` is its last step."""
        if self._running and step == self._last:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Write the trace so far, for example because the run ends early."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
