"""Load Hugging Face text encoders for `ul embed_captions`."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ul.core import extras
from ul.core.errors import ConfigError
from ul.importing.captions import TextEncoder


def load(model: str, *, tokens: int, dtype: str) -> TextEncoder:
    """Load a text encoder by its name on the hub or from a folder.

    It may be T5's or CLIP's, or any model that returns last_hidden_state. Parameters are
    read only from safetensors files and kept in `dtype`; a GPU is used if there is one.
    Captions are cut to `tokens` tokens, which include the tokenizer's special tokens.

    Raises:
      ConfigError: torch or transformers is not installed, or the model cannot be loaded.
    """
    packages = "torch transformers sentencepiece protobuf"
    extra = ("Embedding captions", "text", packages)
    torch = extras.require("torch", *extra)
    transformers = extras.require("transformers", *extra)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        network = _load_encoder(transformers, model, getattr(torch, dtype))
    # They raise many classes for wrong names, folders and models.
    except Exception as e:
        reason = str(e).strip().split("\n")[0]
        raise ConfigError(f"--model {model} cannot be loaded: {reason}") from e
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device).eval()

    @torch.inference_mode()
    def embed(captions: Sequence[str]) -> list[np.ndarray]:
        inputs = tokenizer(
            list(captions),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=tokens,
        ).to(device)
        mask = inputs["attention_mask"]
        output = network(input_ids=inputs["input_ids"], attention_mask=mask)
        hidden = output.last_hidden_state.float().cpu().numpy()
        return [h[m] for h, m in zip(hidden, mask.bool().cpu().numpy(), strict=True)]

    identity = {
        "model": model.rstrip("/").split("/")[-1],
        "weights": _weights_digest(torch, network),
        "tokenizer": _tokenizer_digest(tokenizer),
        "compute": dtype,
    }
    return TextEncoder(embed, embed(["a"])[0].shape[-1], tokens, identity)


def _load_encoder(transformers, model: str, dtype):
    """Return the part of a model that encodes text."""
    options = dict(use_safetensors=True, dtype=dtype)
    config = transformers.AutoConfig.from_pretrained(model)
    if type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding.from_pretrained(model, **options)
    network = transformers.AutoModel.from_pretrained(model, **options)
    if getattr(config, "is_encoder_decoder", False):
        return network.get_encoder()
    return getattr(network, "text_model", network)


def _weights_digest(torch, network) -> str:
    """Return a digest, 16 hex digits, of all parameters and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tokenizer_digest(tokenizer) -> str:
    """Return a digest, 16 hex digits, of a vocabulary and, of a fast tokenizer, its rules."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else ""
    return hashlib.sha256(f"{vocabulary}{rules}".encode()).hexdigest()[:16]
