"""Commands of the documents parse, links resolve, tables of figures name their source."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from tests.lib import forks

ROOT = Path(__file__).parents[1]
# The greatest number of lines of each document.
LIMITS = {
    "README.md": 200,
    "launch/README.md": 150,
    "launch/DATA.md": 200,
    "launch/EVALUATE.md": 200,
    "launch/PLAN.md": 150,
    "launch/SPEED.md": 120,
    "experiments/README.md": 150,
    "experiments/RESULTS.md": None,
    "ul/README.md": 250,
    "tests/README.md": 80,
    ".github/CONTRIBUTING.md": 60,
    ".github/CHANGELOG.md": 60,
}
DOCUMENTS = [ROOT / name for name in LIMITS]
# The docstrings that contain commands.
SOURCES = sorted(
    [*(ROOT / "launch").glob("*.py"), *(ROOT / "experiments").rglob("*.py")]
)
# Each placeholder is tested with this value in its place.
PLACEHOLDERS = {
    "C": "digits:stage1",
    "CONFIG": "digits:stage1",
    "FILE": "bitrate",
    "PLACE": "local",
    "T": "cpu:8",
    "TOPOLOGY": "cpu:8",
    "M": "data=8",
    "MESH": "data=8",
    "COMMAND": "train",
    "F": "2",
    "B": "4",
    "STEPS": "10",
}
RESULTS = (ROOT / "experiments/RESULTS.md").read_text()


def name(path):
    return path.relative_to(ROOT).as_posix()


def code_lines(text):
    """Return the lines of all code blocks, with continued lines joined."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S)
    indented = re.findall(r"^(?: {4}.*\n?)+", text, re.M)
    blocks = "\n".join([*fenced, *indented]).replace("\\\n", " ")
    return [line.strip() for line in blocks.splitlines()]


def commands(path):
    """Return the commands of this project in the code blocks of a document or docstring."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
        # A docstring may show a single command without indenting it.
        text += "\n\n" + re.sub(r"^(?=python -m)", "    ", text, flags=re.M)
    found = []
    for line in code_lines(text):
        match = re.match(r"(?:python -m ul|unified-latents) +([a-z].*)", line)
        if match:
            words = re.sub(r" #.*|\[.*?\]", "", match[1])
            for placeholder, value in PLACEHOLDERS.items():
                words = re.sub(rf"(?<=[ =]){placeholder}(?= |$)", value, words)
            found.append(" ".join(words.split()))
    return found


COMMANDS = sorted({c for path in [*DOCUMENTS, *SOURCES] for c in commands(path)})


@pytest.fixture(scope="module")
def parsed():
    """The result of every command, which was parsed and not run."""
    words = [shlex.split(command) for command in COMMANDS]
    done = forks.run_all(words, parse_only=True)
    return dict(zip(COMMANDS, done, strict=True))


def test_the_documents_contain_commands():
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documents_parses(parsed, command):
    assert parsed[command].code == 0, parsed[command].err


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_a_make_target_of_the_documents_exists(path):
    makefile = (ROOT / "Makefile").read_text()
    for line in code_lines(path.read_text()):
        if match := re.match(r"make ((?:[a-z]+ ?)+)", line):
            for target in match[1].split():
                assert re.search(rf"^{target}:", makefile, re.M), line


def slug(heading):
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path):
    return {slug(h) for h in re.findall(r"^#+ (.*)$", path.read_text(), re.M)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_and_pictures_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match("https?://", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{name(path)}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{name(path)}: {target}"


def test_every_picture_is_shown():
    text = "".join(path.read_text() for path in DOCUMENTS)
    for picture in (ROOT / ".github/pictures").iterdir():
        assert picture.name in text, f"no document shows {picture.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_a_document_has_at_most_so_many_lines(path):
    limit = LIMITS[name(path)]
    if limit is not None:
        assert len(path.read_text().splitlines()) <= limit


def test_every_document_has_a_limit():
    tracked = {p for p in ROOT.glob("**/*.md") if not {".venv", "runs"} & {*p.parts}}
    outside = {p for p in tracked if any(part.startswith(".venv") for part in p.parts)}
    assert {name(p) for p in tracked - outside if ".pytest_cache" not in p.parts} == {
        *LIMITS
    }


@pytest.mark.parametrize(
    "path", [p for p in DOCUMENTS if "RESULTS" not in p.name], ids=name
)
def test_only_results_state_commits(path):
    assert not re.search(
        r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7}\b", path.read_text()
    )


@pytest.mark.parametrize("section", re.split(r"^(?=## )", RESULTS, flags=re.M)[1:])
def test_every_table_of_figures_states_its_source(section):
    title = section.partition("\n")[0]
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", section), f"{title}: no date"
    assert "seed" in section.lower(), f"{title}: no seed"
    hardware = re.search(r"\bcores?\b|hardware|H200|TPU|GPU", section)
    assert hardware, f"{title}: no hardware"
    assert any(re.match("python|make", line) for line in code_lines(section)), (
        f"{title}: no command"
    )
