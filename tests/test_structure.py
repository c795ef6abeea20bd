"""The rules of the house: who imports whom, who owns what, how large things grow."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    f for d in ("ul", "launch", "experiments") for f in (ROOT / d).rglob("*.py")
)

# A room may import rooms of lower floors, and itself; rooms of one floor never meet.
FLOORS = {
    "core": 0,
    "diffusion": 1,
    "models": 1,
    "config": 1,
    "data": 2,
    "objectives": 2,
    "checkpoints": 2,
    "metrics": 3,
    "stages": 3,
    "train": 3,
    "inference": 4,
    "importing": 4,
    "runs": 5,
    "evaluation": 6,
    "planning": 6,
    "sweeps": 7,
}
# Beyond "lower floors": objectives compute, and know neither networks nor data.
MAY_IMPORT = {
    "objectives": {"core", "diffusion"},
    "train": {"core", "objectives", "checkpoints"},
    "metrics": {"core", "diffusion", "objectives"},
    "config": {"core"},
    "checkpoints": {"core"},
    "data": {"core", "config"},
}
# Package: where alone it may be imported.
OWNERS = {
    "absl": ("launch/",),
    "av": ("ul/importing/decoding.py",),
    "ml_collections": ("launch/lib/cli.py", "experiments/"),
    "clu": ("ul/core/metrics.py", "ul/train/writer.py"),
    "orbax": ("ul/checkpoints/store.py",),
    "grain": ("ul/data/",),
    "array_record": ("ul/data/",),
    "tensorflow_datasets": ("ul/data/",),
    "flax.linen": ("ul/models/",),
    "safetensors": (
        "ul/metrics/features/weights.py",
        "ul/importing/autoencoder_weights.py",
        "ul/checkpoints/safetensors.py",
    ),
    "tokenizers": ("ul/metrics/features/captions.py",),
    "torch": ("launch/lib/states.py", "ul/importing/text_encoder.py"),
    "transformers": ("ul/importing/text_encoder.py",),
    "tensorboardX": ("ul/train/writer.py",),
    "wandb": ("ul/train/writer.py",),
    "matplotlib": (
        "ul/train/curves.py",
        "ul/evaluation/bit_plots.py",
        "ul/planning/plots.py",
        "ul/sweeps/report/plots/",
    ),
}
NEVER = ("tensorflow", "pickle", "utils")


def name(file):
    return file.relative_to(ROOT).as_posix()


def imports(file):
    """Dotted names of all modules a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "ul" and len(parts) > 1 else None


def inside(module, package):
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize(
    "file", [f for f in FILES if name(f).startswith("ul/")], ids=name
)
def test_imports_go_down(file):
    here = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if here == "__init__":
        return
    for module in imports(file):
        there = room(module)
        if there is None or there == here or there not in FLOORS:
            assert not inside(module, "launch") and not inside(module, "experiments")
            continue
        assert FLOORS[there] < FLOORS[here], f"{name(file)} imports {module}"
        allowed = MAY_IMPORT.get(here)
        assert allowed is None or there in allowed, f"{name(file)} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_packages_have_owners(file):
    for module in imports(file):
        for package, places in OWNERS.items():
            if inside(module, package):
                assert name(file).startswith(places), f"{name(file)} imports {module}"
        assert module.split(".")[0] not in NEVER, f"{name(file)} imports {module}"
        if name(file).startswith("experiments/"):
            first = module.split(".")[0]
            ours = first in ("experiments", "ml_collections")
            assert ours or first in sys.stdlib_module_names, f"{name(file)}: {module}"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_budgets(file):
    lines = len(file.read_text().splitlines())
    place = name(file)
    limit = (
        80 if place.startswith("launch/") else 120 if "experiments/" in place else 400
    )
    assert lines <= limit, f"{place} has {lines} lines, its budget is {limit}"
    assert file.stem != "utils"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{place}: {node.name} has {length} lines, not 60"


@pytest.mark.parametrize(
    "file", [f for f in FILES if name(f).startswith("ul/")], ids=name
)
def test_no_flags_and_no_defaults_for_options(file):
    text = file.read_text()
    assert "FLAGS" not in text
    assert "config.get(" not in text.replace('config.get("stage")', "")


def test_every_file_is_in_a_room():
    rooms = {
        p.relative_to(ROOT / "ul").parts[0].removesuffix(".py")
        for p in FILES
        if name(p).startswith("ul/")
    }
    assert rooms - {"__init__"} == FLOORS.keys()


def test_the_top_level_is_fixed():
    allowed = {
        "ul", "experiments", "launch", "tests", "setup.py", "README.md", "Makefile",
        "constraints.txt", "benchmarks", "runs", "build",
    }  # fmt: skip
    visible = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert {v for v in visible if not v.endswith(".egg-info")} <= allowed
