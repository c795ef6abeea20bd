"""`--help` of every command, and the list of commands."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch.lib import command_list, exit_codes
from launch.slurm import SlurmPlace
from tests.lib import forks

ROOT = Path(__file__).parents[2]
KINDS = ["submit local", "submit slurm", "submit gke", "submit tpu_vm"]
KINDS += [
    "plan bitrate",
    "plan flops",
    "plan evaluation",
    "plan cost",
    "plan pod",
    "plan scaling",
    "plan budget",
    "convert clip",
]
PAGES = [*command_list.names(), *KINDS]
WITH_EXIT_CODES = ("train", "encode", "submit", "sweep")


@dataclasses.dataclass
class Page:
    code: int
    text: str
    errors: str

    def flags(self) -> dict[str, str]:
        """The help sentence of every flag, by the name of the flag."""
        entry = r"^  --(?:\[no\])?([\w.]+)\S*.*\n((?: {6}.*\n)+)"
        entries = re.findall(entry, self.text, re.MULTILINE)
        return {name: " ".join(text.split()) for name, text in entries}


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def pages():
    """The help pages by command."""
    commands = [[*name.split(), "--help"] for name in PAGES]
    done = forks.run_all(commands, forbid_devices=True)
    return {
        name: Page(page.code, page.out, page.err)
        for name, page in zip(PAGES, done, strict=True)
    }


@pytest.mark.parametrize("name", PAGES)
def test_help_is_a_page_on_stdout(pages, name):
    page = pages[name]
    assert (page.code, page.errors) == (0, "")
    command, _, kind = name.partition(" ")
    source = (ROOT / f"launch/{command}.py").read_text()
    doc = ast.get_docstring(ast.parse(source), clean=False).strip()
    assert page.text.startswith(doc) and f"python -m ul {command} " in doc
    assert "\nFlags of this command:\n" in page.text
    assert {"trace", "help"} <= page.flags().keys()
    assert ("config.KEY" in page.flags()) == ("cli.define_config(" in source)
    assert (exit_codes.table() in page.text) == (command in WITH_EXIT_CODES)


@pytest.mark.parametrize("name", PAGES)
def test_every_flag_is_explained_and_none_is_absls_own(pages, name):
    absl = {"verbosity", "logtostderr", "flagfile", "helpfull", "only_check_args"}
    assert not absl & pages[name].flags().keys()
    for flag, sentence in pages[name].flags().items():
        assert sentence.endswith(".") and " " in sentence, flag
        assert ";" != sentence[0] and "repeat this option" not in sentence, flag


def test_types_limits_and_defaults(pages):
    train, submit = pages["train"].text, pages["submit"].text
    assert "\n  --config=NAME:VARIANT\n" in train
    assert "\n  --config.KEY=VALUE  (repeatable)\n" in train
    assert "\n  --workdir=STRING\n" in train
    assert "\n  --distributed=auto|on|off  (default: auto)\n" in train
    assert "\n  --peer_timeout=INTEGER  (at least 5, default: 100)\n" in train
    assert "\n  --[no]allow_changes  (default: false)\n" in train
    assert "\n  --[no]dry_run, --dry-run  (default: false)\n" in submit
    fraction = "--max_bad_fraction=NUMBER  (at least 0.0, at most 1.0, default: 0.001)"
    assert fraction in pages["import_images"].text
    factors = "--factors=A,B,...  (default: 1.3,1.5,1.7,2,2.5)"
    assert factors in pages["plan bitrate"].text
    assert "--text=STRING  (repeatable)" in pages["sample"].text


def test_groups_of_shared_flags(pages):
    cluster = {"distributed", "coordinator", "num_processes", "process_id", "devices"}
    for name in ("train", "encode", "sweep"):
        assert cluster <= pages[name].flags().keys()
        assert "\nCluster flags (for runs of many processes):\n" in pages[name].text
    assert "\nConditions of the samples:\n" in pages["sample"].text


def test_a_place_or_a_plan_lists_its_own_flags(pages):
    slurm, gke = pages["submit slurm"].flags(), pages["submit gke"].flags()
    assert {field.name for field in dataclasses.fields(SlurmPlace)} <= slurm.keys()
    assert "image" in gke and "image" not in slurm and "partition" not in gke
    assert (slurm["nodes"], gke["nodes"]) == (
        "Number of nodes.",
        "Number of GPU nodes.",
    )
    assert "\n  --stop_seconds=INTEGER  (default: 300)\n" in pages["submit slurm"].text
    for command in ("plan pod", "plan scaling"):
        assert {"topology", "mesh", "optimization_level"} <= pages[
            command
        ].flags().keys()
    assert {"chips", "utilization"} <= pages["plan cost"].flags().keys()
    assert "topology" not in pages["plan bitrate"].flags()
    assert "published" in pages["plan flops"].flags()
    both = {"partition", "image"}
    assert both <= pages["sweep"].flags().keys()
    assert not both & pages["submit"].flags().keys()
    for name in ("local", "slurm", "gke", "tpu_vm"):
        assert re.search(rf"^  {name} +[A-Z]", pages["submit"].text, re.MULTILINE)
    for name in ("bitrate", "flops", "pod"):
        assert re.search(rf"^  {name} +[A-Z]", pages["plan"].text, re.MULTILINE)
    assert "\n  inception\n" in pages["convert"].text


def test_every_flag_is_on_a_page(pages):
    defined = set()
    for file in (ROOT / "launch").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and "DEFINE_" in ast.unparse(node.func):
                if node.args and isinstance(node.args[0], ast.Constant):
                    defined.add(node.args[0].value)
    assert len(defined) > 60
    shown = {flag for page in pages.values() for flag in page.flags()}
    aliases = {"dry-run", "target-bpp", "decoder"}
    assert defined - aliases <= shown


def test_flags_in_the_readme_exist(pages):
    known = {flag for page in pages.values() for flag in page.flags()}
    text = (ROOT / "launch/README.md").read_text()
    foreign = r"`(?:gcloud|kubectl|scancel|scontrol)[^`]*`|--sbatch=--qos"
    used = re.findall(r"(?<![\w-])--([a-z][\w-]*)", re.sub(foreign, "", text))
    assert len(set(used)) > 20
    assert {flag.replace("-", "_") for flag in used} - known == set()


def test_the_list_has_every_command_once():
    files = {f.stem for f in (ROOT / "launch").glob("[a-z]*.py")}
    assert sorted(command_list.names()) == sorted(files)
    done = run("launch")
    assert (done.returncode, done.stderr) == (0, "")
    for name in files:
        line = re.search(rf"^  {name} +(.*)$", done.stdout, re.MULTILINE)
        assert line and line[1] == command_list.summary(name) != ""


def test_the_list_is_read_without_importing_the_commands():
    program = "import sys; from launch.lib import command_list; command_list.listing()"
    check = "; assert not {'jax', 'absl', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program + check], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("trian", "train"), ("embed-caption", "embed_captions"), ("nonsense", None)],
)
def test_an_unknown_command_names_the_nearest(typed, nearest):
    done = run("launch", typed, "--config=x")
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1 and f"got '{typed}'" in done.stderr
    nearest = nearest or command_list.nearest(typed)
    assert f"Did you mean '{nearest}'?" in done.stderr


def test_a_command_can_be_run_by_its_name(pages):
    done = run("launch", "train", "--help")
    assert (done.returncode, done.stdout) == (0, pages["train"].text)
    done = run("launch", "train", "--workdir=w")
    assert done.returncode == 64 and "--config is required" in done.stderr
