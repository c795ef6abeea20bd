"""Hugging Face text encoders with random weights, loaded as `ul embed_captions` does."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from ul.core.errors import ConfigError
from ul.importing import text_encoder

pytestmark = pytest.mark.oracle

WORDS = "a red dog runs over the snow and two small cats sleep on green roof".split()
CAPTIONS = [
    "a red dog runs",
    "cats",
    "two small cats sleep on the green roof and a dog",
]
TOKENS = 8


def save_tokenizer(folder):
    """Save a tokenizer of whole words for AutoTokenizer; return the vocabulary's size."""
    import tokenizers
    import transformers

    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
    ).save_pretrained(folder)
    return len(vocabulary)


def model_config(kind, size):
    import transformers

    if kind == "t5":
        return transformers.T5Config(
            vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
        )  # fmt: skip
    if kind == "bert":
        return transformers.BertConfig(
            vocab_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=32,
        )  # fmt: skip
    text = dict(
        vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, eos_token_id=2,
        bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                  num_attention_heads=2, image_size=8, patch_size=4)  # fmt: skip
    return transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=8
    )


@pytest.fixture(scope="module", params=["t5", "bert", "clip"])
def model(request, tmp_path_factory):
    """A folder with a whole model of random weights, including a decoder or image encoder."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    network = transformers.AutoModel.from_config(
        model_config(request.param, save_tokenizer(folder))
    ).eval()
    network.save_pretrained(folder)
    part = network.get_encoder() if request.param == "t5" else network
    return folder, getattr(part, "text_model", part)


def test_tokens_are_the_models_hidden_states_one_caption_at_a_time(model):
    import torch

    folder, network = model
    encoder = text_encoder.load(str(folder), tokens=TOKENS, dtype="float32")
    assert (encoder.channels, encoder.tokens) == (16, TOKENS)
    embedded = encoder.embed(CAPTIONS)
    # These include the end token; the last caption is cut.
    assert [len(vectors) for vectors in embedded] == [5, 2, TOKENS]
    number = {w: i for i, w in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    for caption, vectors in zip(CAPTIONS, embedded, strict=True):
        ids = [number[w] for w in caption.split()][: TOKENS - 1] + [2]
        with torch.inference_mode():
            alone = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, alone.numpy(), atol=1e-5)


def test_the_identity_depends_on_weights_and_tokenizer(model, tmp_path):
    import safetensors.torch

    original, _ = model

    def identity(folder, dtype="float32"):
        return text_encoder.load(str(folder), tokens=TOKENS, dtype=dtype).identity

    one = identity(original)
    assert one == identity(original) | {"model": original.name}
    other = tmp_path / "other"
    shutil.copytree(original, other)
    weights = safetensors.torch.load_file(other / "model.safetensors")
    rows = len(WORDS) + 3
    words = next(k for k, w in weights.items() if w.ndim == 2 and len(w) == rows)
    weights[words][-1, -1] += 1.0
    safetensors.torch.save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert identity(other)["weights"] != one["weights"]
    assert identity(other)["tokenizer"] == one["tokenizer"]
    path = other / "tokenizer.json"
    path.write_text(path.read_text().replace('"snow"', '"rain"'))
    assert identity(other)["tokenizer"] != one["tokenizer"]


def test_a_missing_model_is_reported_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="--model .*nothing") as e:
        text_encoder.load(str(tmp_path / "nothing"), tokens=TOKENS, dtype="float32")
    assert "\n" not in str(e.value)


def test_the_command_twice(model, tmp_path):
    """Images without classes and .txt files beside them: the digest is reproducible."""
    from tests.importing.test_images import encoded
    from tests.lib.originals import tar_bytes

    folder, _ = model
    if not folder.name.startswith("t5"):
        pytest.skip("one model is enough for the command")
    files = {f"00/{i}.jpg": encoded(i) for i in range(3)}
    files |= {f"00/{i}.txt": c.encode() for i, c in enumerate(CAPTIONS)}
    (tmp_path / "t.tar").write_bytes(tar_bytes(files))

    def command(name, *flags):
        process = subprocess.run(
            [sys.executable, "-m", "ul", name, *flags],
            capture_output=True, text=True,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        return process.stdout

    both = [f"--{split}={tmp_path / 't.tar'}" for split in ("train", "eval")]
    images = tmp_path / "images"
    command("import_images", *both, f"--out={images}", "--size=16", "--one_class")
    outputs = [
        command(
            "embed_captions",
            f"--images={images}",
            f"--captions={tmp_path / 't.tar'}",
            f"--model={folder}",
            "--tokens=8",
            f"--out={tmp_path / out}",
        )  # fmt: skip
        for out in ("a", "b", "a")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert (
        "train: 3 captions (empty: 0; with all 8 tokens, possibly truncated: 1), "
        in outputs[0]
    )
