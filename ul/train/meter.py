"""The speed of training: FLOP/s, utilization, and where the time of a step goes."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Meter:
    """Measures the steps since `restart`, which begins a window without a pause.

    flops_per_step: model FLOPs of the whole step, or None. peak_flops: FLOP/s of one
    device, or None. num_devices: of the mesh.
    """

    def __init__(
        self,
        batch_size: int,
        num_devices: int,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
    ):
        self._batch_size, self._num_devices = batch_size, num_devices
        self._flops_per_step, self._peak_flops = flops_per_step, peak_flops
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin a window after `step`."""
        self._step, self._start = step, time.monotonic()
        self._data_seconds = self._device_seconds = 0.0

    def waiting_for_data(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; the time that each one takes counts as waiting for data."""
        iterator = iter(batches)
        while True:
            begun = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._data_seconds += time.monotonic() - begun
            yield batch

    @contextlib.contextmanager
    def waiting_for_devices(self) -> Iterator[None]:
        """Count the time of the block as waiting for the devices."""
        begun = time.monotonic()
        yield
        self._device_seconds += time.monotonic() - begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - begun

    def measure(self, step: int) -> dict[str, float]:
        """Return the speed since the window began, and begin the next one after `step`.

        step_s, data_wait_s and host_s are seconds per step: in all, waiting for data, and
        running other Python code, during which the devices usually keep working.
        tflops_per_device and mfu (model FLOPs utilization) are left out where the FLOPs or
        the peak of the devices are unknown.
        """
        seconds, steps = time.monotonic() - self._start, step - self._step
        step_seconds = seconds / steps
        busy = self._data_seconds + self._device_seconds
        values = {
            "steps_per_s": 1.0 / step_seconds,
            "images_per_s": self._batch_size / step_seconds,
            "step_s": step_seconds,
            "data_wait_s": self._data_seconds / steps,
            "host_s": max(seconds - busy, 0.0) / steps,
        }
        if self._flops_per_step:
            rate = self._flops_per_step / step_seconds / self._num_devices
            values["tflops_per_device"] = rate / 1e12
            if self._peak_flops:
                values["mfu"] = rate / self._peak_flops
        self.restart(step)
        return values
