"""CLIP against the package transformers: tokens, pixels, embeddings and the score."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.lib import clip_files, torch_states
from tests.lib.oracle import import_package
from tests.metrics.features import test_clip
from ul.core import mesh
from ul.metrics import clip_score
from ul.metrics.features import captions, clip, weights

pytestmark = pytest.mark.oracle

SIDE = 32
TEXTS = (
    "A photo of a cat.",
    "  two   DOGS,\twith 1234 bones\n&  it's <b>bold</b> ## #1",
    "caf\u00e9 \u65e5\u672c\u8a9e \U0001f600 \u00dcBER stra\u00dfe na\u0308ive \u2028 \u3000x",
    "we'll they've I'd don't you're",
    "an <|endoftext|> inside",
    "a very long caption " * 30,
    "",
)


def max_difference(actual, expected):
    """Return and print the largest difference of unit embeddings."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    difference = float(np.abs(actual - expected).max())
    print(f"largest difference {difference:.2e}")
    return difference


def normalized(x):
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def train_tokenizer(transformers):
    """Return CLIP's tokenizer with merges learned from a few captions."""
    import tokenizers

    blank = transformers.CLIPTokenizer()
    learned = blank.backend_tokenizer
    learned.train_from_iterator(
        TEXTS * 3,
        tokenizers.trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=["<|startoftext|>", "<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    model = json.loads(learned.to_str())["model"]
    return transformers.CLIPTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]]
    )


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def public(request, tmp_path_factory):
    """Return a small random CLIPModel, the folder it is saved in, and its conversion."""
    torch, transformers = import_package("torch"), import_package("transformers")
    root = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tokenizer(transformers)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    common = {"hidden_act": request.param, "intermediate_size": 80}
    text = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
    text |= {"vocab_size": len(tokenizer), "pad_token_id": end}
    image = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    image |= {"image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=common | text | {"bos_token_id": start, "eos_token_id": end},
        vision_config=common | image,
        projection_dim=40,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():  # new parameters are near 0, and many would have no effect
        for value in model.parameters():
            value += 0.05 * torch.randn_like(value)
    folder = root / "public"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size, crop_size = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    processors = [
        getattr(transformers, name)(size=size, crop_size=crop_size)
        for name in ("CLIPImageProcessorPil", "CLIPImageProcessor")
    ]
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    module, companions = clip.module_and_companions(folder, state)
    weights.save(
        root / "w",
        module,
        module.from_torch(state),
        license="MIT",
        source="transformers",
        companions=companions,
    )
    return types.SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        processors=processors,
        folder=folder,
        converted=clip_score.load_network(root / "w"),
    )


def expected_tokens(public, texts=TEXTS):
    return public.tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=77,
        return_tensors="pt",
    )


def test_tokens(public):
    expected = expected_tokens(public)["input_ids"].numpy()
    np.testing.assert_array_equal(public.converted.tokenizer(TEXTS), expected)


def test_tokens_by_vocabulary_and_merges(public, tmp_path):
    """Folders without a tokenizer.json have these files."""
    model = json.loads((public.folder / "tokenizer.json").read_text())["model"]
    assert len(model["merges"]) > 50
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = captions.ClipTokenizer(captions.read_tokenizer(tmp_path), 77)
    expected = expected_tokens(public)["input_ids"].numpy()
    np.testing.assert_array_equal(tokenizer(TEXTS), expected)


