"""The watch for posterior collapse."""

import logging

import pytest

from tests.lib.breaks import Break
from ul.core.errors import PosteriorCollapse
from ul.train.collapse import CollapseWatch


def watch(rates, floor=0.5, ramp_steps=200, steps=1000):
    """Add one rate for every ten steps."""
    watched = CollapseWatch(floor, ramp_steps=ramp_steps, steps=steps, log_every=10)
    for i, rate in enumerate(rates, 1):
        watched.add(10 * i, rate)


def test_a_rate_that_stays_below_its_floor_ends_the_run():
    with pytest.raises(PosteriorCollapse, match="from step 200 to 300 .* at 0.4"):
        watch([0.4] * 100)


def test_it_is_warned_of_at_once(caplog):
    with caplog.at_level(logging.WARNING, "ul"):
        watch([1.0, 0.4, 0.4, 1.0, 0.4])
    assert [r.args[0] for r in caplog.records] == [20, 50]


@pytest.mark.parametrize(
    ("rates", "options"),
    [
        pytest.param([0.4] * 20, {}, id="during the ramp"),
        pytest.param([0.4] * 29 + [0.6] + [0.4] * 9, {}, id="recovers in between"),
        pytest.param([0.1 * 1.02**i for i in range(80)], {}, id="rises slowly"),
        pytest.param([0.0] * 100, {"floor": 0.0}, id="without a floor"),
        pytest.param([0.6] * 100, {}, id="above the floor"),
    ],
)
def test_other_runs_go_on(rates, options):
    watch(rates, **options)


BREAKS = (
    Break(
        "a rate that rises taken for a collapse",
        "ul/train/collapse.py",
        "self._low_since is None or rate_bpp > RECOVERY_FACTOR * self._low_since[1]",
        "self._low_since is None",
        "test_other_runs_go_on",
    ),
    Break(
        "a run that is ended during its ramp",
        "ul/train/collapse.py",
        "or step < self._ramp_steps",
        "",
        "test_other_runs_go_on",
    ),
)
