"""The commands by topic, with the first line of each one's docstring.

A command is the file `launch/<name>.py`. The list reads those files without importing them.
"""

import ast
import difflib
from pathlib import Path

from launch.lib import shipped

FOLDER = Path(__file__).parents[1]
TOPICS = {
    "Prepare data and weights": (
        "import_images",
        "import_video",
        "embed_captions",
        "encode",
        "import_autoencoder",
        "convert",
    ),
    "Plan and train": ("plan", "train", "submit", "sweep", "ablations"),
    "Evaluate": ("evaluate", "samplers", "clip_score", "bits", "summary", "report"),
    "Use a trained model": ("sample", "export"),
}


def names() -> list[str]:
    """Return the names of all commands."""
    return [name for topic in TOPICS.values() for name in topic]


def summary(name: str) -> str:
    """Return the first line of a command's docstring."""
    source = (FOLDER / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def nearest(name: str) -> str:
    """Return the command whose name is most similar to `name`."""
    return difflib.get_close_matches(name, names(), n=1, cutoff=0.0)[0]


def listing() -> str:
    """Return the text that `python -m ul` prints."""
    width = max(map(len, names()))
    lines = ["Unified Latents in JAX. Usage: python -m ul COMMAND --help"]
    for topic, commands in TOPICS.items():
        lines += ["", f"{topic}:"]
        lines += [f"  {name:{width}}  {summary(name)}" for name in commands]
    lines += ["", "Shipped configs, for --config NAME:VARIANT:"]
    lines += [f"  {', '.join(shipped.names('get_config'))}"]
    return "\n".join(lines)
