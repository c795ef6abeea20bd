"""The best bitrate of a sweep's folder: what is read, fitted, printed and drawn."""

import dataclasses
import itertools

import numpy as np
import pytest
from PIL import Image

from experiments import digits
from tests.lib import sweep_folder
from tests.lib.breaks import Break
from tests.planning.test_bitrate_law import LAW
from ul.core.errors import ConfigError
from ul.planning import bitrate_law
from ul.planning.pods import model_flops
from ul.stages import registry
from ul.sweeps import budget, budget_plots

RATES = {1.5: 0.7, 2.0: 1.4, 3.0: 2.8}  # bits/pixel of 8x8 images, by loss factor
STEPS = (200, 800)
WIDTHS = (32, 64, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen finished trials that follow a law, and one without samples.

    Each was also evaluated with fewer samples, whose distance is larger.
    """
    out = tmp_path_factory.mktemp("budget")
    entries = []
    settings = [*itertools.product(RATES, WIDTHS, STEPS), (3.0, 128, 1)]
    for factor, width, steps in settings:
        name = f"factor{factor:g}-width{width}-steps{steps}"
        overrides = {"loss.weighting.factor": factor}
        stage1, stage2 = (out / name / stage for stage in ("stage1", "stage2"))
        config = sweep_folder.resolved_config("stage1", **overrides)
        sweep_folder.write_run(stage1, config)
        changes = {
            "stage1.workdir": str(stage1), "steps": steps,
            "base.widths": (width,), "base.depths": (1,),
        }  # fmt: skip
        config = sweep_folder.resolved_config("stage2", **changes)
        sweep_folder.write_run(stage2, config)
        bits = 64 * RATES[factor]
        base = registry.build(registry.parse(config))
        size = model_flops.closed_form_flops(base).training
        setting = bits, 100.0 * size, config["batch_size"] * steps
        sweep_folder.write_evaluation(
            stage1, "reconstruction", 2000, 360, picture=False, rate_bpp=RATES[factor],
            reconstruction_frechet=9.0,
        )  # fmt: skip
        if steps > 1:
            distances = {
                "frechet": float(LAW.samples(*setting)),
                "frechet_decoded": float(LAW.reconstructions(bits)),
            }
            for count, more in ((500, 0.0), (300, 0.7)):
                sweep_folder.write_evaluation(
                    stage2, "generation", steps, count, picture=False, guidance=1.0,
                    base_rate_bpp=float(LAW.base_bits(*setting)) / 64,
                    **{key: value + more for key, value in distances.items()},
                )  # fmt: skip
        stages = [("digits.py:stage1", "stage1"), ("digits.py:stage2", "stage2")]
        entries.append(
            {
                "name": name,
                "overrides": overrides,
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
    sweep = budget.read_trials(str(folder))
    assert len(sweep.trials) == 18 and sweep.num_pixels == 64
    assert sweep.metric == "frechet"
    assert sweep.skipped == (
        "factor3-width128-steps1: without base_rate_bpp, frechet_decoded, frechet",
    )
    assert {t.num_images for t in sweep.trials} == {
        steps * digits.get_config("stage2").batch_size for steps in STEPS
    }
    assert {t.rate_bits for t in sweep.trials} == {64 * r for r in RATES.values()}
    law = bitrate_law.fit(sweep.trials)
    for trial in sweep.trials:
        setting = trial.rate_bits, trial.flops_per_image, trial.num_images
        assert law.samples(*setting) == pytest.approx(trial.samples, rel=1e-3)
    assert sweep.factor(64 * 1.4) == pytest.approx(2.0)
    assert 2.0 < sweep.factor(64 * 2.0) < 3.0
    assert sweep.factor(64 * 9.0) == 3.0


def test_the_command_prints_a_row_for_each_budget_and_draws(folder, command, tmp_path):
    picture = tmp_path / "budget.png"
    flops = sorted(t.flops for t in budget.read_trials(str(folder)).trials)
    budgets = flops[0], flops[-1]
    out = command(
        "plan", "budget", f"--runs={folder}",
        f"--flops={budgets[0]:g},{budgets[1]:g}", f"--picture={picture}",
    )  # fmt: skip
    assert all(out.count(f"| {b:.3g} ") >= 1 for b in budgets)
    assert "distance of samples = " in out and "that was left out of the fit" in out
    assert "left out: factor3-width128-steps1" in out
    with Image.open(picture) as image:
        assert image.format == "PNG" and len(np.unique(np.asarray(image))) > 50


def test_a_rate_at_the_edge_of_the_sweep_is_called_so(folder, monkeypatch):
    monkeypatch.setattr(bitrate_law, "NUM_DRAWS", 8)
    sweep = budget.read_trials(str(folder))
    less = [
        dataclasses.replace(t, samples=t.samples * t.rate_bits**2) for t in sweep.trials
    ]
    table = budget.recommend(dataclasses.replace(sweep, trials=tuple(less)), [])
    assert table.count("0.7, the sweep's lowest") == 4


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
        match="at least 12 finished trials .* it has 0 with 0, 0 and 0.* Left out were 6, "
        "such as factor1.5-bias3: without frechet_decoded",
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
        "(numbers[name] * num_pixels for name in needed[:2])",
        "(numbers[name] for name in needed[:2])",
        "test_the_trials_of_a_sweep_are_fitted_and_those_without_numbers_named",
    ),
)
