"""Original clips, as broken as real ones, to shards; and training's view of those."""

import functools
import io
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.lib.originals import (
    interrupt_and_rerun,
    kill_and_rerun,
    read_folder,
    tar_bytes,
    write_folder,
)
from ul import importing
from ul.core.errors import ConfigError, DataError
from ul.data import pipeline
from ul.data.sources import imported_clips, imported_images, registry
from ul.importing import archives, decoding
from ul.importing.videos import middle

SIZE, FRAMES = 16, 4


def pixels(t, height, width):
    """Frame t: a smooth picture that grows brighter by the frame."""
    y, x = np.mgrid[:height, :width] / 20.0
    planes = [np.sin(x + 0.2 * t) + np.cos(y * c) for c in (1, 2, 3)]
    return np.uint8(np.clip(90 + 4 * (t % 20) + 30 * np.stack(planes, -1), 0, 255))


def encoded(times=range(12), rate=25, height=32, width=48, codec="libx264", kind="mp4"):
    """A clip with a frame at each of `times` (in frames of `rate`), and its index first."""
    rate = Fraction(rate).limit_denominator(1001)
    how = {"movflags": "faststart"} if kind == "mp4" else {}
    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
        with av.open(file.name, "w", format=kind, options=how) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = 1 / rate
            stream.options = dict(crf="8", threads="1") if codec == "libx264" else {}
            for n, t in enumerate(times):
                frame = av.VideoFrame.from_ndarray(pixels(n, height, width), "rgb24")
                frame.pts, frame.time_base = t, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()


def sound():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), np.float32), "fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


GOOD = {
    "a cat/aaa_000000_000010.mp4": dict(),
    "a cat/bbb_000001_000011.mp4": dict(rate=29.97, times=range(20)),
    "a cat/ccc_000000_000010.mkv": dict(rate=15, kind="matroska"),
    "a cat/e_e-_000003_000013.mp4": dict(times=(0, 1, 3, 4, 9, 10, 12, 13, 20)),
    "dog/fff_000000_000010.mp4": dict(height=52, width=30),
    "dog/ggg_000000_000010.mp4": dict(codec="mpeg4"),
}
BAD = {
    "a cat/empty_000000_000010.mp4": "it is empty",
    "a cat/text_000000_000010.mp4": "it cannot be opened: Invalid",
    "a cat/list_000000_000010.mp4": "it cannot be opened: Invalid",
    "dog/cut_000000_000010.mp4": "of 4 frames decode",
    "dog/head_000000_000010.mp4": "it has no video",
    "dog/long_000000_000010.mp4": "it lasts 19.0 s, its name says 10",
    "dog/short_000000_000010.mp4": "3 of 4 frames decode",
    "dog/sound_000000_000010.mp4": "it has no video",
    "dog/still_000000_000010.mp4": "it lasts 0.11 s, 2 of 4 frames at 10 a second",
}


@pytest.fixture(scope="module")
def files():
    """name: content, as Kinetics has them."""
    found = {name: encoded(**how) for name, how in GOOD.items()}
    whole = found["a cat/aaa_000000_000010.mp4"]
    bad = (
        b"",
        b"<html>404</html>",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
        whole[: whole.index(b"mdat") + 999],
        whole[:300],
        encoded(times=range(20), rate=1),
        encoded(times=range(3)),
        sound(),
        encoded(times=range(12), rate=100),
    )
    found |= dict(zip(BAD, bad, strict=True))
    return found | {"dog/._fff_000000_000010.mp4": b"Mac OS X", "list.txt": b"no clip"}


@pytest.fixture
def originals(tmp_path, files):
    write_folder(tmp_path / "train", files)
    held_out = {f"cat/h{i}_000000_000010.mp4": encoded(times=range(9)) for i in (1, 2)}
    held_out = {"a " + name: content for name, content in held_out.items()}
    write_folder(tmp_path / "eval", held_out)
    return tmp_path


def run(where, out, **changes):
    how = dict(size=SIZE, frames=FRAMES, fps=10.0, labels={}, shard_examples=4, jobs=2)
    paths = {"train": str(where / "train"), "eval": str(where / "eval")}
    paths |= changes.pop("paths", {})
    how |= {"max_bad_fraction": 0.6} | changes
    return importing.clips_of(paths, str(out), **how)


def examples(out, split="train", frames=FRAMES):
    shape = (frames, SIZE, SIZE, 3)
    source = registry.SOURCES["imported_video"](split, shape, path=str(out))
    return [source[i] for i in range(len(source))]


