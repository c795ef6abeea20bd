"""Parts of an evaluation that need no trained run: requests, tables, pictures, latents.

Evaluations of whole runs are tested in tests/system/test_evaluate.py.
"""

import shlex
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib import untrained
from ul.core.errors import ConfigError, DataError
from ul.data.datasets import Datasets, chunk_rows, fixed_subset
from ul.evaluation import Request, bit_map, paper_tables, table
from ul.evaluation.context import EvaluatedRun
from ul.evaluation.request import sample_labels, select_metrics
from ul.metrics import reconstruction
from ul.metrics import registry as metric_registry
from ul.metrics.metric import GENERATION
from ul.objectives.single_stage import FixedMaxLogsnr, TruncatedLogisticMaxLogsnr
from ul.runs import assemble
from ul.stages import registry


def test_a_single_stage_is_evaluated_at_its_least_noise_with_all_labels():
    stage = untrained.stage("single_stage", "random_noise")
    trained, evaluated = stage.objective.keywords, stage.held_out_objective.keywords
    assert (
        trained["max_logsnr"] == TruncatedLogisticMaxLogsnr(1.0)
        and trained["label_dropout"] == 0.1
    )
    assert (
        evaluated["max_logsnr"] == FixedMaxLogsnr()
        and evaluated["label_dropout"] == 0.0
    )


@pytest.mark.parametrize(
    ("name", "is_deterministic", "is_diffusion"),
    [
        ("ul", True, True),
        ("normal_prior", True, True),
        ("mse_decoder", True, False),
        ("learned_variance", False, True),
        ("kl_autoencoder", False, False),
    ],
)
def test_codecs_state_their_encoder_variance_and_their_decoder(
    name, is_deterministic, is_diffusion
):
    codec = untrained.stage("ablations", name).codec
    assert codec.is_deterministic == is_deterministic
    assert codec.is_diffusion == is_diffusion


@pytest.mark.parametrize(
    ("name", "is_random"), [("ul", False), ("kl_autoencoder", True)]
)
def test_stage_2_learns_draws_of_an_encoder_with_a_variance(name, is_random):
    """The draws differ between steps and rows, and are equal for the same step."""
    stage1 = untrained.stage("ablations", name)
    params = stage1.init(jax.random.key(0))
    config = untrained.parsed("ablations", f"{name}_base")
    stage2, datasets = registry.build(config), Datasets.from_config(config)
    run = assemble.build_stage2_run(config, stage2, datasets, stage1.codec, params)

    def latents(step):
        batch = {"image": jnp.full((4, 8, 8, 1), 99, jnp.uint8), "row": jnp.arange(4)}
        return np.asarray(run.prepare(batch, step, None)["z_clean"])

    np.testing.assert_array_equal(latents(1), latents(1))
    assert np.array_equal(latents(1), latents(2)) is not is_random
    rows = latents(1)
    assert np.allclose(rows[0], rows[1], atol=1e-5) is not is_random


def test_the_gaussian_bound_of_a_mean_is_3_db_above_that_of_samples():
    variances = np.geomspace(1e-3, 1.0, 20)
    samples = reconstruction.gaussian_psnr_db(variances, 10.0)
    mean = reconstruction.gaussian_psnr_db(variances, 10.0, posterior_samples=False)
    np.testing.assert_allclose(mean - samples, 10 * np.log10(2.0))


def test_pooled_psnr_is_that_of_the_mean_error():
    image = np.zeros((2, 4, 4, 1), np.uint8)
    other = image.copy()
    other[1] = 10
    expected = 10 * np.log10(255**2 / 50.0)
    np.testing.assert_allclose(reconstruction.pooled_psnr_db(image, other), expected)


def test_paper_tables_mark_the_psnr_of_a_mean():
    numbers = dict(psnr_db=20.0, decoder="one call")
    assert "20.00 (mean)" in paper_tables.tables({"mse_decoder": numbers})
    sampled = numbers | {"decoder": "sampled"}
    assert "(mean) |" not in paper_tables.tables({"ul": sampled})


def make_request(**changes):
    return Request(**({"workdir": "runs/my run"} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_examples": 1}, "--num_examples must be at least 2; got 1"),
        ({"metrics": ("fid", "fidd")}, "from rate, psnr, .*; got 'fidd'"),
        ({"labels": "odd"}, "--labels must be one of cyclic, random; got 'odd'"),
        ({"guidance": float("nan")}, "--guidance must be a finite number"),
    ],
)
def test_values_that_no_run_supports_are_refused_at_once(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_request(**changes)


def test_the_command_has_everything_that_decides_a_number():
    request = make_request(
        seed=3, guidance=1.5, metrics=("fid", "recall"), weights_dir="w"
    )
    words = shlex.split(request.command(generation=True, step=8, num_examples=500))
    assert words == [
        "python", "-m", "ul", "evaluate", "--workdir=runs/my run", "--step=8",
        "--weights=ema", "--seed=3", "--num_examples=500", "--guidance=1.5",
        "--labels=cyclic", "--metrics=fid,recall", "--weights_dir=w",
    ]  # fmt: skip
    assert "guidance" not in request.command(generation=False, step=8, num_examples=500)


def test_labels_are_cyclic_or_drawn_by_row():
    labels = sample_labels(make_request(), 5, 3)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0, 1])
    random = sample_labels(make_request(labels="random"), 3000, 3)
    few = sample_labels(make_request(labels="random"), 7, 3)
    np.testing.assert_array_equal(few, random[:7])
    other = sample_labels(make_request(labels="random", seed=1), 3000, 3)
    assert np.any(other != random)
    # 1000 of each class, within four standard errors.
    assert np.all(np.abs(np.bincount(random) - 1000) < 4 * np.sqrt(3000 * 2 / 9))


