"""Power-function averages against integrals, and post-hoc averages made from them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from tests.lib.breaks import Break
from tests.lib.untrained import parsed
from ul.checkpoints import store, workdir
from ul.core import ema_names
from ul.core import mesh as meshes
from ul.core.errors import CheckpointError, ConfigError
from ul.inference import weights as stored_weights
from ul.stages import registry
from ul.train import ema, state

WIDTHS = (0.05, 0.1)


def profile(tau, t, e):
    return np.where(tau <= t, (e + 1) * tau**e / t ** (e + 1), 0.0)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, 0.288])
def test_the_width_is_the_standard_deviation_of_the_weights(width):
    e = ema.exponent_from_width(width)

    def moment(n):
        value, _ = integrate.quad(
            lambda s: s**n * profile(s, 1.0, e), 0, 1, epsabs=1e-12
        )
        return value

    assert moment(0) == pytest.approx(1.0)
    assert np.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(width, rel=1e-6)


def test_exponents_are_those_of_the_paper():
    np.testing.assert_allclose(
        [ema.exponent_from_width(w) for w in WIDTHS], [16.97, 6.94], atol=5e-3
    )
    assert ema.exponent_from_width(ema_names.MAX_RELATIVE_STD) == pytest.approx(
        0.0, abs=1e-9
    )


@pytest.mark.parametrize("t_b", [300.0, 700.0, 1000.0])
def test_inner_products_are_the_integrals(t_b):
    t_a, e_a, e_b = 700.0, 6.94, 16.97

    def product(tau):
        return profile(tau, t_a, e_a) * profile(tau, t_b, e_b)

    expected, _ = integrate.quad(product, 0, min(t_a, t_b), epsabs=1e-13)
    actual = ema.profile_inner_product(t_a, e_a, t_b, e_b)
    assert actual == pytest.approx(expected, rel=1e-7)


def trajectory(step):
    """The parameter after `step` updates: a constant, a drift and a wave."""
    return 100.0 + np.sqrt(step) + np.sin(step / 7.0)


def average_weights(until, width, total):
    """Weight of each of `total` steps in the average after `until` steps."""
    i = np.minimum(np.arange(total + 1.0), until)
    return np.diff((i / until) ** (ema.exponent_from_width(width) + 1))


def exact_average(until, width):
    """The average of the trajectory after `until` steps, in float64."""
    return average_weights(until, width, until) @ trajectory(np.arange(1, until + 1.0))


def updated_averages(steps, names):
    """Each step and the averages after it, as training computes them."""
    averages = {name: {"w": jnp.float32(5.0)} for name in names}

    @jax.jit
    def update(averages, w, step):
        return ema.update(averages, {"w": w}, step)

    for step in range(1, steps + 1):
        averages = update(averages, jnp.float32(trajectory(step)), jnp.int32(step))
        yield step, averages


def test_an_update_gives_the_weights_of_the_profile():
    names = [f"power:{w}" for w in WIDTHS]
    for step, averages in updated_averages(60, names):
        actual = [float(averages[name]["w"]) for name in names]
        expected = [exact_average(step, w) for w in WIDTHS]
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def combination_and_bound(steps, width, until):
    """The combination, and the norm of its error over the steps of a unit trajectory."""
    stored = [(s, w) for s in steps for w in WIDTHS]
    combination = ema.find_combination(stored, until, width)
    e = ema.exponent_from_width(width)
    norm = np.sqrt(ema.profile_inner_product(1.0, e, 1.0, e) / until)
    return combination, combination.relative_error * norm


def trajectory_norm(until):
    """The norm of the trajectory about its mean, which the coefficients' sum of 1 removes."""
    w = trajectory(np.arange(1, until + 1.0))
    return np.linalg.norm(w - w.mean())


@pytest.mark.parametrize(
    ("width", "every", "max_error"),
    [(0.07, 50, 0.04), (0.07, 25, 0.02), (0.15, 25, 0.04), (0.03, 10, 0.03)],
)
def test_the_error_of_a_post_hoc_average_is_the_predicted_one(width, every, max_error):
    until, steps = 200, range(every, 201, every)
    combination, bound = combination_and_bound(steps, width, until)
    assert 0 < combination.relative_error < max_error
    assert sum(combination.coefficients) == pytest.approx(1.0, abs=1e-9)
    stored = [exact_average(s, w) for s in steps for w in WIDTHS]
    error = np.dot(combination.coefficients, stored) - exact_average(until, width)
    assert abs(error) < bound * trajectory_norm(until)
    # For the trajectory that is parallel to the difference, the bound is reached.
    stored = [average_weights(s, w, until) for s in steps for w in WIDTHS]
    combined = np.dot(combination.coefficients, stored)
    difference = combined - average_weights(until, width, until)
    assert 0.9 * bound < np.linalg.norm(difference) < bound