@pytest.mark.parametrize("shape", [(32, 32), (48, 64), (128, 64), (512, 512), (20, 31)])
@pytest.mark.parametrize("backend", ["pil", "torchvision"])
def test_pixels(public, shape, backend):
    """Compare levels, of which a few in a thousand may differ by one.

    These are near a half before rounding: PIL's weights have 22 bits after the binary
    point, torchvision's fewer, ours are floats. Tall images here need no rounding of their
    sides: Pillow 13 would resize them along the height first.
    """
    image = torch_states.make_images(5, 2, *shape, 3)
    process = public.processors[backend == "torchvision"]
    expected = process(list(image), return_tensors="np")["pixel_values"]
    levels = [
        255 * (x * clip.STD + clip.MEAN)
        for x in (
            np.asarray(expected).transpose(0, 2, 3, 1),
            np.asarray(clip.preprocess(jnp.asarray(image), SIDE)),
        )
    ]
    difference = np.abs(levels[0] - levels[1])
    fraction = np.mean(difference > 0.5)
    print(f"levels differ by at most {difference.max():.3g}; {fraction:.1e} of them do")
    assert difference.max() < 1.01 and fraction < 5e-3


def expected_embeddings(public, image, texts=TEXTS):
    import torch

    pixels = public.processors[0](list(image), return_tensors="pt")
    with torch.no_grad():
        out = public.model(**pixels, **expected_tokens(public, texts))
    return normalized(out.image_embeds), normalized(out.text_embeds), out


def test_embeddings(public):
    image = torch_states.make_images(6, len(TEXTS), SIDE, SIDE, 3)
    expected_image, expected_text, _ = expected_embeddings(public, image)
    network = public.converted
    actual = clip.embed_images(network.params, jnp.asarray(image), network.sizes)
    assert max_difference(actual, expected_image) < 1e-4
    tokens = jnp.asarray(network.tokenizer(TEXTS))
    actual = clip.embed_tokens(network.params, tokens, network.sizes)
    assert max_difference(actual, expected_text) < 1e-4
    # If all embeddings were equal, the comparison would prove little.
    assert np.ptp(expected_image, axis=0).max() > 0.05
    assert np.ptp(expected_text, axis=0).max() > 0.05


def test_the_score(public):
    """The logits of transformers are scaled cosines; the images are resized here."""
    image = torch_states.make_images(7, len(TEXTS), 60, 45, 3)
    embedded, text, out = expected_embeddings(public, image)
    cosine = (out.logits_per_image.diagonal() / public.model.logit_scale.exp()).detach()
    expected = 100 * cosine.double().mean().item()
    score = clip_score.ClipScore(public.converted, mesh.make(devices=jax.devices()[:2]))
    score.add(image[:3], TEXTS[:3])
    score.add(image[3:], TEXTS[3:])
    print(f"{score.value():.6f}, expected {expected:.6f}")
    # A level of a resized pixel may differ by one.
    np.testing.assert_allclose(score.value(), expected, rtol=0, atol=0.01)
    np.testing.assert_allclose(
        clip_score.clip_score(embedded, text), expected, atol=1e-4
    )
    prefixed = [f"A photo depicts {text}" for text in TEXTS]
    embedded, text, _ = expected_embeddings(public, image, prefixed)
    expected = 2.5 * np.mean(np.maximum(np.sum(embedded * text, axis=1), 0.0))
    np.testing.assert_allclose(
        score.record()["clipscore"], expected, rtol=0, atol=2.5e-4
    )


def test_the_golden_values_of_the_default_suite(tmp_path):
    """The weights are far from 0, and one model has both activations."""
    torch, transformers = import_package("torch"), import_package("transformers")
    folder = clip_files.write_public_folder(tmp_path / "public")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    pixels = clip.preprocess(jnp.asarray(torch_states.make_images(0, 1, 24, 24, 3)), 24)
    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    ids = tokenizer(list(test_clip.TEXTS[:1]), return_tensors="pt")
    with torch.no_grad():
        image = normalized(model.get_image_features(x).pooler_output)
        text = normalized(model.get_text_features(**ids).pooler_output)
    golden = test_clip.GOLDEN_IMAGE, test_clip.GOLDEN_TEXT
    for actual, expected in zip((image, text), golden, strict=True):
        print([float(f"{v:.6g}") for v in actual[0, :6]])
        np.testing.assert_allclose(actual[0, :6], expected, rtol=1e-4, atol=1e-6)
