"""Watch for posterior collapse: latents that carry less information than they should."""

import logging
import math

from ul.core.errors import PosteriorCollapse

log = logging.getLogger("ul")

# A rate above this multiple of the window's first one is recovering and restarts it.
RECOVERY_FACTOR = 1.05
# The window is the larger of this fraction of all steps and this many log lines.
WINDOW_FRACTION, MIN_LOG_LINES = 0.1, 10


class CollapseWatch:
    """Warns when the rate falls below its floor, and ends a run that stays there.

    The prior acts with its whole weight only after the ramp, so a run is not ended before
    it has trained on for a tenth of its steps.
    """

    def __init__(
        self, floor_bpp: float, *, ramp_steps: int, steps: int, log_every: int
    ):
        """`floor_bpp`: in bits per pixel; 0 watches nothing."""
        self._floor, self._ramp_steps = floor_bpp, ramp_steps
        self._window = max(
            MIN_LOG_LINES * log_every, math.ceil(WINDOW_FRACTION * steps)
        )
        self._low_since: tuple[int, float] | None = None
        self._is_low = False

    def add(self, step: int, rate_bpp: float) -> None:
        """Compare the mean rate of the steps up to `step` with the floor.

        Raises:
          PosteriorCollapse: it stayed below the floor without rising.
        """
        was_low, self._is_low = self._is_low, rate_bpp < self._floor
        if self._is_low and not was_low:
            log.warning(
                "step %d: the rate of %.4f bits/pixel is below loss.rate_floor_bpp %.4f, so "
                "the latents are collapsing; raise loss.weighting.bias, "
                "loss.weighting.factor or loss.ramp_steps",
                step,
                rate_bpp,
                self._floor,
            )
        if not self._is_low or step < self._ramp_steps:
            self._low_since = None
            return
        if self._low_since is None or rate_bpp > RECOVERY_FACTOR * self._low_since[1]:
            self._low_since = step, rate_bpp
        if step - self._low_since[0] >= self._window:
            raise PosteriorCollapse(
                f"The rate must reach loss.rate_floor_bpp, {self._floor:.4g} bits/pixel; from "
                f"step {self._low_since[0]} to {step} it stayed below and did not rise, at "
                f"{rate_bpp:.4g}. The latents have collapsed. Start again in a new workdir "
                "with a longer loss.ramp_steps or a larger loss.weighting.bias; "
                "--config.loss.rate_floor_bpp=0 continues this run."
            )
