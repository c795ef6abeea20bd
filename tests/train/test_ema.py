"""Power-function averages against integrals, and averages made afterwards of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from tests.lib.untrained import parsed
from ul import config
from ul.checkpoints import store, workdir
from ul.core import ema_names
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.inference import weights as stored_weights
from ul.train import ema, state

WIDTHS = (0.05, 0.1)


def profile(tau, t, e):
    return np.where(tau <= t, (e + 1) * tau**e / t ** (e + 1), 0.0)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.288])
def test_the_width_is_the_standard_deviation_of_the_weights(width):
    e = ema.exponent(width)

    def moment(n):
        return integrate.quad(lambda s: s**n * profile(s, 1.0, e), 0, 1, epsabs=1e-12)[
            0
        ]

    assert moment(0) == pytest.approx(1.0)
    assert np.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(width, rel=1e-6)


def test_exponents_are_those_of_the_paper():
    np.testing.assert_allclose(
        [ema.exponent(w) for w in WIDTHS], [16.97, 6.94], atol=5e-3
    )
    assert ema.exponent(ema_names.WIDEST) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("t_b", [300.0, 700.0, 1000.0])
def test_inner_products_are_the_integrals(t_b):
    t_a, e_a, e_b = 700.0, 6.94, 16.97

    def product(tau):
        return profile(tau, t_a, e_a) * profile(tau, t_b, e_b)

    want, _ = integrate.quad(product, 0, min(t_a, t_b), epsabs=1e-13)
    assert ema.inner(t_a, e_a, t_b, e_b) == pytest.approx(want, rel=1e-7)


def trajectory(step):
    """Parameters after `step` updates: a part that stays, a drift and a wave."""
    return 100.0 + np.sqrt(step) + np.sin(step / 7.0)


def weights(until, width, total):
    """Of the parameters after each of `total` steps in the average after `until`."""
    i, e = np.minimum(np.arange(total + 1.0), until), ema.exponent(width)
    return np.diff((i / until) ** (e + 1))


def averaged(until, width):
    """The mean of the trajectory, in float64."""
    return weights(until, width, until) @ trajectory(np.arange(1, until + 1.0))


def run(steps, names):
    """Averages after each of `steps` updates, as training makes them."""
    kept = {name: {"w": jnp.float32(5.0)} for name in names}

    @jax.jit
    def update(kept, w, step):
        return ema.update(kept, {"w": w}, step)

    for step in range(1, steps + 1):
        kept = update(kept, jnp.float32(trajectory(step)), jnp.int32(step))
        yield step, kept


def test_an_update_gives_the_weights_of_the_profile():
    names = [f"power:{w}" for w in WIDTHS]
    for step, kept in run(60, names):
        got = [float(kept[name]["w"]) for name in names]
        np.testing.assert_allclose(got, [averaged(step, w) for w in WIDTHS], rtol=1e-6)


def bound(steps, width, until):
    """The combination, and how far its profile is off, its norm in 1 / sqrt(steps)."""
    found = ema.combine([(s, w) for s in steps for w in WIDTHS], until, width)
    e = ema.exponent(width)
    return found, found.off * np.sqrt(ema.inner(1.0, e, 1.0, e) / until)


def spread(until):
    """The trajectory's norm about its mean: the factors' sum of 1 takes that out."""
    return np.linalg.norm((w := trajectory(np.arange(1, until + 1.0))) - w.mean())


@pytest.mark.parametrize(
    ("width", "every", "off"),
    [(0.07, 50, 0.04), (0.07, 25, 0.02), (0.15, 25, 0.04), (0.03, 10, 0.03)],
)
def test_an_average_made_afterwards_is_as_near_as_said(width, every, off):
    until, steps = 200, range(every, 201, every)
    found, most = bound(steps, width, until)
    assert 0 < found.off < off
    assert sum(found.factors) == pytest.approx(1.0, abs=1e-9)
    kept = [averaged(s, w) for s in steps for w in WIDTHS]
    error = np.dot(found.factors, kept) - averaged(until, width)
    assert abs(error) < most * spread(until)
    # The trajectory that lies along the difference is as far off as was said.
    kept = [weights(s, w, until) for s in steps for w in WIDTHS]
    apart = np.dot(found.factors, kept) - weights(until, width, until)
    assert 0.9 * most < np.linalg.norm(apart) < most


def test_the_distance_is_that_of_the_profiles():
    at = [(s, w) for s in (500, 1000) for w in WIDTHS]
    found = ema.combine(at, 1000, 0.07)

    def square(tau):
        made = sum(
            f * profile(tau, t, ema.exponent(w))
            for f, (t, w) in zip(found.factors, at, strict=True)
        )
        return (made - profile(tau, 1000, ema.exponent(0.07))) ** 2

    e = ema.exponent(0.07)
    apart, _ = integrate.quad(square, 0, 1000, points=[500], epsabs=1e-14)
    assert found.off == pytest.approx(
        np.sqrt(apart / ema.inner(1000.0, e, 1000.0, e)), rel=1e-5
    )


def test_what_is_kept_is_found_again():
    at = [(s, w) for s in range(10, 101, 10) for w in WIDTHS]
    found = ema.combine(at, 100, 0.1)
    np.testing.assert_allclose(found.factors, [0.0] * 19 + [1.0], atol=1e-6)
    assert found.off < 1e-6


@pytest.mark.parametrize(
    ("entries", "good"),
    [
        ((0.999, "power:0.05"), True),
        (("power:0.1",), True),
        (("power:0.050",), False),  # its name would be another
        (("power:0.3",), False),
        (("power:nan",), False),
        (("0.999",), False),
    ],
)
def test_configs_name_averages(entries, good):
    plain = dataclasses.asdict(parsed("digits", "smoke")) | {"ema": entries}
    if good:
        assert config.parse(plain).ema == entries
    else:
        with pytest.raises(ConfigError, match="ema is .* or power:<width>"):
            config.parse(plain)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run's directory with two power-function averages every ten steps of a hundred."""
    path = tmp_path_factory.mktemp("kept")
    names = tuple(f"power:{w}" for w in WIDTHS)
    c = dataclasses.replace(parsed("digits", "smoke"), ema=names)
    workdir.claim(path, dataclasses.asdict(c), {}, allow=False)
    checkpoints = store.Checkpoints(path, keep=1, keep_every=10)
    for step, means in run(100, names):
        if step % 10 == 0:
            params = {"w": jnp.float32(trajectory(step))}
            at = state.State(step=jnp.int32(step), params=params, opt={}, ema=means)
            checkpoints.save(step, at)
    checkpoints.close()
    return path, c


