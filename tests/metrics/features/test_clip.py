"""CLIP's towers, tokens and pixels without the public weights."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.lib import clip_files, torch_states
from tests.lib.clip_files import TINY
from ul.core.errors import ConfigError, DataError
from ul.metrics.features import captions, clip, resize, weights

TEXTS = (
    "A cat",
    "a  DOG's ## 42 caf\u00e9\n",
    "a cat and a dog and a cat and a dog",
    "",
)
# Of transformers, for the default suite; an oracle test keeps them.
GOLDEN_IMAGE = [0.366631, 0.0935649, -0.092136, 0.00607684, 0.131996, 0.360668]
GOLDEN_TEXT = [0.290471, 0.138556, 0.156629, 0.513851, 0.0498792, 0.322147]

VIT_B32 = clip.Size(
    image=clip.Tower(768, 12, 12, 3072),
    text=clip.Tower(512, 12, 8, 2048),
    side=224,
    patch=32,
    vocabulary=49408,
    context=77,
    end=49407,
    embedding=512,
)
WIDE = {
    "image": clip.Tower(1024, 24, 16, 4096),
    "text": clip.Tower(768, 12, 12, 3072),
    "embedding": 768,
    "patch": 14,
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    public = captions.public(clip_files.write(tmp_path_factory.mktemp("public")))
    return captions.Tokens(public, TINY.context)


@pytest.fixture(scope="module")
def towers():
    """Both embeddings of (params, input), compiled once."""
    return [
        jax.jit(lambda p, x, embed=embed: embed(p, x, TINY))
        for embed in (clip.image_embedding, clip.text_embedding)
    ]


def images(*shape, seed=0):
    return torch_states.images(seed, *shape)


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
    """Theirs have the logits' scale besides."""
    size = dataclasses.replace(VIT_B32, **change)
    assert sum(np.prod(shape) for shape in clip.shapes(size).values()) == count - 1
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in clip.shapes(size).items()
    }
    image = jax.ShapeDtypeStruct((5, 30, 41, 3), jnp.uint8)
    rows = jax.ShapeDtypeStruct((5, 77), jnp.int32)
    seen = jax.eval_shape(lambda p, x: clip.image_embedding(p, x, size), params, image)
    read = jax.eval_shape(lambda p, x: clip.text_embedding(p, x, size), params, rows)
    assert seen.shape == read.shape == (5, size.embedding)


def test_the_sizes_are_read_from_the_tensors():
    state = clip_files.state(clip_files.parameters())
    assert clip.size_of(state, clip_files.config()) == TINY
    # Defaults of transformers where the config is silent, as published ones often are.
    bare = clip.size_of(
        {**state},
        {"text_config": {"num_attention_heads": 3}}
        | {"vision_config": {"num_attention_heads": 4}, "text_config_dict": None},
    )
    quick = dataclasses.replace(TINY.text, activation="quick_gelu")
    assert bare == dataclasses.replace(TINY, text=quick, end=49407)


def test_old_configs_say_2_for_the_end():
    said = clip_files.config()
    said["text_config"]["eos_token_id"] = 2
    state = clip_files.state(clip_files.parameters())
    assert clip.size_of(state, said).end == TINY.vocabulary - 1
    said["vision_config_dict"] = {"num_attention_heads": 2}
    assert clip.size_of(state, said).image.heads == 2


@pytest.mark.parametrize(
    "change, said",
    [
        ({"hidden_act": "silu"}, "'silu' is not one of quick_gelu, gelu"),
        ({"num_attention_heads": 5}, "5 heads for a width of 32"),
    ],
)
def test_configs_that_do_not_fit_are_refused(change, said):
    config = clip_files.config()
    config["vision_config"] |= change
    state = clip_files.state(clip_files.parameters())
    with pytest.raises(DataError, match=said):
        clip.size_of(state, config)


