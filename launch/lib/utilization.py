"""The FLOPs of a run's step and the peak of its devices, for the utilization in its log."""

import jax

from ul.config import TrainConfig
from ul.core.errors import ConfigError
from ul.planning.pods import chips, model_flops
from ul.stages import registry


def step_flops_and_peak(config: TrainConfig) -> tuple[float | None, float | None]:
    """Return the model FLOPs of an update, and the peak FLOP/s of one attached device.

    Each is None if it is unknown: networks without a closed form, or a device without a
    data sheet and no log.peak_tflops. Frozen networks, such as the encoder
    of a stage 2 and the teacher of a student, do not count.
    """
    try:
        count = model_flops.closed_form_flops(registry.build(config))
        flops = float(count.training * config.batch_size)
    except ConfigError:
        flops = None
    if config.log.peak_tflops is not None:
        return flops, config.log.peak_tflops * 1e12
    chip = chips.chip_of_device(jax.devices()[0].device_kind)
    return flops, chip.flops if chip else None
