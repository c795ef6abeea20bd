"""Versions of the code, packages of extras, and the internal modules of JAX."""

import pytest

import ul
from ul.core import extras, jax_internals, provenance
from ul.core.errors import ConfigError


def test_outside_a_clone_the_code_version_is_that_of_the_package(monkeypatch, tmp_path):
    """Also if the environment lies inside another project's repository."""
    (tmp_path / ".git").mkdir()
    package = tmp_path / "env/lib/site-packages/ul/core"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.code_version() == ul.__version__


def test_in_a_clone_the_code_version_is_the_commit():
    assert provenance.code_version() != ul.__version__


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(ConfigError) as e:
        extras.require("no_such.module", "Importing videos", "video", "av")
    message = str(e.value)
    assert message.startswith(
        "Importing videos needs no_such, which cannot be imported"
    )
    assert "pip install '.[video]' in a clone" in message
    assert message.endswith("pip install av") and "\n" not in message


@pytest.mark.parametrize("names", [("no_such",), ("distributed", "no_such_name")])
def test_another_layout_of_jax_is_one_line_with_the_supported_versions(names):
    with pytest.raises(
        ConfigError, match="needs jax 0.10.2 to 0.12; .* has no jax._src"
    ):
        jax_internals.internal_module(*names)
