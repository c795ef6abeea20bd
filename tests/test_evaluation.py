"""What evaluations stand on: noise, labels, latents and pictures, without training."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ul import build, config, runs
from ul.core.errors import DataError
from ul.evals import paper, reconstruction
from ul.evaluation import picture
from ul.objectives.single import Fixed, TruncatedLogistic


def parsed(file, variant):
    made = importlib.import_module(f"experiments.{file}").get_config(variant)
    return config.parse(build.plain(made))


def test_a_single_stage_is_evaluated_at_its_least_noise_with_all_labels():
    c = parsed("single_stage", "random_noise")
    trained = build.stage1(c, training=True).objective.keywords
    evaluated = build.stage1(c).objective.keywords
    assert (
        trained["least"] == TruncatedLogistic(1.0) and trained["label_dropout"] == 0.1
    )
    assert evaluated["least"] == Fixed() and evaluated["label_dropout"] == 0.0


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
    codec = build.stage1(parsed("ablations", name)).codec
    assert (codec.exact, codec.sampled) == (exact, sampled)


@pytest.mark.parametrize(("name", "moves"), [("ul", False), ("kl_autoencoder", True)])
def test_a_base_model_learns_the_encoders_own_draws(name, moves):
    """Of an encoder with a variance: others at every step, the same at the same step."""
    made = build.stage1(parsed("ablations", name))
    params = made.modules.init(jax.random.key(0), (8, 8, 1))
    run = runs.base_run(parsed("ablations", f"{name}_base"), made.codec, params)

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
    mean = reconstruction.gaussian_psnr_db(variances, 10.0, sampled=False)
    np.testing.assert_allclose(mean - sampled, 10 * np.log10(2.0))


def test_pooled_psnr_is_of_the_mean_error():
    image = np.zeros((2, 4, 4, 1), np.uint8)
    other = image.copy()
    other[1] = 10
    want = 10 * np.log10(255**2 / 50.0)
    np.testing.assert_allclose(reconstruction.pooled_psnr_db(image, other), want)


def test_tables_mark_the_psnr_of_a_mean():
    one = dict(psnr_db=20.0, decoder="one call")
    assert "20.00 (mean)" in paper.tables({"mse_decoder": one})
    assert "(mean) |" not in paper.tables({"ul": one | {"decoder": "sampled"}})


def test_tiles_of_a_picture_go_back_to_their_places():
    image = np.arange(7 * 11 * 3).reshape(7, 11, 3)
    tiled = picture.tiles(image, (3, 5, 3))
    assert tiled.shape == (2, 2, 3, 5, 3)
    np.testing.assert_array_equal(picture.together(tiled), image[:6, :10])
    with pytest.raises(DataError, match="smaller than the autoencoder's 8x8"):
        picture.tiles(image, (8, 8, 3))


def test_pictures_are_read_or_refused_in_one_line(tmp_path):
    Image.fromarray(np.full((8, 6, 3), 7, np.uint8)).save(tmp_path / "a.png")
    assert picture.read(str(tmp_path / "a.png"), 2, 1).shape == (4, 3, 1)
    Image.fromarray(np.full((8, 6), 7000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("deep", "more than 8 bits"), ("text", "cannot be read")):
        with pytest.raises(DataError, match=message):
            picture.read(str(tmp_path / f"{name}.png"), 1, 3)
