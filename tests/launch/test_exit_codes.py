"""The table of exit codes agrees with the error classes and with launch/README.md."""

import itertools
from pathlib import Path

from launch.lib.exit_codes import EXIT_CODES, run_again
from ul.core import errors

README = Path(__file__).parents[2] / "launch/README.md"
ROWS = {row.code: row for row in EXIT_CODES}


def subclasses(error):
    yield error
    for child in error.__subclasses__():
        yield from subclasses(child)


def test_every_error_class_has_a_row():
    codes = {str(error.code) for error in subclasses(errors.UserError)}
    words = {"0", "128 to 255", "any other"}
    assert codes == ROWS.keys() - words and len(EXIT_CODES) == len(ROWS)


def test_run_again_follows_the_table():
    for code in range(256):
        kind = "128 to 255" if code >= 128 else "any other"
        row = ROWS.get(str(code), ROWS[kind])
        assert run_again(code) == row.run_again, code


def test_the_readme_has_the_same_table():
    lines = README.read_text().splitlines()
    start = lines.index("| code | run again? | meaning |") + 2
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    rows = [line.replace("`", "").strip("|").split("|") for line in table]
    expected = [
        [row.code, "yes" if row.run_again else "no", row.meaning] for row in EXIT_CODES
    ]
    assert [[cell.strip() for cell in row] for row in rows] == expected
