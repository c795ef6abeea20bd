"""The last message of a sweep whose trials failed."""

import pytest

from launch.lib.failures import raise_failures
from ul.core.errors import UserError


def test_the_logs_that_exist_are_named(tmp_path):
    raise_failures(str(tmp_path), {})
    with pytest.raises(
        UserError, match=r"\(exit codes a: 64\); see the output above"
    ) as e:
        raise_failures(str(tmp_path), {"a": 64})
    assert e.value.code == 64
    (tmp_path / "b.log").touch()
    with pytest.raises(UserError, match=f"a: 70, b: 74.; see {tmp_path}/b.log") as e:
        raise_failures(str(tmp_path), {"a": 70, "b": 74})
    assert e.value.code == 70
