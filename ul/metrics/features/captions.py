"""Tokenize captions for CLIP with the user's tokenizer.json (the package `tokenizers`)."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ul.core import extras, files
from ul.core.errors import DataError

TOKENIZER_FILE = "clip_tokenizer.json"
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's own expression: words, single digits, and runs of other characters.
_WORD_PATTERN = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
    r"[^\s\p{L}\p{N}]+"
)


def _import_tokenizers() -> Any:
    return extras.require("tokenizers", "CLIP's tokenizer", "clip", "tokenizers")


class ClipTokenizer:
    """A tokenizer of captions; `content` is that of a tokenizer.json."""

    def __init__(self, content: bytes, context: int):
        """Load the tokenizer, which truncates captions to `context` tokens.

        Raises:
          DataError: `content` is not a tokenizer.
          ConfigError: the package is not installed.
        """
        package = _import_tokenizers()
        try:
            self._tokenizer = package.Tokenizer.from_buffer(content)
        except Exception as e:  # the package raises nothing narrower
            raise DataError(
                f"CLIP's tokenizer.json cannot be read as a tokenizer: {e}"
            ) from e
        # Truncation removes words, never the start and the end token.
        self._tokenizer.enable_truncation(context)
        self._tokenizer.no_padding()
        self._context = context

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Return tokens int32 [N, context]: start, caption, end, and end as the padding.

        The text tower is causal, so the padding cannot influence the end token's state.
        """
        encodings = self._tokenizer.encode_batch(list(captions))
        tokens = np.empty((len(captions), self._context), np.int32)
        for i, encoding in enumerate(encodings):
            tokens[i, : len(encoding.ids)] = encoding.ids
            tokens[i, len(encoding.ids) :] = encoding.ids[-1]
        return tokens

    def check(self, vocabulary: int, end: int) -> None:
        """Check that the tokens fit a network of `vocabulary` tokens and this end token.

        Raises:
          DataError: the tokenizer is that of another network.
        """
        ids = self._tokenizer.encode("").ids
        if len(ids) != 2 or ids[-1] != end:
            raise DataError(
                "CLIP's tokenizer must encode an empty caption as a start token and the "
                f"end token {end} of config.json; it gives {ids}. "
                "Take both files from one network."
            )
        num_tokens = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if num_tokens > vocabulary:
            raise DataError(
                f"CLIP's tokenizer must have at most the {vocabulary} tokens of its "
                f"network; it has {num_tokens}. Take both files from one network."
            )


def read_tokenizer(folder: epath.Path) -> bytes:
    """Return the content of a public folder's tokenizer.json.

    It is built from vocab.json and merges.txt if the folder has only those.

    Raises:
      DataError: the folder has neither, or they cannot be read.
      ConfigError: the package is not installed.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return files.read_bytes(path)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise DataError(
            "CLIP's tokenizer must be in the folder of its weights, but "
            f"{folder} has no tokenizer.json, nor vocab.json and merges.txt. "
            "Download them to that folder."
        )
    package = _import_tokenizers()
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
        # Only the version line is a comment: a merge may begin with # as well.
        lines = lines[1:] if lines[0].startswith("#version") else lines
        pairs = [tuple(line.split()) for line in lines if line.strip()]
        tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
        return _build_tokenizer(package, tokens, pairs).to_str().encode()
    except Exception as e:  # the package raises nothing narrower
        raise DataError(
            f"{vocabulary} and {merges.name} cannot be read as a tokenizer: {e}"
        ) from e


def _build_tokenizer(
    package: Any, vocabulary: dict[str, int], merges: list[tuple[str, ...]]
) -> Any:
    """Build CLIP's tokenizer: NFC, single spaces, lower case, then byte-pair encoding."""
    tokenizer = package.Tokenizer(
        package.models.BPE(vocabulary, merges, unk_token=END, end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = package.normalizers.Sequence(
        [
            package.normalizers.NFC(),
            package.normalizers.Replace(package.Regex(r"\s+"), " "),
            package.normalizers.Lowercase(),
        ]
    )
    words = package.pre_tokenizers.Split(
        package.Regex(_WORD_PATTERN), behavior="removed", invert=True
    )
    to_bytes = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = package.pre_tokenizers.Sequence([words, to_bytes])
    tokenizer.add_special_tokens([START, END])
    start, end = ((token, tokenizer.token_to_id(token)) for token in (START, END))
    tokenizer.post_processor = package.processors.RobertaProcessing(
        end, start, trim_offsets=False, add_prefix_space=False
    )
    return tokenizer