def test_metrics_of_clips_are_refused_for_images_by_name():
    candidates = metric_registry.metrics(GENERATION)

    def names(shape, requested=None):
        return [m.name for m in select_metrics(requested, candidates, shape)]

    assert "fvd" not in names((64, 64, 3))
    assert "fvd" in names((16, 64, 64, 3))
    assert "fid" not in names((16, 64, 64, 3))
    with pytest.raises(ConfigError, match=r"fvd needs clips; .*\[64, 64, 3\]"):
        names((64, 64, 3), ("fvd",))


@pytest.mark.parametrize(
    ("shape", "num_pixels"), [((8, 6, 3), 8 * 6), ((16, 8, 6, 1), 16 * 8 * 6)]
)
def test_bits_are_divided_by_the_pixels_of_all_frames(shape, num_pixels):
    autoencoder = types.SimpleNamespace(image_shape=shape)
    run = EvaluatedRun(
        request=make_request(), context=None, autoencoder=autoencoder, count=2
    )
    assert run.num_pixels == num_pixels


def test_a_fixed_subset_is_drawn_from_all_classes_of_a_folder():
    np.testing.assert_array_equal(fixed_subset(5, 9), np.arange(5))
    chosen = fixed_subset(10_000, 1000)
    assert len(set(chosen)) == 1000 and np.all(np.diff(chosen) > 0)
    # A hypergeometric count in each tenth, within four standard errors.
    counts = np.bincount(chosen // 1000)
    assert np.all(np.abs(counts - 100) < 4 * np.sqrt(1000 * 0.1 * 0.9 * 0.9))


def test_batches_of_an_evaluation_are_multiples_of_the_batch_size():
    assert chunk_rows((8, 8, 1), 256) == 1024
    assert chunk_rows((8, 8, 1), 360) == 1080
    assert chunk_rows((512, 512, 3), 64) == 384


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_different_counts_never_share_a_column():
    common = dict(evaluation="generation", guidance=1.0, fid=9.0, step=1, weights="ema")
    few = common | {"num_examples": 500, "titles": {"fid": "FID@500"}, "protocol": {}}
    full = common | {"num_examples": 50_000, "titles": {}, "protocol": {}}
    head, _, *rows = table.table([few, full]).splitlines()
    at, other = cells(head).index("FID@500"), cells(head).index("FID")
    assert [cells(row)[at] for row in rows] == ["9.000", ""]
    assert [cells(row)[other] for row in rows] == ["", "9.000"]


def test_a_standard_error_stands_beside_its_number():
    result = dict(evaluation="reconstruction", rate_bpp=0.5, rate_bpp_sem=0.0125)
    head, _, row = table.table([result]).splitlines()
    assert cells(head) == ["evaluation", "rate, bits/pixel"]
    assert cells(row) == ["reconstruction", "0.500 ± 0.013"]


def test_every_protocol_is_printed_once():
    result = dict(evaluation="generation", guidance=1.5, step=1, weights="ema")
    result |= {"protocol": {"labels": "i mod 3"}}
    text = table.protocols([result, result | {"step": 2}])
    assert text.splitlines() == [
        "generation-guidance1.5 step 1 ema, generation-guidance1.5 step 2 ema",
        "  labels: i mod 3",
    ]


def test_evaluations_of_older_versions_are_refused(tmp_path):
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "old.json").write_text('{"written": "2026-01-01"}')
    with pytest.raises(DataError, match="old.json has none, because an older version"):
        table.read([str(tmp_path)])


def test_joined_tiles_are_the_picture():
    image = np.arange(7 * 11 * 3).reshape(7, 11, 3)
    tiles = bit_map.split_into_tiles(image, (3, 5, 3))
    assert tiles.shape == (2, 2, 3, 5, 3)
    np.testing.assert_array_equal(bit_map.join_tiles(tiles), image[:6, :10])
    with pytest.raises(DataError, match="at least 8x8, as the autoencoder takes"):
        bit_map.split_into_tiles(image, (8, 8, 3))


def test_pictures_are_read_or_refused_in_one_line(tmp_path):
    Image.fromarray(np.full((8, 6, 3), 7, np.uint8)).save(tmp_path / "a.png")
    assert bit_map.read_picture(str(tmp_path / "a.png"), 2, 1).shape == (4, 3, 1)
    Image.fromarray(np.full((8, 6), 7000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("deep", "does not have 8 bits"), ("text", "cannot be read")):
        with pytest.raises(DataError, match=message):
            bit_map.read_picture(str(tmp_path / f"{name}.png"), 1, 3)
