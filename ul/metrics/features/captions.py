"""Captions to CLIP's tokens, by the user's tokenizer.json (the package `tokenizers`)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ul.core.errors import ConfigError, DataError

FILE = "clip_tokenizer.json"
START, END = "<|startoftext|>", "<|endoftext|>"
# Words, digits one by one, and what is neither: CLIP's own expression.
_PARTS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
    r"[^\s\p{L}\p{N}]+"
)


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as e:
        raise ConfigError(
            "CLIP's captions need tokenizers: pip install '.[clip]'"
        ) from e
    return tokenizers


class Tokens:
    """Captions to tokens; `content`: a tokenizer.json."""

    def __init__(self, content: bytes, context: int):
        """Raises DataError for what is no tokenizer."""
        package = _package()
        try:
            self._tokenizer = package.Tokenizer.from_buffer(content)
        except Exception as e:  # the package raises nothing narrower
            raise DataError(f"CLIP's tokenizer cannot be read: {e}") from e
        # The start and the end token stay, whatever is cut between them.
        self._tokenizer.enable_truncation(context)
        self._tokenizer.no_padding()
        self._context = context

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """int32 [N, context]: start, the caption, end, and end repeated, which no
        network that sees only earlier tokens can tell from nothing."""
        rows = self._tokenizer.encode_batch(list(captions))
        found = np.empty((len(captions), self._context), np.int32)
        for i, row in enumerate(rows):
            found[i, : len(row.ids)] = row.ids
            found[i, len(row.ids) :] = row.ids[-1]
        return found

    def check(self, vocabulary: int, end: int) -> None:
        """Raises DataError where the tokens are not those of a network of so many, whose
        captions stop at `end`."""
        ids = self._tokenizer.encode("").ids
        if len(ids) != 2 or ids[-1] != end:
            raise DataError(
                f"CLIP's tokenizer makes {ids} of an empty caption, not a start and the "
                f"end {end} of config.json; they are not of one network"
            )
        known = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if known > vocabulary:
            raise DataError(
                f"CLIP's tokenizer knows {known} tokens, its network {vocabulary}"
            )


def public(folder: epath.Path) -> bytes:
    """The tokenizer.json of a public folder, made of vocab.json and merges.txt if need be.

    Raises:
      DataError: the folder has neither, or they cannot be read.
      ConfigError: the package is not installed.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise DataError(
            f"{folder} has no tokenizer.json, nor vocab.json and merges.txt: CLIP reads "
            "captions by the tokenizer that lies beside its weights"
        )
    package = _package()
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
        # A merge may begin with # as well.
        lines = lines[1:] if lines[0].startswith("#version") else lines
        pairs = [tuple(line.split()) for line in lines if line.strip()]
        tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
        return _tokenizer(package, tokens, pairs).to_str().encode()
    except Exception as e:  # the package raises nothing narrower
        raise DataError(f"{vocabulary} and {merges.name} cannot be read: {e}") from e


def _tokenizer(
    t: Any, vocabulary: dict[str, int], merges: list[tuple[str, ...]]
) -> Any:
    """CLIP's way with a text: NFC, single spaces, lower case, then pairs of bytes."""
    tokenizer = t.Tokenizer(
        t.models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = t.normalizers.Sequence(
        [
            t.normalizers.NFC(),
            t.normalizers.Replace(t.Regex(r"\s+"), " "),
            t.normalizers.Lowercase(),
        ]
    )
    split = t.pre_tokenizers.Split(t.Regex(_PARTS), behavior="removed", invert=True)
    bytewise = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = t.pre_tokenizers.Sequence([split, bytewise])
    tokenizer.add_special_tokens([START, END])
    first, last = ((token, tokenizer.token_to_id(token)) for token in (START, END))
    tokenizer.post_processor = t.processors.RobertaProcessing(
        last, first, trim_offsets=False, add_prefix_space=False
    )
    return tokenizer
