"""The settings of `data.source` follow from its kind."""

import inspect

import pytest

from ul.data.sources import registry

# Only paths and the name of a dataset have no default.
REQUIRED = {
    "arrays": {"path", "eval_path"},
    "folder": {"path"},
    "imported": {"path"},
    "imported_captions": {"path", "captions"},
    "imported_video": {"path"},
    "tfds": {"name"},
}


@pytest.mark.parametrize("kind", registry.SOURCES)
def test_settings_are_keywords_and_only_paths_and_names_are_required(kind):
    parameters = inspect.signature(registry.SOURCES[kind]).parameters
    split, shape, *settings = parameters.values()
    assert (split.name, shape.name) == ("split", "shape")
    assert all(s.kind is inspect.Parameter.KEYWORD_ONLY for s in settings)
    required = {s.name for s in settings if s.default is inspect.Parameter.empty}
    assert required == REQUIRED.get(kind, set())


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("digits", (8, 8, 1)),
        ("colored_digits", (8, 8, 3)),
        ("gaussian", (4, 4, 1)),
        ("moving_digits", (6, 16, 16, 1)),
        ("photos", (16, 16, 3)),
    ],
)
def test_kinds_without_paths_need_no_settings(kind, shape):
    source = registry.SOURCES[kind]("eval", shape)
    assert len(source) >= 360
    assert 0 <= source[0]["label"] <= source.num_classes
    assert source[0]["image"].ndim == len(shape)
