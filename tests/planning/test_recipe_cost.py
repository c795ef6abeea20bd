"""The FLOPs and chip-hours of evaluations and recipes."""

import dataclasses
import functools

import pytest

from tests.lib import forks, untrained
from tests.lib.breaks import Break
from ul.core.errors import ConfigError
from ul.planning import recipe_cost
from ul.planning.pods import model_flops
from ul.planning.pods.chips import CHIPS
from ul.runs.train_spec import TrainSpec


def forward(stage):
    return {n: f.forward for n, f in model_flops.flops_by_network(stage).items()}


def test_reconstructions_and_samples_are_counted_call_by_call():
    stage1, stage2 = (untrained.stage("digits", name) for name in ("stage1", "stage2"))
    items = recipe_cost.evaluation_costs(stage1, stage2, count=100, guidance=1.0)
    one, two = forward(stage1), forward(stage2)
    # Ten steps of the decoder and its last prediction, sixteen steps of the base.
    assert [item.name for item in items] == ["rFID", "gFID"]
    assert items[0].flops == 100 * (one["encoder"] + 11 * one["decoder"] + 2 * 11.4e9)
    assert items[1].flops == 100 * (16 * two["base"] + 11 * one["decoder"] + 11.4e9)


@pytest.mark.parametrize(
    ("kind", "interval", "calls"),
    [
        ("dpmpp_2m", (-10.0, 5.0), 20),
        ("dpmpp_2m", (-2.5, 5.0), 15),
        ("dpmpp_2m", (6.0, 9.0), 10),
        ("heun", (-10.0, 5.0), 40),
        ("heun", (-2.5, 9.0), 31),
    ],
)
def test_guidance_costs_a_call_more_inside_its_interval(kind, interval, calls):
    """Ten steps from -10 to 5 are 1.5 wide, and begin at -10, -8.5 and so on."""
    stage = untrained.stage(
        "digits", "stage2", sampling=dict(kind=kind, num_steps=10, grid="logsnr")
    )
    sampler = dataclasses.replace(stage.sampler, interval=interval)
    stage = dataclasses.replace(stage, sampler=sampler)
    assert recipe_cost.nfe_with_guidance(stage, 2.0) == calls
    assert recipe_cost.nfe_with_guidance(stage, 1.0) == (20 if kind == "heun" else 10)


def test_a_recipe_is_the_sum_of_its_stages():
    recipe = [
        TrainSpec(untrained.parsed("digits", name)) for name in ("stage1", "stage2")
    ]
    stages = [spec.stage for spec in recipe]
    items = recipe_cost.training_costs(recipe, cached_images=1000)
    assert [item.name for item in items] == [
        "training joint",
        "latent cache",
        "training base",
    ]
    training = [model_flops.closed_form_flops(stage).training for stage in stages]
    assert items[0].flops == 2000 * 64 * training[0]
    assert items[1].flops == 1000 * forward(stages[0])["encoder"]
    assert items[2].flops == 2500 * 64 * training[1]


def test_a_decoder_encodes_its_images_and_takes_the_place_of_the_old_one():
    recipe = [TrainSpec(untrained.parsed("digits", n)) for n in ("stage1", "decoder")]
    one, two = (forward(spec.stage) for spec in recipe)
    items = recipe_cost.training_costs(recipe, cached_images=7)
    assert [item.name for item in items][1:] == ["encoding", "training decoder"]
    assert items[1].flops == 2000 * 64 * one["encoder"]
    small = untrained.stage(
        "digits", "decoder", sampling=dict(kind="ddim", num_steps=3)
    )
    (item,) = recipe_cost.evaluation_costs(
        recipe[0].stage, small, count=10, guidance=1.0
    )
    assert item.flops == 10 * (one["encoder"] + 4 * two["decoder"] + 2 * 11.4e9)


def test_a_student_also_pays_for_its_targets():
    recipe = [TrainSpec(untrained.parsed("digits", n)) for n in ("stage1", "distill")]
    each = forward(recipe[1].stage)["decoder"]
    items = {i.name: i for i in recipe_cost.training_costs(recipe, cached_images=7)}
    assert list(items)[1:] == ["encoding", "targets", "training distill"]
    # Heun's step of the teacher, and its prediction at the end of a segment.
    assert items["targets"].flops == 1200 * 64 * 3 * each
    # The student's prediction at x_s, beside the differentiated one.
    training = model_flops.closed_form_flops(recipe[1].stage)
    assert training.undifferentiated == each
    assert items["training distill"].flops == 1200 * 64 * training.training


def test_a_student_is_evaluated_with_its_calls():
    stage1, student = (untrained.stage("digits", n) for n in ("stage1", "distill"))
    one, two = forward(stage1), forward(student)
    (item,) = recipe_cost.evaluation_costs(stage1, student, count=10, guidance=1.0)
    assert item.flops == 10 * (one["encoder"] + 2 * two["decoder"] + 2 * 11.4e9)


def test_larger_images_are_counted_tile_by_tile():
    """Tiles of 4x4 cells on a grid of 7x10 share a cell: 2 times 3 of them."""
    stage1, stage2 = (untrained.stage("digits", name) for name in ("stage1", "stage2"))
    one = forward(stage1)
    costs = functools.partial(
        recipe_cost.evaluation_costs, stage1, stage2, count=5, guidance=1.0
    )
    whole, larger = costs(), costs(image_size=(14, 20))
    tiles = 6 * (one["encoder"] + 11 * one["decoder"])
    assert larger[0].flops == 5 * (tiles + 2 * 11.4e9)
    assert "6 tiles" in larger[0].details
    assert larger[1] == whole[1]
    assert costs(image_size=(8, 8)) == whole
    for size, wrong in ((15, 20), "multiples of a latent cell"), ((6, 20), "at least"):
        with pytest.raises(ConfigError, match=wrong):
            costs(image_size=size)


def test_other_stages():
    for file, variant, names in (
        ("single_stage", "pixels", ["gFID"]),
        ("single_stage", "shifted_loss", ["rFID", "gFID"]),
        ("moving_digits", "stage1", ["rFVD"]),
    ):
        stage = untrained.stage(file, variant)
        items = recipe_cost.evaluation_costs(stage, None, count=10, guidance=1.0)
        assert [item.name for item in items] == names


def test_chip_hours_at_a_share_of_the_peak():
    item = recipe_cost.CostItem("x", 3600 * 459e12, "one hour of a chip at its peak")
    text = recipe_cost.to_markdown([item], CHIPS["v5p"], 0.5, 4)
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:5]] == [
        "x",
        "1.65",
        "2",
        "0.5",
    ]
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match="--utilization"):
            recipe_cost.to_markdown([item], CHIPS["v5p"], share, 4)


def test_the_recipe_of_the_paper_takes_about_3000_chip_hours():
    words = ["plan", "cost", "--config=imagenet512:stage2_medium"]
    alone, done = forks.run_all([words, [*words, "--stage1_config=imagenet512:stage1"]])
    assert alone.code == ConfigError.code and "--stage1_config is required" in alone.err
    (total,) = [line for line in done.out.splitlines() if line.startswith("| total")]
    hours = float(total.split("|")[3].replace(",", ""))
    assert 2000 < hours < 4000


BREAKS = (
    Break(
        "a price without the decoder's last call",
        "ul/planning/recipe_cost.py",
        "sampler.nfe + 1",
        "sampler.nfe",
        "test_reconstructions_and_samples_are_counted_call_by_call",
    ),
)
