"""CLIP's towers, tokenizer and preprocessing without the public weights."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib import clip_files, torch_states
from tests.lib.breaks import Break
from tests.lib.clip_files import TINY
from ul.core.errors import ConfigError, DataError
from ul.metrics.features import captions, clip, resize, weights

TEXTS = (
    "A cat",
    "a  DOG's ## 42 caf\u00e9\n",
    "a cat and a dog and a cat and a dog",
    "",
)
# Values of the package transformers; test_clip_oracle.py checks them.
GOLDEN_IMAGE = [0.366631, 0.0935649, -0.092136, 0.00607684, 0.131996, 0.360668]
GOLDEN_TEXT = [0.290471, 0.138556, 0.156629, 0.513851, 0.0498792, 0.322147]

VIT_B32 = clip.ClipSizes(
    image=clip.TowerSizes(768, 12, 12, 3072),
    text=clip.TowerSizes(512, 12, 8, 2048),
    side=224,
    patch=32,
    vocabulary=49408,
    context=77,
    end=49407,
    embedding=512,
)
WIDE = {
    "image": clip.TowerSizes(1024, 24, 16, 4096),
    "text": clip.TowerSizes(768, 12, 12, 3072),
    "embedding": 768,
    "patch": 14,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    public = captions.read_tokenizer(
        clip_files.write_public_folder(tmp_path_factory.mktemp("public"))
    )
    return captions.ClipTokenizer(public, TINY.context)


@pytest.fixture(scope="module")
def towers():
    """Return the functions from (params, input) to both embeddings, compiled once."""
    return [
        jax.jit(lambda p, x, embed=embed: embed(p, x, TINY))
        for embed in (clip.embed_images, clip.embed_tokens)
    ]


def images(*shape, seed=0):
    return torch_states.make_images(seed, *shape)


@pytest.mark.parametrize(
    "change, count",
    [
        ({}, 151_277_313),
        ({"patch": 16}, 149_620_737),
        (WIDE, 427_616_513),
        (WIDE | {"side": 336}, 427_944_193),
    ],
    ids=["B/32", "B/16", "L/14", "L/14-336"],
)
def test_sizes_of_the_public_models(change, count):
    """The public models have one more parameter, the logit scale."""
    sizes = dataclasses.replace(VIT_B32, **change)
    assert sum(np.prod(shape) for shape in clip.shapes(sizes).values()) == count - 1
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in clip.shapes(sizes).items()
    }
    image = jax.ShapeDtypeStruct((5, 30, 41, 3), jnp.uint8)
    tokens = jax.ShapeDtypeStruct((5, 77), jnp.int32)
    image = jax.eval_shape(lambda p, x: clip.embed_images(p, x, sizes), params, image)
    text = jax.eval_shape(lambda p, x: clip.embed_tokens(p, x, sizes), params, tokens)
    assert image.shape == text.shape == (5, sizes.embedding)


def test_sizes_are_inferred_from_the_tensors():
    state = clip_files.public_state(clip_files.random_parameters())
    assert clip.infer_sizes(state, clip_files.public_config()) == TINY
    # Published configs often omit values; transformers then has these defaults.
    config = {
        "text_config": {"num_attention_heads": 3},
        "vision_config": {"num_attention_heads": 4},
        "text_config_dict": None,
    }
    sizes = clip.infer_sizes(state, config)
    quick = dataclasses.replace(TINY.text, activation="quick_gelu")
    assert sizes == dataclasses.replace(TINY, text=quick, end=49407)


def test_old_configs_have_2_as_the_end_token():
    config = clip_files.public_config()
    config["text_config"]["eos_token_id"] = 2
    state = clip_files.public_state(clip_files.random_parameters())
    assert clip.infer_sizes(state, config).end == TINY.vocabulary - 1
    config["vision_config_dict"] = {"num_attention_heads": 2}
    assert clip.infer_sizes(state, config).image.heads == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_act": "silu"}, "must be one of quick_gelu, gelu; got 'silu'"),
        ({"num_attention_heads": 5}, "image tower; got 5 heads for a width of 32"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, message):
    config = clip_files.public_config()
    config["vision_config"] |= change
    state = clip_files.public_state(clip_files.random_parameters())
    with pytest.raises(DataError, match=message):
        clip.infer_sizes(state, config)


def test_the_public_layout_is_read():
    params = clip_files.random_parameters()
    state = clip_files.public_state(params)
    actual = clip.from_torch(state, TINY)
    assert actual.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    del state["vision_model.encoder.layers.2.mlp.fc2.bias"]
    with pytest.raises(KeyError, match="layers.2.mlp.fc2.bias"):
        clip.from_torch(state, TINY)


def test_embeddings_equal_those_of_transformers(towers, tokenizer):
    embed_images, embed_tokens = towers
    params = clip_files.random_parameters()
    actual = embed_images(params, images(1, 24, 24, 3))[0, :6]
    np.testing.assert_allclose(actual, GOLDEN_IMAGE, rtol=1e-4, atol=1e-5)
    actual = embed_tokens(params, tokenizer(TEXTS[:1]))[0, :6]
    np.testing.assert_allclose(actual, GOLDEN_TEXT, rtol=1e-4, atol=1e-5)


def test_embeddings_are_per_row_of_length_1_and_depend_on_every_tensor(
    towers, tokenizer
):
    params = clip_files.random_parameters()
    inputs = {"image": images(2, 30, 40, 3), "text": tokenizer(TEXTS[:2])}
    for (which, rows), embed in zip(inputs.items(), towers, strict=True):
        actual = embed(params, rows)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(embed(params, rows[::-1])[::-1], actual, atol=1e-6)
        for name, value in params.items():
            changed = embed({**params, name: value + 0.1 * np.sign(value)}, rows)
            effect = float(jnp.max(jnp.abs(changed - actual)))
            if name.startswith(which):
                assert effect > 1e-4, f"{name} changes the {which} by {effect} only"
            else:
                assert effect == 0, f"{name} changes the {which}"


def test_tokens_after_the_end_have_no_effect_and_those_before_do(towers, tokenizer):
    _, embed_tokens = towers
    params, rows = clip_files.random_parameters(), tokenizer(("a cat",))
    assert list(rows[0, 3:]) == [TINY.end] * 9
    changed_after, changed_before = rows.copy(), rows.copy()
    changed_after[0, 4:] = np.arange(8)
    changed_before[0, 1] = 7
    actual = embed_tokens(params, rows)
    np.testing.assert_array_equal(embed_tokens(params, changed_after), actual)
    assert np.max(np.abs(embed_tokens(params, changed_before) - actual)) > 1e-3


def test_products_run_in_full_precision():
    params = clip_files.random_parameters()
    for embed, shape, dtype in (
        (clip.embed_images, (1, 30, 40, 3), jnp.uint8),
        (clip.embed_tokens, (1, TINY.context), jnp.int32),
    ):
        rows = jax.ShapeDtypeStruct(shape, dtype)
        f = lambda p, x, embed=embed: embed(p, x, TINY)  # noqa: E731
        program = str(jax.make_jaxpr(f)(params, rows))
        assert "HIGHEST" in program and "precision=None" not in program


def resize_with_pil(image, height, width):
    """Resize along the width, then the height; Pillow 13 reverses this for tall images."""
    resampling = Image.Resampling.BICUBIC
    x = Image.fromarray(image).resize((width, len(image)), resampling)
    return np.asarray(x.resize((width, height), resampling))


def assert_close_levels(actual, expected):
    """Compare whole levels, of which a few in a thousand may differ by one.

    These are near a half before rounding: PIL's weights have 22 bits after the binary
    point, ours are floats.
    """
    difference = np.abs(np.asarray(actual, np.float64) - expected)
    fraction = np.mean(difference > 0.5)
    print(f"levels differ by at most {difference.max():.3g}; {fraction:.1e} of them do")
    assert difference.max() < 1.01 and fraction < 5e-3


@pytest.mark.parametrize("size", [(24, 24), (64, 48), (37, 150), (24, 100), (9, 13)])
def test_resizing_equals_that_of_pil_in_8_bits(size):
    # On black and white the cubic overshoots the range of 8 bits.
    image = np.concatenate([images(1, *size, 3), images(1, *size, 3) // 128 * 255])
    actual = resize.bicubic_pil(jnp.asarray(image), 24, 33)
    assert_close_levels(actual, np.stack([resize_with_pil(i, 24, 33) for i in image]))


@pytest.mark.parametrize(
    "size, resized, top, left",
    [
        ((48, 100), (24, 50), 0, 13),
        ((71, 48), (35, 24), 5, 0),
        ((24, 25), (24, 25), 0, 0),
    ],
)
def test_the_center_of_the_resized_image_is_cropped(size, resized, top, left):
    image = images(1, *size, 3)
    x = clip.preprocess(jnp.asarray(image), 24)
    actual = 255 * (np.asarray(x) * clip.STD + clip.MEAN)[0]
    expected = resize_with_pil(image[0], *resized)
    assert_close_levels(actual, expected[top : top + 24, left : left + 24])


def test_tokens_by_hand(tokenizer):
    vocabulary = clip_files.vocabulary()
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]

    def ids(*tokens):
        padding = [end] * (11 - len(tokens))
        return [start, *(vocabulary[token] for token in tokens), *padding]

    rows = tokenizer(("A CAT", " a\n\u00c9 4 ##", "", "a " * 30))
    assert rows.dtype == np.int32 and rows.shape == (4, 12)
    assert list(rows[0]) == ids("a</w>", "cat</w>")
    # Decomposed or composed, upper or lower case, \u00e9 is two bytes; the second ends a word.
    assert list(rows[1]) == ids("a</w>", "\u00c3", "\u00a9</w>", "4</w>", "##</w>")
    assert list(rows[2]) == ids()
    assert list(rows[3]) == ids(*["a</w>"] * 10)
    np.testing.assert_array_equal(tokenizer(("E\u0301",)), tokenizer(("\u00c9",)))


def test_weights_and_tokenizer_of_different_networks_are_refused(tmp_path):
    folder = clip_files.write_public_folder(tmp_path)
    state = clip_files.public_state(clip_files.random_parameters())
    config = clip_files.public_config()
    config["text_config"]["eos_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"the end token 7 .* gives \[518, 519\]"):
        clip.module_and_companions(folder, state)
    (folder / "config.json").write_text(json.dumps(clip_files.public_config()))
    name = "text_model.embeddings.token_embedding.weight"
    with pytest.raises(DataError, match="at most the 519 tokens .* it has 520"):
        clip.module_and_companions(folder, state | {name: state[name][1:]})


def test_a_missing_or_broken_file_beside_the_weights_is_named(tmp_path):
    folder = clip_files.write_public_folder(tmp_path)
    state = clip_files.public_state(clip_files.random_parameters())
    (folder / "merges.txt").write_text("#version: 0.2\nno merge</w>\n")
    with pytest.raises(DataError, match="vocab.json and merges.txt cannot be read"):
        clip.module_and_companions(folder, state)
    (folder / "merges.txt").unlink()
    with pytest.raises(DataError, match="has no tokenizer.json, nor vocab.json and"):
        clip.module_and_companions(folder, state)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="tokenizer.json cannot be read"):
        clip.module_and_companions(folder, state)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match="CLIP needs the config.json of its weights"):
        clip.module_and_companions(folder, state)


def test_the_error_for_a_missing_package_states_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[clip\]'"):
        captions.ClipTokenizer(b"{}", 12)


def test_converted_weights_are_loaded_unchanged(tmp_path):
    folder = clip_files.write_converted_folder(tmp_path)
    params, sizes = clip.load(folder)
    assert sizes == TINY
    for name, value in clip_files.random_parameters().items():
        np.testing.assert_array_equal(params[name], value, err_msg=name)
    path = folder / clip.SIZES_FILE
    text = path.read_text()
    path.write_text(text.replace('"heads": 4', '"heads": 2'))
    with pytest.raises(DataError, match="clip_sizes.json must have the SHA-256"):
        clip.load(folder)
    path.unlink()
    with pytest.raises(weights.MissingWeights, match="ul convert clip --source"):
        clip.load(folder)


def test_sizes_of_another_version_are_refused(tmp_path):
    folder = clip_files.write_converted_folder(tmp_path)
    weights.save(
        folder,
        clip.feature_module(TINY),
        clip_files.random_parameters(),
        license="MIT",
        source="x",
        companions={clip.SIZES_FILE: b'{"image": {}, "text": {}}'},
    )
    with pytest.raises(DataError, match="this version .* Convert CLIP again"):
        clip.load(folder)


BREAKS = (
    Break(
        "CLIP's text tower attends to later tokens",
        "ul/metrics/features/clip.py",
        'x = _blocks(x, params, "text", tower, causal=True)',
        'x = _blocks(x, params, "text", tower, causal=False)',
        "test_embeddings_equal_those_of_transformers",
    ),
    Break(
        "CLIP's images resized without rounding",
        "ul/metrics/features/resize.py",
        "return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0)",
        "return x",
        "test_resizing_equals_that_of_pil_in_8_bits",
    ),
)
