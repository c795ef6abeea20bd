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
    "labels", [], "Classes by number (config.json has their names); if empty, all."
)
_TEXT = flags.DEFINE_multi_string(
    "text", [], "Caption to sample, only for colored_digits; several are used in turn."
)
_EMBEDDINGS = flags.DEFINE_string(
    "text_embeddings", None, "Captions as an .npz file of ul embed_captions --prompts."
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
    given = {f.name for f in (_LABELS, _TEXT, _EMBEDDINGS) if f.value}
    if unfit := sorted(given - set(allowed)):
        use = f"--{unfit[0]} cannot be used with this model, which {takes}"
        raise ConfigError(f"{use}. Remove it.")
    if kind == "text":
        batch, captions = _embed(generator.datasets.data.source)
        rows = [i % len(captions) for i in range(count)]
        return {k: v[rows] for k, v in batch.items()}, [captions[i] for i in rows]
    if kind == "held_out":
        held_out = [f"held_out{i}" for i in range(count)]
        return held_out_conditions(generator, count), held_out
    last = generator.num_classes - 1
    labels = [x.strip() for x in _LABELS.value] or list(map(str, range(last + 1)))
    if wrong := [x for x in labels if not x.isdecimal() or int(x) > last]:
        raise ConfigError(
            f"--labels must be numbers of classes, 0 to {last}; got {wrong[0]!r}."
        )
    label = np.resize(np.asarray(labels, np.int64), count)
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
