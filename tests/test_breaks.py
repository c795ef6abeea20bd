"""The deliberate breaks fit the code; `make breaks` runs them."""

import dataclasses

import pytest

from tests.lib import breaks

CASES = breaks.collect()


def test_every_break_fits_the_code():
    problems = {case.mistake.name: breaks.find_problem(case) for case in CASES}
    assert {name: p for name, p in problems.items() if p} == {}


def test_names_are_unique():
    names = [case.mistake.name for case in CASES]
    assert len(names) >= 80 and {n for n in names if names.count(n) > 1} == set()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (dict(file="ul/absent.py"), "does not exist"),
        (dict(old="no such text"), "it occurs 0 times"),
        (dict(old="e"), "must occur once"),
        (dict(new=")"), "not Python any more"),
        (dict(new=CASES[0].mistake.old), "changes nothing"),
        (dict(test="test_absent"), "has no function test_absent"),
    ],
)
def test_a_break_that_does_not_fit_is_reported(changes, problem):
    mistake = dataclasses.replace(CASES[0].mistake, **changes)
    assert problem in breaks.find_problem(breaks.Case(mistake, CASES[0].module))
