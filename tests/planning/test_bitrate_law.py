"""The law of the best bitrate, on trials that follow it."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.planning import bitrate_law
from ul.planning.bitrate_law import BitrateLaw, BudgetTrial, Excess, Scales

RATES, SIZES, LENGTHS = (40, 80, 160, 320), (1e8, 4e8, 1e9), (1e5, 4e5, 2e6)
LAW = BitrateLaw(
    f=0.3, s=1.2, r=0.7, scales=Scales(100.0, 4e8, 5e5), rates=(40.0, 320.0),
    sizes=(1e8, 1e9), distance=Excess(a=0.2, p=0.8, m=0.25, b=0.3, q=-0.4, n=0.6),
    share=Excess(a=0.2, p=0.1, m=0.3, b=0.1, q=-0.2, n=0.5),
)  # fmt: skip


def trials(noise=0.0, rates=RATES, sizes=SIZES, lengths=LENGTHS):
    rng = np.random.default_rng(0)

    def trial(*setting):
        exact = (
            LAW.base_bits(*setting),
            LAW.reconstructions(setting[0]),
            LAW.samples(*setting),
        )
        return BudgetTrial(
            *setting, *(float(x * np.exp(noise * rng.normal())) for x in exact)
        )

    return [trial(*setting) for setting in itertools.product(rates, sizes, lengths)]


def test_exact_trials_give_their_law():
    law = bitrate_law.fit(trials())
    for setting in ((50, 2e8, 3e5), (300, 5e9, 1e7)):
        for name in ("samples", "base_bits"):
            fitted, exact = (getattr(x, name)(*setting) for x in (law, LAW))
            assert fitted == pytest.approx(exact, rel=1e-3)
        rate = setting[0]
        assert law.reconstructions(rate) == pytest.approx(LAW.reconstructions(rate))
    assert bitrate_law.leave_one_out_error(trials()) < 1e-3


@pytest.mark.parametrize("flops", [1e14, 1e15, 1e16, 1e17])
def test_the_best_setting_is_the_minimum_of_the_samples_distance(flops):
    grids = np.geomspace(*LAW.rates, 401), np.geomspace(1e8, 3e10, 401)
    rate, size = np.meshgrid(*grids)
    distances = LAW.samples(rate, size, flops / size)
    best = LAW.best(flops)
    assert best.samples == pytest.approx(distances.min(), rel=1e-4)
    index = np.unravel_index(distances.argmin(), distances.shape)
    assert best.rate_bits == pytest.approx(rate[index], rel=0.02)
    assert best.flops_per_image == pytest.approx(size[index], rel=0.03)


def test_the_best_size_at_a_rate_is_that_of_the_closed_form():
    """The derivative of equation 2 with respect to log N, at constant C, is zero."""
    best = LAW.best(1e16, 80.0)
    size, length = best.flops_per_image / 4e8, 1e16 / best.flops_per_image / 5e5
    small, short = 0.2 * 0.8**0.8 * size**-0.25, 0.3 * 0.8**-0.4 * length**-0.6
    assert best.rate_bits == pytest.approx(80.0)
    assert 0.25 * small == pytest.approx(0.6 * short, rel=1e-2)


def test_more_compute_affords_more_bits_where_size_limits_the_base():
    late = dataclasses.replace(LAW, distance=Excess(0.2, 0.8, 0.25, 0.3, 0, 0.6))
    rates = [late.best(flops).rate_bits for flops in np.geomspace(1e14, 1e17, 4)]
    assert np.all(np.diff(rates) > 1)


def test_the_optimum_stays_within_the_rates_of_the_sweep(monkeypatch):
    """A rate that nobody measured is not recommended."""
    monkeypatch.setattr(bitrate_law, "NUM_DRAWS", 8)
    always_less = dataclasses.replace(LAW, s=0.0)
    assert always_less.best(1e18).rate_bits == pytest.approx(40.0)
    always_more = dataclasses.replace(LAW, distance=Excess(0.2, -1.0, 0.2, 0.1, 0, 0.5))
    assert always_more.best(1e14).rate_bits == pytest.approx(320.0)
    # A draw misses the only trial of the highest rate about every third time.
    laws = bitrate_law.bootstrap(trials(0.02)[:28])
    assert {law.rates for law in laws} == {(40.0, 320.0)}


@pytest.mark.slow
def test_the_interval_covers_the_truth_and_shrinks_with_the_noise():
    widths = []
    many = dict(rates=np.geomspace(40, 320, 6), sizes=np.geomspace(1e8, 1e9, 4))
    for noise in (0.1, 0.02):
        laws = bitrate_law.bootstrap(trials(noise, **many))
        best = [law.best(1e15).rate_bits for law in laws]
        low, high = bitrate_law.interval(best, mass=0.99)
        assert low < LAW.best(1e15).rate_bits < high
        widths.append(high / low)
    assert widths[1] < widths[0]
    assert 0.01 < bitrate_law.leave_one_out_error(trials(0.1, **many)) < 0.3


@pytest.mark.parametrize(
    "few",
    [
        trials()[:11],
        trials(rates=(40, 80)),
        trials(sizes=(1e8, 1e9)),
        trials(lengths=(1e5,)),
    ],
)
def test_a_sweep_that_is_too_small_is_refused(few):
    with pytest.raises(ConfigError, match=f"it has {len(few)} with"):
        bitrate_law.check_trials(few)
    bitrate_law.check_trials(trials())


def test_a_budget_far_outside_is_refused():
    bitrate_law.check_budget(5e16, trials())
    for flops in (1e11, 1e17):
        with pytest.raises(ConfigError, match=r"1e\+13 to 2e\+15; got"):
            bitrate_law.check_budget(flops, trials())


def test_a_constant_distance_of_samples_has_an_optimum_all_the_same():
    """Exponents stay positive where compute changes nothing."""
    same = [dataclasses.replace(t, samples=1.0, reconstructions=0.5) for t in trials()]
    law = bitrate_law.fit(same)
    assert min(law.s, law.distance.m, law.distance.n) >= bitrate_law.SMALLEST
    assert np.isfinite(law.best(1e15).rate_bits)


BREAKS = (
    Break(
        "a length that does not depend on the size",
        "ul/planning/bitrate_law.py",
        "self.samples(rate, size, flops / size)",
        "self.samples(rate, size, flops / self.sizes[0])",
        "test_the_best_setting_is_the_minimum_of_the_samples_distance",
    ),
    Break(
        "draws that search within their own rates",
        "ul/planning/bitrate_law.py",
        "dataclasses.replace(law, rates=whole.rates, sizes=whole.sizes)",
        "law",
        "test_the_optimum_stays_within_the_rates_of_the_sweep",
    ),
)