def test_what_is_good_is_kept_and_what_is_broken_is_named(originals, tmp_path):
    manifest = run(originals, tmp_path / "out")
    assert manifest["classes"] == ["a cat", "dog"]
    assert manifest["splits"]["train"]["labels"] == [4, 2]
    assert manifest["splits"]["eval"]["labels"] == [2, 0]
    found = {bad["file"]: bad["why"] for bad in manifest["rejected"]}
    assert found.keys() == BAD.keys()
    assert {n: why for n, why in found.items() if BAD[n] not in why} == {}
    assert "dog/cut_000000" in (tmp_path / "out/rejected.txt").read_text()
    assert [e["label"] for e in examples(tmp_path / "out")] == [0] * 4 + [1] * 2
    with pytest.raises(DataError, match="9 of 17 files are broken"):
        run(originals, tmp_path / "strict", max_bad_fraction=0.5)


# Of each good clip at ten frames a second: the grid's middle four points, and the numbers
# of the frames nearest to them, worked out by hand.
AT_TEN = {
    "a cat/aaa_000000_000010.mp4": [0, 2, 5, 7],  # 0, 2.5, 5, 7.5 of 25: the earlier
    "a cat/bbb_000001_000011.mp4": [3, 6, 9, 12],  # 3.0, 6.0, 9.0, 12.0 of 29.97
    "a cat/ccc_000000_000010.mkv": [
        3,
        4,
        6,
        7,
    ],  # 3, 4.5, 6, 7.5 of 15, in milliseconds
    "a cat/e_e-_000003_000013.mp4": [
        3,
        4,
        5,
        6,
    ],  # 5, 7.5, 10, 12.5 of 25: to 4, 9, 10, 12
    "dog/fff_000000_000010.mp4": [0, 2, 5, 7],
    "dog/ggg_000000_000010.mp4": [0, 2, 5, 7],
}


def decoded(content):
    """All frames, by another road: planes of luminance and colour, to RGB in floats."""
    with av.open(io.BytesIO(content)) as container:
        for frame in container.decode(video=0):
            planes = []
            for plane in frame.planes:
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                planes.append(rows[: plane.height, : plane.width].astype(float))
            y, u, v = planes
            y = (y - 16.0) * 255 / 219
            u, v = ((c.repeat(2, 0).repeat(2, 1) - 128.0) * 255 / 224 for c in (u, v))
            red, blue = y + 1.402 * v, y + 1.772 * u
            green = (y - 0.299 * red - 0.114 * blue) / 0.587
            rgb = np.stack([red, green, blue], -1)
            yield Image.fromarray(np.uint8(np.clip(np.round(rgb), 0, 255)))


def test_frames_are_the_nearest_in_time_cut_as_images_are(originals, tmp_path, files):
    run(originals, tmp_path / "out")
    for (name, numbers), found in zip(
        AT_TEN.items(), examples(tmp_path / "out"), strict=True
    ):
        every = list(decoded(files[name]))
        want = [
            np.asarray(imported_images.centre_square(every[i], SIZE), int)
            for i in numbers
        ]
        # Colours have half the resolution, and FFmpeg is smoother between them; a frame
        # beside the right one is 4 levels away.
        off = np.abs(found["image"] - np.stack(want)).mean((1, 2, 3))
        assert off.max() < 1.5, (name, off)


@pytest.mark.parametrize("fps", [0.0, 25.0])
def test_pixels_are_the_crop_of_the_decoded_frames(originals, tmp_path, fps, files):
    """To the last level; at 0 the clip's own frames, whatever their times."""
    run(originals, tmp_path / "out", fps=fps, frames=6)
    every = decoding.frames(files[next(iter(GOOD))], lambda times: range(len(times)))
    found = examples(tmp_path / "out", frames=6)[0]["image"]
    want = [np.asarray(imported_images.centre_square(f, SIZE)) for f in every[3:9]]
    np.testing.assert_array_equal(found, want)


