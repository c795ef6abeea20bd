"""What evaluations stand on: noise, labels, latents and pictures, without training.

Those of whole runs are in tests/system/test_evaluate.py.
"""

import importlib
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ul.core.errors import ConfigError, DataError
from ul.data import datasets
from ul.evaluation import Request, bit_map, paper_tables, table
from ul.evaluation.request import GENERATION, label_of, wanted
from ul.metrics import reconstruction
from ul.objectives.single_stage import FixedMaxLogsnr, TruncatedLogisticMaxLogsnr
from ul.runs import assemble
from ul.stages import registry


def parsed(file, variant):
    made = importlib.import_module(f"experiments.{file}").get_config(variant)
    return registry.parse(registry.to_dict(made))


def test_a_single_stage_is_evaluated_at_its_least_noise_with_all_labels():
    c = parsed("single_stage", "random_noise")
    trained = registry.stage1(c, training=True).objective.keywords
    evaluated = registry.stage1(c).objective.keywords
    assert (
        trained["max_logsnr"] == TruncatedLogisticMaxLogsnr(1.0)
        and trained["label_dropout"] == 0.1
    )
    assert (
        evaluated["max_logsnr"] == FixedMaxLogsnr()
        and evaluated["label_dropout"] == 0.0
    )


@pytest.mark.parametrize(
    ("name", "exact", "sampled"),
    [
        ("ul", True, True),
        ("normal_prior", True, True),
        ("mse_decoder", True, False),
        ("learned_variance", False, True),
        ("kl_autoencoder", False, False),
    ],
)
def test_codecs_say_what_they_are(name, exact, sampled):
    codec = registry.stage1(parsed("ablations", name)).codec
    assert (codec.exact, codec.sampled) == (exact, sampled)


@pytest.mark.parametrize(("name", "moves"), [("ul", False), ("kl_autoencoder", True)])
def test_a_base_model_learns_the_encoders_own_draws(name, moves):
    """Of an encoder with a variance: others at every step, the same at the same step."""
    made = registry.stage1(parsed("ablations", name))
    params = made.modules.init(jax.random.key(0), (8, 8, 1))
    run = assemble.base_run(parsed("ablations", f"{name}_base"), made.codec, params)

    def latents(step):
        batch = {"image": jnp.full((4, 8, 8, 1), 99, jnp.uint8), "row": jnp.arange(4)}
        return np.asarray(run.prepare(batch, step)["z_clean"])

    np.testing.assert_array_equal(latents(1), latents(1))
    assert np.array_equal(latents(1), latents(2)) is not moves
    rows = latents(1)
    assert np.allclose(rows[0], rows[1], atol=1e-5) is not moves


def test_the_gaussian_bound_of_a_mean_is_3_db_above_a_samples():
    variances = np.geomspace(1e-3, 1.0, 20)
    sampled = reconstruction.gaussian_psnr_db(variances, 10.0)
    mean = reconstruction.gaussian_psnr_db(variances, 10.0, posterior_samples=False)
    np.testing.assert_allclose(mean - sampled, 10 * np.log10(2.0))


def test_pooled_psnr_is_of_the_mean_error():
    image = np.zeros((2, 4, 4, 1), np.uint8)
    other = image.copy()
    other[1] = 10
    want = 10 * np.log10(255**2 / 50.0)
    np.testing.assert_allclose(reconstruction.pooled_psnr_db(image, other), want)


def test_tables_mark_the_psnr_of_a_mean():
    one = dict(psnr_db=20.0, decoder="one call")
    assert "20.00 (mean)" in paper_tables.tables({"mse_decoder": one})
    assert "(mean) |" not in paper_tables.tables({"ul": one | {"decoder": "sampled"}})


def request(**changes):
    return Request(**({"workdir": "runs/my run"} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 1}, "--num_examples is 1; it must be at least 2"),
        ({"metrics": ("fid", "fidd")}, "unknown 'fidd'; known are rate, bits"),
        ({"labels": "odd"}, "--labels 'odd' is unknown; known are cyclic, random"),
        ({"guidance": float("nan")}, "not a finite number"),
    ],
)
def test_what_no_run_has_is_refused_at_once(changes, message):
    with pytest.raises(ConfigError, match=message):
        request(**changes)