def test_the_public_layout_is_read():
    params = clip_files.parameters()
    got = clip.from_torch(clip_files.state(params), TINY)
    assert got.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    short = clip_files.state(params)
    del short["vision_model.encoder.layers.2.mlp.fc2.bias"]
    with pytest.raises(KeyError, match="layers.2.mlp.fc2.bias"):
        clip.from_torch(short, TINY)


def test_embeddings_are_transformers(towers, tokens):
    image, text = towers
    params = clip_files.parameters()
    got = image(params, images(1, 24, 24, 3))[0, :6]
    np.testing.assert_allclose(got, GOLDEN_IMAGE, rtol=1e-4, atol=1e-5)
    got = text(params, tokens(TEXTS[:1]))[0, :6]
    np.testing.assert_allclose(got, GOLDEN_TEXT, rtol=1e-4, atol=1e-5)


def test_embeddings_are_per_row_of_length_1_and_see_everything(towers, tokens):
    params = clip_files.parameters()
    inputs = {"image": images(2, 30, 40, 3), "text": tokens(TEXTS[:2])}
    for (which, rows), embed in zip(inputs.items(), towers, strict=True):
        got = embed(params, rows)
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, rtol=1e-6)
        np.testing.assert_allclose(embed(params, rows[::-1])[::-1], got, atol=1e-6)
        for name, value in params.items():
            changed = embed({**params, name: value + 0.1 * np.sign(value)}, rows)
            moved = float(jnp.max(jnp.abs(changed - got)))
            if name.startswith(which):
                assert moved > 1e-4, f"{name} moves the {which} by {moved} only"
            else:
                assert moved == 0, f"{name} moves the {which}"


def test_what_follows_the_end_is_not_seen_and_what_precedes_is(towers, tokens):
    _, embed = towers
    params, rows = clip_files.parameters(), tokens(("a cat",))
    assert list(rows[0, 3:]) == [TINY.end] * 9
    after, before = rows.copy(), rows.copy()
    after[0, 4:] = np.arange(8)
    before[0, 1] = 7
    got = embed(params, rows)
    np.testing.assert_array_equal(embed(params, after), got)
    assert np.max(np.abs(embed(params, before) - got)) > 1e-3


def test_products_run_in_full_precision():
    params = clip_files.parameters()
    for embed, shape, kind in (
        (clip.image_embedding, (1, 30, 40, 3), jnp.uint8),
        (clip.text_embedding, (1, TINY.context), jnp.int32),
    ):
        rows = jax.ShapeDtypeStruct(shape, kind)
        f = lambda p, x, embed=embed: embed(p, x, TINY)  # noqa: E731
        program = str(jax.make_jaxpr(f)(params, rows))
        assert "HIGHEST" in program and "precision=None" not in program


def pil(image, height, width):
    """Along the width, then the height: Pillow 13 has the other order for tall images."""
    how = Image.Resampling.BICUBIC
    x = Image.fromarray(image).resize((width, len(image)), how)
    return np.asarray(x.resize((width, height), how))


def close_levels(got, want):
    """Whole levels, of which a few in a thousand fall to the other side of a half: PIL's
    weights have 22 bits behind the point, ours are floats."""
    apart = np.abs(np.asarray(got, np.float64) - want)
    share = np.mean(apart > 0.5)
    print(f"levels apart: at most {apart.max():.3g}, {share:.1e} of them")
    assert apart.max() < 1.01 and share < 5e-3


