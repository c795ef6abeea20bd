"""The rules of this code base: layers, owners of packages, sizes and names."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    f for d in ("ul", "launch", "experiments") for f in (ROOT / d).rglob("*.py")
)
LIBRARY = [f for f in FILES if f.relative_to(ROOT).parts[0] == "ul"]

# A package may import packages of lower layers; packages of one layer are independent.
LAYERS = {
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
# Stricter than "lower layers": objectives know neither networks nor data, for example.
MAY_IMPORT = {
    "objectives": {"core", "diffusion"},
    "train": {"core", "objectives", "checkpoints"},
    "metrics": {"core", "diffusion", "objectives"},
    "config": {"core"},
    "checkpoints": {"core"},
    "data": {"core", "config"},
}
# The modules that turn a config into typed objects; nothing else sees a config.
CONFIG_READERS = (
    "ul/config/",
    "ul/data/datasets.py",
    "ul/runs/",
    "ul/stages/",
    "launch/lib/",
)
# The only places that may import a package.
OWNERS = {
    "absl": ("launch/",),
    "av": ("ul/importing/decoding.py",),
    "ml_collections": ("launch/lib/config_", "experiments/"),
    "clu": ("ul/core/metrics.py", "ul/train/writer.py"),
    "orbax": ("ul/checkpoints/",),
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
    "torch": (
        "launch/lib/states.py",
        "ul/importing/text_encoder.py",
        "ul/inference/pytorch/networks.py",
    ),
    "transformers": ("ul/importing/text_encoder.py",),
    "tensorboardX": ("ul/train/writer.py",),
    "sklearn": (
        "ul/metrics/classifier.py",
        "ul/data/sources/",
        "ul/planning/entropy.py",
    ),
    "skimage": ("ul/data/sources/photos.py",),
    "jax._src": (),  # ul/core/jax_internals.py imports it by name
    "wandb": ("ul/train/writer.py",),
    "matplotlib": (
        "ul/core/figures.py",
        "ul/sweeps/report/plots/",
    ),
}
NEVER = ("tensorflow", "pickle", "utils")


def name(file):
    return file.relative_to(ROOT).as_posix()


def for_each(files):
    """Make a test of one file a test of all; a test for each would take a minute."""

    def decorate(test):
        def test_all():
            failures = []
            for file in files:
                try:
                    test(file)
                except AssertionError as e:
                    failures.append(f"{name(file)}: {e}")
            assert not failures, "\n".join(failures)

        test_all.__name__, test_all.__doc__ = test.__name__, test.__doc__
        return test_all

    return decorate


def imports(file):
    """Dotted names of all modules a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "extras.require":
            assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
            yield node.args[0].value


def package_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "ul" and len(parts) > 1 else None


def inside(module, package):
    return module == package or module.startswith(f"{package}.")


@for_each(LIBRARY)
def test_imports_go_down(file):
    package = package_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if package == "__init__":
        return
    for module in imports(file):
        imported = package_of(module)
        if imported is None or imported == package or imported not in LAYERS:
            assert not inside(module, "launch") and not inside(module, "experiments")
            continue
        assert LAYERS[imported] < LAYERS[package], f"{name(file)} imports {module}"
        allowed = MAY_IMPORT.get(package)
        assert allowed is None or imported in allowed, f"{name(file)} imports {module}"


def test_no_modules_import_each_other_in_a_circle():
    """Not even for types. An __init__.py only hands on the names of its package."""
    modules = {
        ".".join(f.relative_to(ROOT).with_suffix("").parts): f
        for f in LIBRARY
        if f.name != "__init__.py"
    }
    graph = {module: modules.keys() & set(imports(f)) for module, f in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # Raises a CycleError with the circle.


@for_each(FILES)
def test_only_readers_of_configs_import_the_config_package(file):
    if any(inside(module, "ul.config") for module in imports(file)):
        assert name(file).startswith(CONFIG_READERS), f"{name(file)} reads a config"


def test_every_package_is_in_a_layer_and_there_are_no_loose_modules():
    top_level = {
        f.relative_to(ROOT / "ul").parts[0].removesuffix(".py") for f in LIBRARY
    }
    assert top_level - {"__init__", "__main__"} == LAYERS.keys()
    assert len(LAYERS) <= 17


@for_each(FILES)
def test_every_folder_is_a_package_and_therefore_in_the_wheel(file):
    assert (file.parent / "__init__.py").exists(), (
        f"{name(file.parent)} has no __init__.py"
    )


@for_each(FILES)
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


@for_each(FILES)
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


@for_each(LIBRARY)
def test_no_flags_and_no_defaults_for_options(file):
    text = file.read_text()
    assert "FLAGS" not in text
    assert "config.get(" not in text.replace('config.get("stage")', "")


def test_the_top_level_is_fixed():
    allowed = {
        "ul", "experiments", "launch", "tests", "setup.py", "README.md", "Makefile",
        "constraints.txt",
    }  # fmt: skip
    # Files that a user's own commands left in the clone are not the project's.
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is not a clone")
    tracked = {line.partition("/")[0] for line in done.stdout.splitlines()}
    assert {name for name in tracked if not name.startswith(".")} == allowed


# Words that say nothing about what a variable is.
VAGUE_NAMES = frozenset(
    "found made said told asked seen wanted look looks splits judges manifold".split()
)
# First words of docstrings that are no sentence and no noun phrase.
FRAGMENTS = ("Of ", "What ", "Where ", "Who ", "How ", "Whose ", "Another's ")


def definitions(file):
    """Functions, classes and the module itself, with their docstrings."""
    tree = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Module)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@for_each([f for f in FILES if not name(f).startswith("experiments/")])
def test_variables_are_named_for_what_they_are(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            assert node.id not in VAGUE_NAMES, f"{name(file)}:{node.lineno} {node.id}"
        elif isinstance(node, ast.arg):
            assert node.arg not in VAGUE_NAMES, f"{name(file)}:{node.lineno} {node.arg}"


@for_each(FILES)
def test_docstrings_are_sentences_or_noun_phrases(file):
    for node in definitions(file):
        docstring = ast.get_docstring(node) or ""
        assert not docstring.startswith(FRAGMENTS), f"{name(file)}: {docstring[:60]}"


def test_a_class_name_denotes_one_class():
    """The networks in PyTorch have the names of those in JAX, which they equal."""
    names = [
        node.name
        for file in FILES
        if name(file) != "ul/inference/pytorch/networks.py"
        for node in definitions(file)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {n for n in names if names.count(n) > 1} == set()