def test_the_command_says_everything_that_decides_a_number():
    made = request(seed=3, guidance=1.5, metrics=("fid", "recall"), weights_dir="w")
    got = shlex.split(made.command(generation=True, step=8, num_examples=500))
    assert got == [
        "python", "-m", "launch.evaluate", "--workdir=runs/my run", "--step=8",
        "--weights=ema", "--seed=3", "--num_examples=500", "--guidance=1.5",
        "--labels=cyclic", "--metrics=fid,recall", "--weights_dir=w",
    ]  # fmt: skip
    assert "guidance" not in made.command(generation=False, step=8, num_examples=500)


def test_labels_go_round_or_are_drawn_by_row():
    np.testing.assert_array_equal(label_of(request(), 5, 3), [0, 1, 2, 0, 1])
    drawn = label_of(request(labels="random"), 3000, 3)
    np.testing.assert_array_equal(label_of(request(labels="random"), 7, 3), drawn[:7])
    assert np.any(label_of(request(labels="random", seed=1), 3000, 3) != drawn)
    # 1000 of each, within four standard errors.
    assert np.all(np.abs(np.bincount(drawn) - 1000) < 4 * np.sqrt(3000 * 2 / 9))


def test_metrics_of_videos_are_refused_for_images_by_name():
    shapes = {"image": (64, 64, 3), "video": (16, 64, 64, 3)}
    assert "fvd" not in wanted(None, GENERATION, shapes["image"])
    assert "fvd" in wanted(None, GENERATION, shapes["video"])
    assert "fid" not in wanted(None, GENERATION, shapes["video"])
    with pytest.raises(ConfigError, match=r"fvd needs videos .*\[64, 64, 3\]"):
        wanted(("fvd",), GENERATION, shapes["image"])


def test_a_folder_is_sampled_from_all_its_classes():
    np.testing.assert_array_equal(datasets.spread(5, 9), np.arange(5))
    chosen = datasets.spread(10_000, 1000)
    assert len(set(chosen)) == 1000 and np.all(np.diff(chosen) > 0)
    # Of a hypergeometric count in each tenth, within four standard errors.
    counts = np.bincount(chosen // 1000)
    assert np.all(np.abs(counts - 100) < 4 * np.sqrt(1000 * 0.1 * 0.9 * 0.9))


def test_parts_are_whole_batches_and_never_all():
    assert datasets.rows_at_once((8, 8, 1), 256) == 1024
    assert datasets.rows_at_once((8, 8, 1), 360) == 1080
    assert datasets.rows_at_once((512, 512, 3), 64) == 384


def test_unlike_counts_never_share_a_column():
    one = dict(evaluation="generation", guidance=1.0, fid=9.0, step=1, weights="ema")
    few = one | {"num_examples": 500, "printed": {"fid": "FID@500"}, "protocol": {}}
    full = one | {"num_examples": 50_000, "printed": {"fid": "FID"}, "protocol": {}}
    head, _, *rows = table.table([few, full]).splitlines()
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    at, other = titles.index("FID@500"), titles.index("FID")
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    assert [row[at] for row in cells] == ["9.000", ""]
    assert [row[other] for row in cells] == ["", "9.000"]


def test_every_number_has_its_protocol_said():
    one = dict(evaluation="generation", guidance=1.5, step=1, weights="ema")
    one |= {"protocol": {"labels": "i mod 3"}, "skipped": {"fid": "no file"}}
    said = table.protocols([one, one | {"step": 2}])
    assert said.splitlines() == [
        "generation-guidance1.5 step 1 ema, generation-guidance1.5 step 2 ema",
        "  labels: i mod 3",
        "  skipped fid: no file",
    ]


def test_tiles_of_a_picture_go_back_to_their_places():
    image = np.arange(7 * 11 * 3).reshape(7, 11, 3)
    tiled = bit_map.tiles(image, (3, 5, 3))
    assert tiled.shape == (2, 2, 3, 5, 3)
    np.testing.assert_array_equal(bit_map.together(tiled), image[:6, :10])
    with pytest.raises(DataError, match="smaller than the autoencoder's 8x8"):
        bit_map.tiles(image, (8, 8, 3))


def test_pictures_are_read_or_refused_in_one_line(tmp_path):
    Image.fromarray(np.full((8, 6, 3), 7, np.uint8)).save(tmp_path / "a.png")
    assert bit_map.read(str(tmp_path / "a.png"), 2, 1).shape == (4, 3, 1)
    Image.fromarray(np.full((8, 6), 7000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("deep", "more than 8 bits"), ("text", "cannot be read")):
        with pytest.raises(DataError, match=message):
            bit_map.read(str(tmp_path / f"{name}.png"), 1, 3)
