"""Deliberate breaks: each is made in a copy of the code, and its test must then fail.

    python -m tests.lib.breaks                # all breaks
    python -m tests.lib.breaks noise ema      # those whose name contains one of the words
    python -m tests.lib.breaks --check        # run no test; only check that breaks fit the code

A test module lists the breaks that its tests catch in a tuple `BREAKS`. A test that passes
despite its break cannot fail when it should.
"""

import argparse
import ast
import concurrent.futures
import dataclasses
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parent.parent.parent
# The parts of the tree that tests need.
COPIED = (
    *("ul", "experiments", "launch", "tests"),
    *(".pytest.ini", "setup.py", "README.md", "Makefile"),
)
JOBS = 2
TIMEOUT_SECONDS = 900.0


@dataclasses.dataclass(frozen=True)
class Break:
    """A mistake, and the test that catches it.

    name: what would be wrong.
    file: the file that is broken, relative to the root of the repository.
    old, new: `old`, which must occur exactly once in the file, becomes `new`.
    test: the function in the same test module that must then fail.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


@dataclasses.dataclass(frozen=True)
class Case:
    """A break and the test module, relative to the root, that lists it."""

    mistake: Break
    module: str

    @property
    def test_id(self) -> str:
        """The name that pytest has for the test."""
        return f"{self.module}::{self.mistake.test}"


def collect() -> list[Case]:
    """Return the breaks of all test modules, which are parsed and not imported."""
    cases = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and _is_name(node.targets[0], "BREAKS"):
                module = path.relative_to(ROOT).as_posix()
                cases += [Case(b, module) for b in _parse_breaks(node.value)]
    return cases


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _parse_breaks(node: ast.expr) -> list[Break]:
    assert isinstance(node, ast.Tuple), "BREAKS must be a tuple of calls of Break"
    return [
        Break(*map(ast.literal_eval, call.args))
        for call in node.elts
        if isinstance(call, ast.Call)
    ]


def find_problem(case: Case) -> str | None:
    """Return why a break does not fit the code, or None if it does."""
    mistake, file = case.mistake, ROOT / case.mistake.file
    if not file.is_file():
        return f"{mistake.file} does not exist"
    text = file.read_text()
    count = text.count(mistake.old)
    if count != 1:
        return f"{mistake.old!r} must occur once in {mistake.file}; it occurs {count} times"
    try:
        broken = ast.parse(text.replace(mistake.old, mistake.new))
    except SyntaxError as e:
        return f"with the break, {mistake.file} is not Python any more: {e}"
    if ast.dump(broken) == ast.dump(ast.parse(text)):
        return "the break changes nothing"
    nodes = ast.parse((ROOT / case.module).read_text()).body
    tests = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    if mistake.test not in tests:
        return f"{case.module} has no function {mistake.test}"
    return None


def copy_tree(target: Path) -> Path:
    """Copy what tests need to `target` and return it."""
    target.mkdir()
    for part in COPIED:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, target / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, target)
    return target


def run_tests(
    tree: Path, *args: str, limit: float | None = TIMEOUT_SECONDS
) -> tuple[int | None, str]:
    """Return the exit code (None after `limit` seconds) and the output of pytest."""
    try:
        process = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
            cwd=tree,
            # Without bytecode no module can be loaded in the state before a break.
            env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return None, f"no result after {limit} seconds"
    return process.returncode, process.stdout


def failing_tests(tree: Path, tests: list[str]) -> set[str]:
    """Return those of the tests that fail without any break."""
    options = ("-rfE", "-n", str(JOBS), "--dist", "loadfile")
    options += ("--continue-on-collection-errors",)
    _, output = run_tests(tree, *options, *tests, limit=None)
    lines = [line.split() for line in output.splitlines()]
    failed = {words[1] for words in lines if words[:1] in (["FAILED"], ["ERROR"])}
    return {test for test in tests if any(_is_test(f, test) for f in failed)}


def _is_test(failed: str, test: str) -> bool:
    """Tell whether a failure is of `test`, of one of its parameters or of its module."""
    module = test.partition("::")[0]
    return failed in (test, module) or failed.startswith(f"{test}[")


def verdict(case: Case, tree: Path) -> tuple[bool, str]:
    """Make the break in a copy of the tree and run its test; return whether it fails."""
    file = tree / case.mistake.file
    text = file.read_text()
    file.write_text(text.replace(case.mistake.old, case.mistake.new))
    try:
        code, output = run_tests(tree, "-x", case.test_id)
    finally:
        file.write_text(text)
    if code == 1:
        return True, "caught"
    if code == 0:
        return False, "SURVIVED"
    # Exit code 2, for example: the module of the test cannot be imported any more.
    return False, f"NOT RUN (exit code {code})\n{output[-2000:]}\n"


def run(cases: list[Case]) -> int:
    """Print the verdict on each break; return the number of those that are not caught."""
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        trees: queue.Queue[Path] = queue.Queue()
        for i in range(JOBS):
            trees.put(copy_tree(Path(directory) / str(i)))

        def judge(case: Case) -> tuple[bool, str]:
            tree = trees.get()
            try:
                return verdict(case, tree)
            finally:
                trees.put(tree)

        # A test that fails anyway would seem to catch everything.
        tests = sorted({case.test_id for case in cases})
        print(f"running {len(tests)} tests without any break", flush=True)
        failing = failing_tests(Path(directory) / "0", tests)
        for case in cases:
            if case.test_id in failing:
                print(
                    f"NOT RUN   {case.mistake.name} ({case.test_id} fails without it)"
                )
                failed += 1
        pool = concurrent.futures.ThreadPoolExecutor(JOBS)
        futures = {pool.submit(judge, c): c for c in cases if c.test_id not in failing}
        try:
            with tqdm(total=len(futures), unit="break", dynamic_ncols=True) as bar:
                for future in concurrent.futures.as_completed(futures):
                    case, (is_caught, message) = futures[future], future.result()
                    line = f"{message:9} {case.mistake.name} ({case.test_id})"
                    bar.write(line, file=sys.stdout)
                    sys.stdout.flush()
                    bar.update()
                    failed += not is_caught
        finally:
            pool.shutdown(cancel_futures=True)
    return failed


def main() -> None:
    """Run the breaks that the command line selects; exit with 1 unless all are caught."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lib.breaks",
        description="Break copies of the code on purpose; the tests must notice.",
    )
    parser.add_argument("words", nargs="*", help="parts of names; default: all breaks")
    parser.add_argument("--check", action="store_true", help="run no test")
    args = parser.parse_args()
    cases = [
        case
        for case in collect()
        if not args.words or any(word in case.mistake.name for word in args.words)
    ]
    problems = {case: find_problem(case) for case in cases}
    for case, problem in problems.items():
        if problem:
            print(f"{'UNFIT':9} {case.mistake.name} ({case.module}): {problem}")
    fitting = [case for case in cases if problems[case] is None]
    failed = len(cases) - len(fitting)
    failed += 0 if args.check else run(fitting)
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
