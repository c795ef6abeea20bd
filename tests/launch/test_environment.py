"""Environment variables: those of an accelerator, which the user's replace."""

import pytest

from launch.lib import environment
from tests.lib.breaks import Break
from ul.core.errors import ConfigError


@pytest.mark.parametrize(
    ("accelerator", "names"),
    [
        ("tpu-v5p-slice", ["LIBTPU_INIT_ARGS"]),  # on GKE
        ("v5p-128", ["LIBTPU_INIT_ARGS"]),  # on TPU VMs
        ("tpu-v6e-slice", ["LIBTPU_INIT_ARGS"]),
        ("v4-8", []),
        ("nvidia-h100-80gb", list(environment.GPU)),
    ],
)
def test_every_accelerator_has_its_variables(accelerator, names):
    assert list(environment.variables_for(accelerator)) == names


def test_what_the_user_chooses_wins_and_is_checked():
    merged = environment.merge({"A": "1", "B": "2"}, ["B=x=y", "C="])
    assert merged == ["A=1", "B=x=y", "C="]
    with pytest.raises(ConfigError, match="--env must be NAME=VALUE; got 'D'"):
        environment.merge({}, ["D"])


BREAKS = (
    Break(
        "variables of the user that do not win",
        "launch/lib/environment.py",
        "defaults | {name: value for name, _, value in pairs}",
        "{name: value for name, _, value in pairs} | defaults",
        "test_what_the_user_chooses_wins_and_is_checked",
    ),
)
