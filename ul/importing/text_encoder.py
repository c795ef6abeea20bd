"""A Hugging Face text encoder, by name or folder, as launch.embed_captions takes it."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ul.core.errors import ConfigError
from ul.importing.captions import TextEncoder


def load(model: str, *, tokens: int, dtype: str) -> TextEncoder:
    """The encoder in `model`: a T5's, CLIP's for text, or any with last_hidden_state.

    Its parameters are read from safetensors alone, and held in `dtype`; a GPU is taken if
    there is one. Special tokens of the tokenizer count as tokens.

    Raises:
      ConfigError: torch or transformers are not there, or no encoder is.
    """
    try:
        import torch
        import transformers
    except ImportError as e:
        raise ConfigError(f"{e}; pip install -c constraints.txt '.[text]'") from e
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        network = _network(transformers, model, getattr(torch, dtype))
    # Whatever is wrong with a name, a folder or the net: they raise many kinds.
    except Exception as e:
        line = str(e).strip().split("\n")[0]
        raise ConfigError(f"--model {model}: {line}") from e
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device).eval()

    @torch.inference_mode()
    def embed(captions: Sequence[str]) -> list[np.ndarray]:
        cut = dict(padding=True, truncation=True, max_length=tokens)
        told = tokenizer(list(captions), return_tensors="pt", **cut).to(device)
        mask = told["attention_mask"]
        out = network(input_ids=told["input_ids"], attention_mask=mask)
        hidden = out.last_hidden_state.float().cpu().numpy()
        return [h[m] for h, m in zip(hidden, mask.bool().cpu().numpy(), strict=True)]

    identity = {
        "model": model.rstrip("/").split("/")[-1],
        "weights": _digest(torch, network),
        "tokenizer": _tokenizer_digest(tokenizer),
        "compute": dtype,
    }
    return TextEncoder(embed, embed(["a"])[0].shape[-1], tokens, identity)


def _network(transformers, model: str, dtype):
    """The part of a model that reads text."""
    how = dict(use_safetensors=True, dtype=dtype)
    known = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    settings = transformers.AutoConfig.from_pretrained(model)
    if type(settings) in known:
        return transformers.AutoModelForTextEncoding.from_pretrained(model, **how)
    network = transformers.AutoModel.from_pretrained(model, **how)
    if getattr(settings, "is_encoder_decoder", False):
        return network.get_encoder()
    return getattr(network, "text_model", network)


def _digest(torch, network) -> str:
    """Sixteen hex digits of every parameter by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tokenizer_digest(tokenizer) -> str:
    """Of its vocabulary and, where it is of the fast kind, of all its rules."""
    words = sorted(tokenizer.get_vocab().items())
    rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else ""
    return hashlib.sha256(f"{words}{rules}".encode()).hexdigest()[:16]
