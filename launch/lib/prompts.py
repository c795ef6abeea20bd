"""The conditions of `ul sample`: classes, texts, or those of held-out examples."""

import re

import numpy as np
from absl import flags

from ul.core.errors import ConfigError
from ul.data.sources import colored_digits
from ul.evaluation.prompts import held_out_conditions
from ul.importing.captions import read_prompt_embeddings
from ul.inference import api

_LABELS = flags.DEFINE_list(
    "labels", [], "Class labels to sample, used in turn; if empty, all classes."
)
_TEXT = flags.DEFINE_multi_string(
    "text", [], "Caption to sample, only for colored_digits; several are used in turn."
)
_EMBEDDINGS = flags.DEFINE_string(
    "text_embeddings",
    None,
    "Captions as an .npz file of python -m ul embed_captions --prompts.",
)
# By what a model is conditioned on, these flags fit it; an error says what it takes.
_FLAGS_OF = {
    "text": (["text", "text_embeddings"], "takes --text or --text_embeddings"),
    "label": (["labels"], "takes --labels"),
    "held_out": ([], "takes the conditions of held-out examples"),
}
NamedConditions = tuple[dict[str, np.ndarray], list[str]]


def conditions(generator: api.Generator, count: int) -> NamedConditions:
    """Return the conditions of `count` samples, and a name for each sample.

    Raises:
      ConfigError: the flags do not fit the model.
    """
    names = generator.stage.conditions.names
    kind = "text" if "text" in names else "label" if names == ("label",) else "held_out"
    allowed, takes = _FLAGS_OF[kind]
    for flag in (_LABELS, _TEXT, _EMBEDDINGS):
        if flag.value and flag.name not in allowed:
            use = f"--{flag.name} cannot be used with this model, which {takes}"
            raise ConfigError(f"{use}. Remove it.")
    if kind == "text":
        batch, captions = _embed(generator.datasets.data.source)
        rows = [i % len(captions) for i in range(count)]
        return {k: v[rows] for k, v in batch.items()}, [captions[i] for i in rows]
    if kind == "held_out":
        held_out = [f"held_out{i}" for i in range(count)]
        return held_out_conditions(generator, count), held_out
    try:
        labels = [int(x) for x in _LABELS.value] or range(generator.num_classes)
    except ValueError as e:
        raise ConfigError(f"--labels must be integers; got {_LABELS.value}.") from e
    label = np.resize(np.asarray(labels), count)
    return {"label": label}, [f"class{i}" for i in label]


def _embed(source: dict) -> NamedConditions:
    """Return the embeddings of the captions on the command line, and the captions."""
    if bool(_EMBEDDINGS.value) == bool(_TEXT.value):
        got = "both" if _TEXT.value else "neither"
        raise ConfigError(f"Give either --text or --text_embeddings; got {got}.")
    if _EMBEDDINGS.value:
        return read_prompt_embeddings(_EMBEDDINGS.value, source)
    if source["kind"] != "colored_digits":
        raise ConfigError(
            f"--text needs a model of colored_digits; this one is of {source['kind']}. Use "
            "python -m ul embed_captions --prompts, and its file as --text_embeddings."
        )
    texts = [colored_digits.embed(text) for text in _TEXT.value]
    return {k: np.stack([t[k] for t in texts]) for k in texts[0]}, _TEXT.value


def file_name(i: int, name: str) -> str:
    """Return the file name of sample i, with as much of its name as fits."""
    return f"{i:06d}-{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')[:60]}.png"
