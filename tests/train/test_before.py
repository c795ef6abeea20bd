"""Keys that older configs lack: a run from before them goes on."""

import dataclasses

from ul.checkpoints import workdir
from ul.config import schema, stages


def defaults(section, prefix=""):
    return {
        f"{prefix}{field.name}": field.default
        for field in dataclasses.fields(section)
        if field.default is not dataclasses.MISSING
    }


def test_every_key_with_a_default_is_what_runs_without_it_did():
    found = defaults(schema.Data, "data.") | defaults(stages.Base)
    kept = {k: v for k, v in found.items() if k not in workdir.FREE_KEYS}
    assert workdir.flatten(kept) == workdir.BEFORE_KEYS


def test_a_run_from_before_a_key_goes_on_and_one_that_sets_it_does_not():
    old = {"data": {"flip": True}}
    new = {"data": {"flip": True, "text": (0, 0), "augment": "stream"}}
    assert workdir.changed(old, new) == []
    new["data"]["text"] = (12, 32)
    assert workdir.changed(old, new) == ["data.text: [0, 0] -> [12, 32]"]