@pytest.mark.parametrize("size", [(24, 24), (64, 48), (37, 150), (24, 100), (9, 13)])
def test_resizing_is_pils_of_8_bits(size):
    # Black and white too, where a cubic goes beyond what 8 bits hold.
    image = np.concatenate([images(1, *size, 3), images(1, *size, 3) // 128 * 255])
    got = resize.bicubic_pil(jnp.asarray(image), 24, 33)
    close_levels(got, np.stack([pil(i, 24, 33) for i in image]))


@pytest.mark.parametrize(
    "size, scaled, top, left",
    [
        ((48, 100), (24, 50), 0, 13),
        ((71, 48), (35, 24), 5, 0),
        ((24, 25), (24, 25), 0, 0),
    ],
)
def test_the_middle_is_cut_of_the_resized_image(size, scaled, top, left):
    image = images(1, *size, 3)
    x = clip.preprocessed(jnp.asarray(image), 24)
    got = 255 * (np.asarray(x) * clip.STD + clip.MEAN)[0]
    close_levels(got, pil(image[0], *scaled)[top : top + 24, left : left + 24])


def test_tokens_by_hand(tokens):
    known = clip_files.vocabulary()
    start, end = known["<|startoftext|>"], known["<|endoftext|>"]

    def ids(*names):
        return [start, *(known[name] for name in names), *[end] * (11 - len(names))]

    rows = tokens(("A CAT", " a\n\u00c9 4 ##", "", "a " * 30))
    assert rows.dtype == np.int32 and rows.shape == (4, 12)
    assert list(rows[0]) == ids("a</w>", "cat</w>")
    # Decomposed or composed, capital or not, \u00e9 is two bytes, the second ends a word.
    assert list(rows[1]) == ids("a</w>", "\u00c3", "\u00a9</w>", "4</w>", "##</w>")
    assert list(rows[2]) == ids()
    assert list(rows[3]) == ids(*["a</w>"] * 10)
    np.testing.assert_array_equal(tokens(("E\u0301",)), tokens(("\u00c9",)))


def test_weights_and_tokens_of_two_networks_are_refused(tmp_path):
    folder = clip_files.write(tmp_path)
    state = clip_files.state(clip_files.parameters())
    said = clip_files.config()
    said["text_config"]["eos_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"\[518, 519\] of an empty caption.* end 7"):
        clip.beside(folder, state)
    (folder / "config.json").write_text(json.dumps(clip_files.config()))
    name = "text_model.embeddings.token_embedding.weight"
    with pytest.raises(DataError, match="knows 520 tokens, its network 519"):
        clip.beside(folder, state | {name: state[name][1:]})


def test_what_is_not_beside_the_weights_is_named(tmp_path):
    folder = clip_files.write(tmp_path)
    state = clip_files.state(clip_files.parameters())
    (folder / "merges.txt").write_text("#version: 0.2\nno merge</w>\n")
    with pytest.raises(DataError, match="vocab.json and merges.txt cannot be read"):
        clip.beside(folder, state)
    (folder / "merges.txt").unlink()
    with pytest.raises(DataError, match="has no tokenizer.json, nor vocab.json and"):
        clip.beside(folder, state)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="tokenizer cannot be read"):
        clip.beside(folder, state)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match="config.json, which CLIP needs"):
        clip.beside(folder, state)


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[clip\]'"):
        captions.Tokens(b"{}", 12)


def test_a_converted_folder_is_read_as_it_was(tmp_path):
    folder = clip_files.converted(tmp_path)
    params, size = clip.load(folder)
    assert size == TINY
    for name, value in clip_files.parameters().items():
        np.testing.assert_array_equal(params[name], value, err_msg=name)
    path = folder / clip.SIZES
    text = path.read_text()
    path.write_text(text.replace('"heads": 4', '"heads": 2'))
    with pytest.raises(DataError, match="clip_sizes.json has SHA-256"):
        clip.load(folder)
    path.unlink()
    with pytest.raises(weights.Missing, match="launch.convert clip --source"):
        clip.load(folder)


def test_sizes_of_another_version_are_refused(tmp_path):
    folder = clip_files.converted(tmp_path)
    tiny = clip.network(TINY)
    more = {clip.SIZES: b'{"image": {}, "text": {}}'}
    about = {"licence": "MIT", "source": "x"}
    weights.save(folder, tiny, clip_files.parameters(), companions=more, **about)
    with pytest.raises(
        DataError, match="does not fit this version.*convert CLIP again"
    ):
        clip.load(folder)
