"""What a resumed run may change."""

from ul.train import workdir


def test_a_run_from_before_a_key_did_what_the_key_says():
    before = {"data": {"flip": True}}

    def now(augment):
        return {"data": {"flip": True, "augment": augment}}

    assert workdir.changed(before, now("stream")) == []
    assert workdir.changed(before, now("example")) == [
        "data.augment: 'stream' -> 'example'"
    ]


def test_settings_that_no_result_depends_on_are_free():
    before = {"log": {"every": 1}, "latents": None, "seed": 0}
    assert (
        workdir.changed(before, {"log": {"every": 2}, "latents": "x", "seed": 0}) == []
    )
    assert workdir.changed(before, before | {"seed": 1}) == ["seed: 0 -> 1"]