def test_the_relative_error_is_the_distance_of_the_profiles():
    stored = [(s, w) for s in (500, 1000) for w in WIDTHS]
    combination = ema.find_combination(stored, 1000, 0.07)
    e = ema.exponent_from_width(0.07)

    def squared_difference(tau):
        combined = sum(
            c * profile(tau, t, ema.exponent_from_width(w))
            for c, (t, w) in zip(combination.coefficients, stored, strict=True)
        )
        return (combined - profile(tau, 1000, e)) ** 2

    integral, _ = integrate.quad(
        squared_difference, 0, 1000, points=[500], epsabs=1e-14
    )
    norm = ema.profile_inner_product(1000.0, e, 1000.0, e)
    assert combination.relative_error == pytest.approx(
        np.sqrt(integral / norm), rel=1e-5
    )


def test_a_stored_average_is_its_own_combination():
    stored = [(s, w) for s in range(10, 101, 10) for w in WIDTHS]
    combination = ema.find_combination(stored, 100, 0.1)
    expected = [0.0] * 19 + [1.0]
    np.testing.assert_allclose(combination.coefficients, expected, atol=1e-6)
    assert combination.relative_error < 1e-6


@pytest.mark.parametrize(
    ("entries", "is_valid"),
    [
        ((0.999, "power:0.05"), True),
        (("power:0.1",), True),
        (("power:0.050",), False),  # The canonical name is power:0.05.
        (("power:0.3",), False),
        (("power:nan",), False),
        (("0.999",), False),
    ],
)
def test_configs_name_averages(entries, is_valid):
    plain = dataclasses.asdict(parsed("digits", "smoke")) | {"ema": entries}
    if is_valid:
        assert registry.parse(plain).ema == entries
    else:
        with pytest.raises(ConfigError, match="ema must be .* or power:<width>"):
            registry.parse(plain)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of 100 steps, with two power-function averages every ten steps."""
    path = tmp_path_factory.mktemp("run")
    names = tuple(f"power:{w}" for w in WIDTHS)
    c = dataclasses.replace(parsed("digits", "smoke"), ema=names)
    plain = dataclasses.asdict(c)
    workdir.write_or_check_config(path, plain, {}, allow_changes=False)
    checkpoints = store.Checkpoints(path, keep=1, keep_every=10)
    for step, averages in updated_averages(100, names):
        if step % 10 == 0:
            params = {"w": jnp.float32(trajectory(step))}
            checkpoints.save(
                step,
                state.TrainState(
                    step=jnp.int32(step), params=params, opt={}, ema=averages
                ),
            )
    checkpoints.close()
    return path, c


def restored(run, name, step=None):
    path, c = run
    names = tuple(map(str, c.ema))
    saved = stored_weights.SavedRun(str(path), None, None, names, {})
    chosen = stored_weights.choose(saved, step, name)
    shapes = {"w": jax.ShapeDtypeStruct((), jnp.float32)}
    return chosen, float(stored_weights.restore(chosen, shapes, meshes.make())["w"])


def test_weights_of_any_width_come_from_the_checkpoints(run):
    for name, step in (("power:0.07", 100), ("power:0.12", 100), ("power:0.07", 60)):
        chosen, actual = restored(run, name, step)
        steps, width = range(10, step + 1, 10), ema_names.relative_std(name)
        _, bound = combination_and_bound(steps, width, step)
        error = abs(actual - exact_average(step, width))
        assert error < bound * trajectory_norm(step) + 1e-4  # float32
        assert chosen.ema_sources["steps"] == list(steps)
        assert chosen.ema_sources["averages"] == ["power:0.05", "power:0.1"]
    chosen, actual = restored(run, "power:0.1")
    assert (len(chosen.parts), chosen.step, chosen.ema_sources) == (1, 100, {})
    assert actual == pytest.approx(exact_average(100, 0.1), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "step", "error", "message"),
    [
        (
            "power:0.07",
            10,
            CheckpointError,
            "at the 1 steps kept in .* at most 5%; the best combination has ",
        ),
        ("power:0.01", 100, CheckpointError, r"the best combination has \d+\.\d%"),
        ("power:0.5", 100, ConfigError, "one of .*any width under 0.2887"),
        ("ema:0.998", 100, ConfigError, "weights must be one of .*; got 'ema:0.998'"),
    ],
)
def test_averages_that_cannot_be_made_are_refused_in_one_line(
    run, name, step, error, message
):
    with pytest.raises(error, match=message) as e:
        restored(run, name, step)
    assert "\n" not in str(e.value)


BREAKS = (
    Break(
        "a power-function average with the size of the next step",
        "ul/train/ema.py",
        "jnp.log1p(-1.0 / step)",
        "jnp.log1p(-1.0 / (step + 1))",
        "test_an_update_gives_the_weights_of_the_profile",
    ),
    Break(
        "profiles integrated to the later end",
        "ul/train/ema.py",
        "np.minimum(t_a, t_b)",
        "np.maximum(t_a, t_b)",
        "test_inner_products_are_the_integrals",
    ),
)
