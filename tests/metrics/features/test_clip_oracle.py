"""CLIP against transformers: tokens, pixels, both embeddings and the score."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.lib import clip_files, torch_states
from tests.lib.oracle import package
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


def difference(got, want):
    """Largest of unit embeddings; printed, for a report."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    apart = float(np.abs(got - want).max())
    print(f"largest difference {apart:.2e}")
    return apart


def unit(x):
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def trained_tokenizer(transformers):
    """CLIP's, its merges learned from a few captions."""
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
    """transformers' own small CLIPModel, random, saved as it saves; the converted one."""
    torch, transformers = package("torch"), package("transformers")
    root = tmp_path_factory.mktemp(request.param)
    tokenizer = trained_tokenizer(transformers)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    both = {"hidden_act": request.param, "intermediate_size": 80}
    text = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
    text |= {"vocab_size": len(tokenizer), "pad_token_id": end}
    image = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    image |= {"image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=both | text | {"bos_token_id": start, "eos_token_id": end},
        vision_config=both | image,
        projection_dim=40,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():  # what is new is near 0, and much of it would not be seen
        for value in model.parameters():
            value += 0.05 * torch.randn_like(value)
    folder = root / "public"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}
    pixels = [
        getattr(transformers, name)(size=size[0], crop_size=size[1])
        for name in ("CLIPImageProcessorPil", "CLIPImageProcessor")
    ]
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    network, more = clip.beside(folder, state)
    arrays = network.from_torch(state)
    about = {"licence": "MIT", "source": "transformers"}
    weights.save(root / "w", network, arrays, companions=more, **about)
    return types.SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        pixels=pixels,
        folder=folder,
        ours=clip_score.load(root / "w"),
    )


def their_tokens(public, texts=TEXTS):
    return public.tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=77,
        return_tensors="pt",
    )


def test_tokens(public):
    want = their_tokens(public)["input_ids"].numpy()
    np.testing.assert_array_equal(public.ours.tokens(TEXTS), want)


def test_tokens_by_vocabulary_and_merges(public, tmp_path):
    """As folders without a tokenizer.json have them."""
    model = json.loads((public.folder / "tokenizer.json").read_text())["model"]
    assert len(model["merges"]) > 50
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ours = captions.Tokens(captions.public(tmp_path), 77)
    want = their_tokens(public)["input_ids"].numpy()
    np.testing.assert_array_equal(ours(TEXTS), want)


@pytest.mark.parametrize("shape", [(32, 32), (48, 64), (128, 64), (512, 512), (20, 31)])
@pytest.mark.parametrize("which", ["pil", "torchvision"])
def test_pixels(public, shape, which):
    """In levels, of which a few in a thousand fall to the other side of a half: PIL's
    weights have 22 bits behind the point, torchvision's fewer, ours are floats. No side of
    a tall image is rounded here: Pillow 13 would resize it along the height first."""
    image = torch_states.images(5, 2, *shape, 3)
    process = public.pixels[which == "torchvision"]
    theirs = process(list(image), return_tensors="np")["pixel_values"]
    levels = [
        255 * (x * clip.STD + clip.MEAN)
        for x in (
            np.asarray(theirs).transpose(0, 2, 3, 1),
            np.asarray(clip.preprocessed(jnp.asarray(image), SIDE)),
        )
    ]
    apart = np.abs(levels[0] - levels[1])
    print(f"at most {apart.max():.3g} levels, {np.mean(apart > 0.5):.1e} of them")
    assert apart.max() < 1.01 and np.mean(apart > 0.5) < 5e-3


def their_embeddings(public, image, texts=TEXTS):
    import torch

    pixels = public.pixels[0](list(image), return_tensors="pt")
    with torch.no_grad():
        out = public.model(**pixels, **their_tokens(public, texts))
    return unit(out.image_embeds), unit(out.text_embeds), out


def test_embeddings(public):
    image = torch_states.images(6, len(TEXTS), SIDE, SIDE, 3)
    seen, read, _ = their_embeddings(public, image)
    ours = public.ours
    got = clip.image_embedding(ours.params, jnp.asarray(image), ours.size)
    assert difference(got, seen) < 1e-4
    rows = jnp.asarray(ours.tokens(TEXTS))
    assert difference(clip.text_embedding(ours.params, rows, ours.size), read) < 1e-4
    # That they are not all alike, which would say little.
    assert np.ptp(seen, axis=0).max() > 0.05 and np.ptp(read, axis=0).max() > 0.05


def test_the_score(public):
    """Their logits are cosines times a scale; images of another size, resized."""
    image = torch_states.images(7, len(TEXTS), 60, 45, 3)
    seen, read, out = their_embeddings(public, image)
    cosine = (out.logits_per_image.diagonal() / public.model.logit_scale.exp()).detach()
    want = 100 * cosine.double().mean().item()
    score = clip_score.ClipScore(public.ours, mesh.make(devices=jax.devices()[:2]))
    score.add(image[:3], TEXTS[:3])
    score.add(image[3:], TEXTS[3:])
    print(f"{score.value():.6f}, theirs {want:.6f}")
    # A level of a resized pixel may differ by one.
    np.testing.assert_allclose(score.value(), want, rtol=0, atol=0.01)
    np.testing.assert_allclose(clip_score.clip_score(seen, read), want, atol=1e-4)
    prefixed = [f"A photo depicts {text}" for text in TEXTS]
    seen, read, _ = their_embeddings(public, image, prefixed)
    want = 2.5 * np.mean(np.maximum(np.sum(seen * read, axis=1), 0.0))
    np.testing.assert_allclose(score.record()["clipscore"], want, rtol=0, atol=2.5e-4)


def test_the_default_suites_values(tmp_path):
    """Of weights that are far from 0, both activations in one model."""
    torch, transformers = package("torch"), package("transformers")
    folder = clip_files.write(tmp_path / "public")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    pixels = clip.preprocessed(jnp.asarray(torch_states.images(0, 1, 24, 24, 3)), 24)
    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    ids = tokenizer(list(test_clip.TEXTS[:1]), return_tensors="pt")
    with torch.no_grad():
        image = unit(model.get_image_features(x).pooler_output)
        text = unit(model.get_text_features(**ids).pooler_output)
    golden = test_clip.GOLDEN_IMAGE, test_clip.GOLDEN_TEXT
    for got, want in zip((image, text), golden, strict=True):
        print([float(f"{v:.6g}") for v in got[0, :6]])
        np.testing.assert_allclose(got[0, :6], want, rtol=1e-4, atol=1e-6)
