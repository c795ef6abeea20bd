"""The law of the best bitrate, on trials that follow it."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.planning import bitrate_law
from ul.planning.bitrate_law import BitrateLaw, BudgetTrial

LAW = BitrateLaw(
    b=0.3, s=1.2, a=0.2, p=0.8, q=0.25, r=0.7, e=0.2, u=0.1, v=0.3,
    mean_bits=100.0, mean_flops=1e15,
)  # fmt: skip


def trials(noise=0.0, rates=(40, 80, 160, 320), budgets=(1e14, 4e14, 3e15, 1e16)):
    rng = np.random.default_rng(0)

    def trial(rate, flops):
        rates = np.float64(rate), np.float64(flops)
        exact = LAW.base_bits(*rates), LAW.reconstructions(rate), LAW.samples(*rates)
        base, *distances = (x * np.exp(noise * rng.normal()) for x in exact)
        return BudgetTrial(rate, flops, float(base), *map(float, distances))

    return [trial(*pair) for pair in itertools.product(rates, budgets)]


def test_exact_trials_give_their_law():
    law = bitrate_law.fit(trials())
    for rate, flops in ((50, 2e14), (300, 5e16)):
        for name in ("samples", "base_bits"):
            found, wanted = (getattr(x, name)(rate, flops) for x in (law, LAW))
            assert found == pytest.approx(wanted, rel=1e-3)
        assert law.reconstructions(rate) == pytest.approx(LAW.reconstructions(rate))
    assert bitrate_law.leave_one_out_error(trials()) < 1e-3


@pytest.mark.parametrize("flops", [1e14, 1e16, 1e17])
def test_the_best_rate_is_the_minimum_of_the_samples_distance(flops):
    grid = np.geomspace(1, 1e5, 20_001)
    best = grid[np.argmin(LAW.samples(grid, flops))]
    assert LAW.best_rate_bits(flops) == pytest.approx(best, rel=1e-3)


def test_more_compute_affords_more_bits():
    rates = LAW.best_rate_bits(np.geomspace(1e14, 1e18, 5))
    assert np.all(np.diff(rates) > 0)


@pytest.mark.slow
def test_the_interval_covers_the_truth_and_shrinks_with_the_noise():
    widths, many = (
        [],
        dict(rates=np.geomspace(40, 320, 6), budgets=np.geomspace(1e14, 1e16, 6)),
    )
    for noise in (0.1, 0.02):
        laws = bitrate_law.bootstrap(trials(noise, **many))
        best = [float(x.best_rate_bits(1e16)) for x in laws]
        low, high = bitrate_law.interval(best, mass=0.99)
        assert low < LAW.best_rate_bits(1e16) < high
        widths.append(high / low)
    assert widths[1] < widths[0]
    assert 0.01 < bitrate_law.leave_one_out_error(trials(0.1)) < 0.3


@pytest.mark.parametrize(
    "few",
    [
        trials()[:7],
        trials(rates=(40, 80)),
        trials(budgets=(1e14, 4e14)),
    ],
)
def test_a_sweep_that_is_too_small_is_refused(few):
    with pytest.raises(ConfigError, match=f"it has {len(few)} with"):
        bitrate_law.check_trials(few)
    bitrate_law.check_trials(trials())


def test_only_the_best_use_of_compute_is_kept():
    """At each bitrate the distance must fall with the compute."""

    def trial(rate, flops, samples):
        return BudgetTrial(rate, flops, rate, 0.1, samples)

    given = [
        trial(1.0, 1.0, 5.0), trial(1.0, 2.0, 6.0), trial(1.0, 3.0, 4.0),
        trial(2.0, 2.0, 9.0), trial(2.0, 2.0, 8.0), trial(2.0, 4.0, 8.0),
    ]  # fmt: skip
    expected = [True, False, True, False, True, True]
    assert bitrate_law.efficient(given) == expected


def test_a_budget_far_outside_is_refused():
    bitrate_law.check_budget(2e17, trials())
    for flops in (1e12, 1e18):
        with pytest.raises(ConfigError, match="1e.14 to 1e.16; got"):
            bitrate_law.check_budget(flops, trials())


def test_a_constant_distance_of_samples_has_an_optimum_all_the_same():
    """Exponents stay positive where compute changes nothing."""
    same = [dataclasses.replace(t, samples=1.0, reconstructions=0.5) for t in trials()]
    law = bitrate_law.fit(same)
    assert min(law.s, law.p, law.q) >= bitrate_law.SMALLEST
    assert np.isfinite(law.best_rate_bits(1e15))


BREAKS = (
    Break(
        "an optimum that forgets the exponents",
        "ul/planning/bitrate_law.py",
        "ratio ** (1.0 / (self.p + self.s))",
        "ratio",
        "test_the_best_rate_is_the_minimum_of_the_samples_distance",
    ),
)
