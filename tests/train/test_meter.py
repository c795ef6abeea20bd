"""Speed and utilization: the clock is a test's own."""

import pytest

from tests.lib.breaks import Break
from ul.planning.pods import chips
from ul.train import meter


class Clock:
    """A clock that moves only when it is told to."""

    now = 100.0

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def run_steps(meter_, clock, count, data=0.0, device=0.0, host=0.0):
    def batches():
        for i in range(count):
            clock.wait(data)
            yield i

    for _ in meter_.waiting_for_data(batches()):
        with meter_.waiting_for_devices():
            clock.wait(device)
        clock.wait(host)


def test_the_time_of_a_step_is_split_and_gives_flops(clock):
    measured = meter.Meter(32, 8, flops_per_step=4e12, peak_flops=2e12)
    clock.wait(50.0)  # compiling
    measured.restart(10)
    run_steps(measured, clock, 4, data=0.1, device=0.3, host=0.1)
    with measured.paused():
        clock.wait(1000.0)
    assert measured.measure(14) == pytest.approx(
        {
            "steps_per_s": 2.0,
            "images_per_s": 64.0,
            "step_s": 0.5,
            "data_wait_s": 0.1,
            "host_s": 0.1,
            "tflops_per_device": 1.0,  # 4 TFLOP in half a second on 8 devices
            "mfu": 0.5,
        }
    )
    run_steps(measured, clock, 2, device=0.25)
    second = measured.measure(16)
    assert second["step_s"] == pytest.approx(0.25) and second["mfu"] == pytest.approx(1)
    assert second["data_wait_s"] == second["host_s"] == 0.0


def test_without_flops_or_a_peak_there_is_no_utilization(clock):
    for flops, peak, present in ((None, 1e12, []), (4e12, None, ["tflops_per_device"])):
        measured = meter.Meter(32, 8, flops, peak)
        run_steps(measured, clock, 1, device=0.5)
        found = measured.measure(1)
        assert [k for k in found if k in ("tflops_per_device", "mfu")] == present


def test_devices_are_found_by_the_names_that_jax_gives_them():
    assert chips.chip_of_device("TPU v5").name == "TPU v5p"
    assert chips.chip_of_device("TPU v6 lite").flops == 918e12
    assert chips.chip_of_device("NVIDIA H200").name == "H200 SXM"
    assert chips.chip_of_device("cpu") is None


BREAKS = (
    Break(
        "a utilization of one device that counts the FLOPs of all",
        "ul/train/meter.py",
        "self._flops_per_step / step_seconds / self._num_devices",
        "self._flops_per_step / step_seconds",
        "test_the_time_of_a_step_is_split_and_gives_flops",
    ),
    Break(
        "validation counted as training time",
        "ul/train/meter.py",
        "self._start += time.monotonic() - begun",
        "pass",
        "test_the_time_of_a_step_is_split_and_gives_flops",
    ),
)