def restored(kept, name, step=None):
    path, c = kept
    chosen = stored_weights.choose(path, c, step, name)
    shapes = {"w": jax.ShapeDtypeStruct((), jnp.float32)}
    return chosen, float(stored_weights.restore(chosen, shapes, meshes.make())["w"])


def test_weights_of_any_width_come_from_the_checkpoints(kept):
    for name, step in (("power:0.07", 100), ("power:0.12", 100), ("power:0.07", 60)):
        chosen, got = restored(kept, name, step)
        steps = range(10, step + 1, 10)
        _, most = bound(steps, ema_names.width(name), step)
        error = abs(got - averaged(step, ema_names.width(name)))
        assert error < most * spread(step) + 1e-4  # float32
        assert chosen.ema_sources["steps"] == list(steps)
        assert chosen.ema_sources["averages"] == ["power:0.05", "power:0.1"]
    chosen, got = restored(kept, "power:0.1")
    assert (len(chosen.parts), chosen.step, chosen.ema_sources) == (1, 100, {})
    assert got == pytest.approx(averaged(100, 0.1), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "step", "error", "message"),
    [
        ("power:0.07", 10, CheckpointError, "at the 1 steps that .* off, at most 5%"),
        ("power:0.01", 100, CheckpointError, r"\d+\.\d% off"),
        ("power:0.5", 100, ConfigError, "known are .*any width under 0.2887"),
        ("ema:0.998", 100, ConfigError, "not in the checkpoint"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(kept, name, step, error, message):
    with pytest.raises(error, match=message) as e:
        restored(kept, name, step)
    assert "\n" not in str(e.value)
