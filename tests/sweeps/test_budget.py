"""The best bitrate of a sweep's folder: what is read, fitted, printed and drawn."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tests.lib import sweep_folder
from tests.lib.breaks import Break
from tests.planning.test_bitrate_law import LAW
from ul.core.errors import ConfigError
from ul.planning import bitrate_law
from ul.sweeps import budget, budget_plots

RATES = {1.5: 0.4, 2.0: 0.8, 3.0: 1.6}  # bits/pixel of 8x8 images, by loss factor
STEPS = (200, 800, 3200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine finished trials that follow a law, a wasteful one, and one without samples.

    Each was also evaluated with fewer samples, whose distance is larger.
    """
    out = tmp_path_factory.mktemp("budget")
    entries = []
    for factor, steps in [
        *itertools.product(RATES, STEPS),
        (3.0, 6400),
        (3.0, 1),
    ]:
        name = f"factor{factor:g}-steps{steps}"
        settings = {"loss.weighting.factor": factor}
        stage1, stage2 = (out / name / stage for stage in ("stage1", "stage2"))
        config = sweep_folder.resolved_config("stage1", **settings)
        sweep_folder.write_run(stage1, config)
        changes = {"stage1.workdir": str(stage1), "steps": steps}
        sweep_folder.write_run(
            stage2, sweep_folder.resolved_config("stage2", **changes)
        )
        bits, flops = 64 * RATES[factor], 1e12 * steps
        sweep_folder.write_evaluation(
            stage1, "reconstruction", 2000, 360, picture=False, rate_bpp=RATES[factor],
            reconstruction_frechet=9.0,
        )  # fmt: skip
        if steps > 1:
            distances = {
                "frechet": float(LAW.samples(bits, flops)) + 1.0 * (steps == 6400),
                "frechet_decoded": float(LAW.reconstructions(bits)),
            }
            for count, more in ((500, 0.0), (300, 0.7)):
                sweep_folder.write_evaluation(
                    stage2, "generation", steps, count, picture=False, guidance=1.0,
                    base_rate_bpp=float(LAW.base_bits(bits, flops)) / 64,
                    **{key: value + more for key, value in distances.items()},
                )  # fmt: skip
        stages = [("digits.py:stage1", "stage1"), ("digits.py:stage2", "stage2")]
        entries.append(
            {
                "name": name,
                "overrides": settings,
                "stages": [
                    {
                        "config": f"experiments/{config}",
                        "workdir": f"{name}/{run}",
                        "overrides": {},
                    }
                    for config, run in stages
                ],
            }
        )
    return sweep_folder.write_sweep_json(out, entries)


def test_the_trials_of_a_sweep_are_fitted_and_those_without_numbers_named(folder):
    found = budget.read_trials(str(folder))
    assert len(found.trials) == 9 and found.num_pixels == 64
    assert found.metric == "frechet"
    assert found.skipped == (
        "factor3-steps1: without base_rate_bpp, frechet_decoded, frechet",
        "factor3-steps6400: less compute reaches a smaller distance at its bitrate",
    )
    law = bitrate_law.fit(found.trials)
    trial = found.trials[4]
    assert law.samples(trial.rate_bits, trial.flops) == pytest.approx(
        trial.samples, rel=1e-3
    )
    assert found.factor(64 * 0.8) == pytest.approx(2.0)
    assert 2.0 < found.factor(64 * 1.2) < 3.0
    assert found.factor(64 * 2.0) is None


def test_the_command_prints_a_row_for_each_budget_and_draws(folder, command, tmp_path):
    picture = tmp_path / "budget.png"
    flops = [t.flops for t in budget.read_trials(str(folder)).trials]
    out = command(
        "plan", "budget", f"--runs={folder}", f"--flops={flops[0]:g},{flops[2]:g}",
        f"--picture={picture}",
    )  # fmt: skip
    assert out.count(f"| {flops[0]:.3g}") == 1 and out.count(f"| {flops[2]:.3g}") == 1
    assert "distance of samples = " in out and "that was left out of the fit" in out
    assert "left out: factor3-steps1" in out
    with Image.open(picture) as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image))) > 50


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--runs is required"),
        (("--runs=nowhere",), "nowhere"),
        (("--flops=much",), "--flops must be numbers; got ['much']"),
        (("--flops=1e30",), "--flops must be within a factor of 30"),
        (("--picture=plot.pdf",), "--picture must end in .png"),
    ],
)
def test_mistakes_cost_one_line(folder, command, args, message):
    runs = () if not args or "runs" in args[0] else (f"--runs={folder}",)
    out = command("plan", "budget", *runs, *args, code=64)
    assert message in out and "Traceback" not in out


def test_a_small_sweep_is_refused(tmp_path):
    sweep_folder.write_sweep(tmp_path / "small")
    with pytest.raises(
        ConfigError,
        match="at least 8 finished trials .* it has 0 with 0 .* Left out were 6, such as "
        "factor1.5-bias3: without frechet_decoded",
    ):
        budget.read_trials(str(tmp_path / "small"))


def test_the_picture_shows_the_trials(folder, tmp_path):
    budget_plots.draw(str(tmp_path / "a.png"), budget.read_trials(str(folder)))
    assert (tmp_path / "a.png").stat().st_size > 10_000


BREAKS = (
    Break(
        "numbers of whatever count comes last",
        "ul/sweeps/budget.py",
        "max(common, key=lambda n: n or 0)",
        "min(common, key=lambda n: n or 0)",
        "test_the_trials_of_a_sweep_are_fitted_and_those_without_numbers_named",
    ),
    Break(
        "rates in bits per pixel where bits per image belong",
        "ul/sweeps/budget.py",
        "bits = [numbers[name] * num_pixels for name in needed[:2]]",
        "bits = [numbers[name] for name in needed[:2]]",
        "test_the_trials_of_a_sweep_are_fitted_and_those_without_numbers_named",
    ),
)