def test_what_decodes_before_a_cut_is_kept():
    """Its middle is that of what is there; frames are the whole file's own."""
    whole = encoded(times=range(40))
    start = whole.index(b"mdat")
    cut = whole[: start + (len(whole) - start) * 2 // 3]
    counted = []

    def pick(times):
        counted.append(len(times))
        return range(len(times))

    every = decoding.frames(whole, pick)
    some = decoding.frames(cut, pick)
    assert len(every) == 40 and 4 <= len(some) < 40
    for a, b in zip(every[: len(some)], some, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert counted[-1] == len(some)


def test_what_is_no_clip_is_not_opened():
    """Frames without a container are video to FFmpeg; so are lists of other files."""
    raw = b"YUV4MPEG2 W16 H16 F25:1 Ip C420\n" + (b"FRAME\n" + bytes(16 * 24)) * 4
    with pytest.raises(ValueError, match="it cannot be opened"):
        decoding.frames(raw, lambda times: range(len(times)))


@pytest.mark.parametrize(
    ("fps", "frames", "want"),
    [(0, 3, [2, 3, 4]), (1, 3, [1, 3, 4]), (2, 4, [1, 2, 3, 3]), (1, 6, None)],
)
def test_the_middle_of_a_clip_of_odd_times(fps, frames, want):
    times = [Fraction(n, 10) for n in (5, 10, 21, 26, 36, 44, 47)]
    if want is None:
        with pytest.raises(ValueError, match="it lasts 4.20 s, 5 of 6 frames at 1 a"):
            middle(times, frames=frames, fps=Fraction(fps), said=None)
    else:
        found = middle(times, frames=frames, fps=Fraction(fps), said=None)
        assert list(found) == want


def test_times_that_say_nothing_are_refused_where_they_count():
    times = [None] * 6
    assert list(middle(times, frames=2, fps=Fraction(0), said=9)) == [2, 3]
    with pytest.raises(ValueError, match="no times"):
        middle(times, frames=2, fps=Fraction(5), said=9)
    with pytest.raises(ValueError, match="run back"):
        middle([Fraction(t) for t in (0, 2, 1)], frames=2, fps=Fraction(1), said=9)


def in_tars(where, files):
    """Two tars as of Kinetics: `./` before the names, and macOS's leavings."""
    names = sorted(files)
    for n, part in enumerate((names[::2], names[1::2])):
        (where / f"part_{n}.tar").write_bytes(
            tar_bytes({f"./{k}": files[k] for k in part})
        )
    (where / "._part_0.tar").write_bytes(b"Mac OS X")
    return str(where)


def csv_of(path, names):
    """Kinetics' columns; one clip more than there is."""
    rows = ["label,youtube_id,time_start,time_end,split"]
    for name in (*names, "dog/gone_000005_000015.mp4"):
        label, base = name.rsplit(".", 1)[0].split("/")
        video, start, end = base.rsplit("_", 2)
        rows.append(f"{label},{video},{int(start)},{int(end)},train")
    path.write_text("\n".join(rows))
    return str(path)


def test_folders_tars_and_lists_give_the_same_clips(originals, tmp_path, files, caplog):
    """By one worker and by several; a tar's clips lie in other shards."""
    whole = run(originals, tmp_path / "one", jobs=1)
    assert whole == run(originals, tmp_path / "two", jobs=3)
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    (tmp_path / "tars").mkdir()
    flat = {name.split("/")[-1]: content for name, content in files.items()}
    clips = [name for name in (*GOOD, *BAD) if name != "dog/fff_000000_000010.mp4"]
    labels = {"train": csv_of(tmp_path / "train.csv", clips)}
    manifest = run(
        originals,
        tmp_path / "three",
        paths={"train": in_tars(tmp_path / "tars", flat)},
        labels=labels,
    )
    assert manifest["splits"]["train"]["labels"] == [4, 1]
    assert manifest["splits"]["train"]["absent"] == 1
    assert manifest["splits"]["train"]["unlisted"] == 1
    assert "1 of its clips are not there, and 1 that" in caplog.text
    kept = {e["image"].tobytes() for e in examples(tmp_path / "three")}
    every = [e["image"].tobytes() for e in examples(tmp_path / "one")]
    assert kept == set(every) - {every[4]}
    (tmp_path / "classes").mkdir()
    again = run(
        originals,
        tmp_path / "four",
        paths={"train": in_tars(tmp_path / "classes", files)},
    )
    assert again["classes"] == ["a cat", "dog"]
    assert again["splits"]["train"]["labels"] == [4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,time_start\na,b,1\n", "has no column time_end"),
        ("label,youtube_id,time_start,time_end\ncat,b,x,2\n", "cannot be read: could"),
        ("label,youtube_id,time_start,time_end\ncat,b,1\n", "cannot be read"),
        ("label,youtube_id,time_start,time_end\ncat,b,1,2\n", "says nothing of a cat/"),
        (
            "label,youtube_id,time_start,time_end\ncat,h1,0,10\ncow,h1,0,10\n",
            "h1_000000_000010 is cat and cow",
        ),
        (
            "label,youtube_id,time_start,time_end\ncow,h1,0,10\n",
            "is of class 'cow', which --train has not",
        ),
    ],
)
def test_lists_that_cannot_be_are_refused(originals, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    labels = {"eval": str(tmp_path / "l.csv")}
    with pytest.raises(DataError, match=message) as e:
        run(originals, tmp_path / "out", labels=labels)
    assert "\n" not in str(e.value)


def test_a_video_in_both_splits_is_said(originals, tmp_path, caplog):
    (originals / "eval/a cat/aaa_000020_000030.mp4").write_bytes(encoded())
    manifest = run(originals, tmp_path / "out")
    assert manifest["splits"]["eval"]["also_in_train"] == 1
    assert (
        "1 held-out clips are of videos that are trained on, as a cat/aaa"
        in caplog.text
    )


@pytest.mark.parametrize("after", [1, 4, 6])
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(
    originals, tmp_path, after, monkeypatch
):
    whole, out = interrupt_and_rerun(
        monkeypatch,
        imported_clips,
        functools.partial(run, originals),
        examples,
        tmp_path,
        after,
        "import_video",
    )
    assert read_folder(out) == read_folder(whole)


def test_another_import_is_not_gone_on_with(originals, tmp_path, monkeypatch):
    run(originals, tmp_path / "out")
    for change, said in (
        (dict(frames=3), "frames: 4 there, 3 here"),
        (dict(fps=25.0), "fps: 10.0 there, 25.0 here"),
    ):
        with pytest.raises(ConfigError, match=said):
            run(originals, tmp_path / "out", **change)
    monkeypatch.setitem(av.library_versions, "libavcodec", (1, 2, 3))
    with pytest.raises(ConfigError, match=r"made with libavcodec \d.* there, 1.2.3 he"):
        run(originals, tmp_path / "out")


def test_fewer_frames_are_cut_in_time_and_more_are_refused(originals, tmp_path):
    out = tmp_path / "out"
    run(originals, out)
    whole = examples(out)[0]["image"]
    shape = (2, SIZE, SIZE, 3)
    source = registry.SOURCES["imported_video"]("train", shape, path=str(out))
    assert source.num_classes == 2
    dataset = pipeline.examples(source, shape=shape, flip=False, seed=0, shuffle=True)
    found = [dataset[i] for i in range(60)]
    parts = {whole[first : first + 2].tobytes() for first in range(3)}
    assert parts <= {e["image"].tobytes() for e in found}
    for wrong in ((5, SIZE, SIZE, 3), (2, 8, 8, 3), (SIZE, SIZE, 3)):
        with pytest.raises(
            DataError, match=r"4 frames of 16x16, RGB.* \[4, 16, 16, 3\]"
        ):
            registry.SOURCES["imported_video"]("train", wrong, path=str(out))


def test_a_record_of_more_frames_than_one_picture_holds(monkeypatch):
    clip = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    one = imported_clips.pack(5, clip)
    monkeypatch.setattr(imported_clips, "TALLEST", 25)
    three = imported_clips.pack(5, clip)
    assert len(three) > len(one)
    for record in (one, three):
        label, found = imported_clips.unpack(record, 8)
        assert label == 5
        np.testing.assert_array_equal(found, clip)


def test_macs_leavings_beside_tars_are_none(tmp_path):
    inner = {"x.tar": tar_bytes({"a.mp4": b"1"}), "._x.tar": b"Mac OS X"}
    (tmp_path / "all.tar").write_bytes(tar_bytes(inner))
    (tmp_path / "._all.tar").write_bytes(b"Mac OS X")
    for path in (tmp_path, tmp_path / "all.tar"):
        assert [e.name for e in archives.entries(str(path))] == ["x/a.mp4"]


@pytest.mark.processes
def test_killed_and_run_again_the_bytes_are_the_same(command, tmp_path):
    clips = [encoded(times=range(30 + i), height=240, width=320) for i in range(4)]
    train = {f"c{i % 2}/{i:04d}.mp4": clips[i % 4] for i in range(240)}
    folder = write_folder(tmp_path / "train", train)
    held_out = write_folder(tmp_path / "eval", {"c0/x.mp4": clips[0]})
    head = ("import_video", f"--train={folder}", f"--eval={held_out}", "--size=64")
    how = (*head, "--frames=16", "--shard_examples=20", "--jobs=2")
    whole, killed = kill_and_rerun(command, tmp_path, 12, *how)
    assert read_folder(killed) == read_folder(whole)
    assert json.loads((whole / "manifest.json").read_text())["rejected"] == []
