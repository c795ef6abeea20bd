"""Generated video files: each is read exactly, or rejected by its name."""

import json
import resource

import pytest

from tests.lib.generated_clips import FRAMES, SIDE, generate
from tests.lib.originals import write_folder
from ul import importing
from ul.core.files import display_name
from ul.data.sources import imported_clips


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_an_import_keeps_each_clip_or_rejects_it(tmp_path, count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clips = generate(count, seed=count)
    held_out = [
        c for c in generate(12, seed=1) if c.name.split("/")[1].find("intact") >= 0
    ]
    paths = {
        "train": write_folder(tmp_path / "train", {c.name: c.content for c in clips}),
        "eval": write_folder(tmp_path / "eval", {c.name: c.content for c in held_out}),
    }
    out = tmp_path / "out"
    manifest = importing.import_videos(
        paths, str(out), size=SIDE, num_frames=FRAMES, fps=0, labels={},
        shard_examples=50, jobs=2, max_bad_fraction=1.0,
    )  # fmt: skip
    rejected = {f["file"] for f in manifest["rejected"] if f["split"] == "train"}
    summaries = sorted(out.glob("train-*.json"))
    kept = [n for s in summaries for n in json.loads(s.read_text())["names"]]
    assert len(kept) + len(rejected) == count
    by_name = {display_name(clip.name): clip for clip in clips}
    source = imported_clips.make_source("train", (FRAMES, SIDE, SIDE, 3), path=str(out))
    for i, name in enumerate(kept):
        assert by_name[name].accepts(source[i]["image"]), name
    for name in rejected:
        assert by_name[name].accepts(None), name
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert peak < 2**20  # KiB
