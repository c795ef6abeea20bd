"""What launch.sample asks for: classes, texts, or the first frames of held-out clips."""

import re
from collections.abc import Sequence

import numpy as np
from absl import flags

from ul.core.errors import ConfigError
from ul.data.sources import colored_digits
from ul.evaluation.prompts import continuing
from ul.importing.captions import read_prompts
from ul.inference import api
from ul.stages import registry

_LABELS = flags.DEFINE_list("labels", [], "Classes to go round; all of them if unset.")
_TEXT = flags.DEFINE_multi_string("text", [], "Captions of colored_digits; several.")
_EMBEDDED = flags.DEFINE_string(
    "text_embeddings",
    None,
    "Other captions: an .npz of launch.embed_captions --prompts.",
)


def asked(gen: api.Generator, count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """The condition of `count` samples, round and round, and what each is called.

    Raises:
      ConfigError: flags that are not for such a model.
    """
    wanted = registry.conditions(gen.config)
    if "text" not in wanted:
        if _TEXT.value or _EMBEDDED.value:
            raise ConfigError(
                "--text and --text_embeddings are for models told in words; this one takes "
                + ("held-out clips" if "context" in wanted else "--labels")
            )
        if "context" in wanted:
            if _LABELS.value:
                raise ConfigError("--labels is for models of classes, not of clips")
            return continuing(gen, count), [f"continues{i}" for i in range(count)]
        return _of_classes(gen.num_classes, count)
    if _LABELS.value:
        raise ConfigError("--labels is for models of classes; this one takes text")
    found, said = _of_text(gen)
    rows = [i % len(said) for i in range(count)]
    return {name: value[rows] for name, value in found.items()}, [said[i] for i in rows]


def _of_classes(known: int, count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    try:
        classes: Sequence[int] = [int(label) for label in _LABELS.value] or range(known)
    except ValueError as e:
        raise ConfigError(f"--labels {_LABELS.value} are not whole numbers") from e
    label = np.resize(np.asarray(classes), count)
    return {"label": label}, [f"class{i}" for i in label]


def _of_text(gen: api.Generator) -> tuple[dict[str, np.ndarray], list[str]]:
    source = gen.config.data.source
    if _EMBEDDED.value and _TEXT.value:
        raise ConfigError("give --text or --text_embeddings, not both")
    if _EMBEDDED.value:
        return read_prompts(_EMBEDDED.value, source)
    if not _TEXT.value:
        raise ConfigError(
            "this model is told in words; give --text or --text_embeddings"
        )
    if source["kind"] != "colored_digits":
        raise ConfigError(
            f"--text is for colored_digits, whose words are built in, and this model's "
            f"source is {source['kind']}; give --text_embeddings, which launch.embed_captions "
            "--prompts makes with the model's own text encoder"
        )
    told = [colored_digits.embedded(text) for text in _TEXT.value]
    return {name: np.stack([t[name] for t in told]) for name in told[0]}, _TEXT.value


def file_name(i: int, said: str) -> str:
    """Of sample i, with what it is called, as far as a file name can say it."""
    return f"{i:06d}-{re.sub(r'[^A-Za-z0-9]+', '_', said).strip('_')[:60]}.png"
