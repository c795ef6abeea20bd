"""Importing video archives, with the damage that real ones have, and reading the result."""

import collections
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

from tests.lib.breaks import Break
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
from ul.importing.videos import select_middle_frames

SIZE, FRAMES = 16, 4


def pixels(t, height, width):
    """Frame t of a smooth picture that grows brighter with every frame."""
    y, x = np.mgrid[:height, :width] / 20.0
    planes = [np.sin(x + 0.2 * t) + np.cos(y * c) for c in (1, 2, 3)]
    return np.uint8(np.clip(90 + 4 * (t % 20) + 30 * np.stack(planes, -1), 0, 255))


def encoded(
    times=range(12), rate=25, height=32, width=48, codec="libx264", format="mp4"
):
    """A clip with a frame at each of `times`, in units of 1 / rate seconds.

    An MP4 file starts with its index, so that truncated files can be decoded.
    """
    rate = Fraction(rate).limit_denominator(1001)
    options = {"movflags": "faststart"} if format == "mp4" else {}
    with tempfile.NamedTemporaryFile(suffix=f".{format}") as file:
        with av.open(file.name, "w", format=format, options=options) as container:
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
    "a cat/ccc_000000_000010.mkv": dict(rate=15, format="matroska"),
    "a cat/e_e-_000003_000013.mp4": dict(times=(0, 1, 3, 4, 9, 10, 12, 13, 20)),
    "dog/fff_000000_000010.mp4": dict(height=52, width=30),
    "dog/ggg_000000_000010.mp4": dict(codec="mpeg4"),
}
BAD = {
    "a cat/empty_000000_000010.mp4": "it is empty",
    "a cat/text_000000_000010.mp4": "it cannot be opened: Invalid",
    "a cat/list_000000_000010.mp4": "it cannot be opened: Invalid",
    "dog/cut_000000_000010.mp4": "of 4 frames can be decoded",
    "dog/head_000000_000010.mp4": "it has no video stream",
    "dog/long_000000_000010.mp4": "it lasts 19.0 s, but its file name says 10 s",
    "dog/short_000000_000010.mp4": "only 3 of 4 frames can be decoded",
    "dog/sound_000000_000010.mp4": "it has no video stream",
    "dog/still_000000_000010.mp4": "it is too short: 0.11 s give 2 of 4 frames at 10 fps",
}


@pytest.fixture(scope="module")
def files():
    """Contents by name, as in Kinetics."""
    read_folder = {name: encoded(**settings) for name, settings in GOOD.items()}
    whole = read_folder["a cat/aaa_000000_000010.mp4"]
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
    read_folder |= dict(zip(BAD, bad, strict=True))
    return read_folder | {
        "dog/._fff_000000_000010.mp4": b"Mac OS X",
        "list.txt": b"no clip",
    }


@pytest.fixture
def originals(tmp_path, files):
    write_folder(tmp_path / "train", files)
    names = [f"a cat/h{i}_000000_000010.mp4" for i in (1, 2)]
    held_out = {name: encoded(times=range(9)) for name in names}
    write_folder(tmp_path / "eval", held_out)
    return tmp_path


def run(originals, out, **changes):
    settings = dict(
        size=SIZE,
        num_frames=FRAMES,
        fps=10.0,
        labels={},
        shard_examples=4,
        jobs=2,
        max_bad_fraction=0.6,
    )
    paths = {split: str(originals / split) for split in ("train", "eval")}
    paths |= changes.pop("paths", {})
    return importing.import_videos(paths, str(out), **settings | changes)


def read_examples(out, split="train", frames=FRAMES):
    shape = (frames, SIZE, SIZE, 3)
    source = registry.SOURCES["imported_video"](split, shape, path=str(out))
    return [source[i] for i in range(len(source))]


def test_intact_clips_are_imported_and_broken_ones_listed(originals, tmp_path):
    manifest = run(originals, tmp_path / "out")
    assert manifest["classes"] == ["a cat", "dog"]
    assert manifest["splits"]["train"]["labels"] == [4, 2]
    assert manifest["splits"]["eval"]["labels"] == [2, 0]
    rejected = {file["file"]: file["why"] for file in manifest["rejected"]}
    assert rejected.keys() == BAD.keys()
    assert {n: reason for n, reason in rejected.items() if BAD[n] not in reason} == {}
    assert "dog/cut_000000" in (tmp_path / "out/rejected.txt").read_text()
    assert [e["label"] for e in read_examples(tmp_path / "out")] == [0] * 4 + [1] * 2
    with pytest.raises(DataError, match="files may be broken; 9 of 17 are"):
        run(originals, tmp_path / "strict", max_bad_fraction=0.5)


# The numbers of the frames nearest to the middle four points of a grid of ten frames a
# second, in each intact clip, computed by hand. The comments have the points, in frames.
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
    """All frames, converted independently: from planes of luma and chroma to RGB in floats."""
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


def test_frames_are_the_nearest_in_time_and_cropped_like_images(
    originals, tmp_path, files
):
    run(originals, tmp_path / "out")
    for (name, numbers), example in zip(
        AT_TEN.items(), read_examples(tmp_path / "out"), strict=True
    ):
        frames = list(decoded(files[name]))
        expected = [
            np.asarray(imported_images.center_crop_square(frames[i], SIZE), int)
            for i in numbers
        ]
        # Chroma has half the resolution, and FFmpeg interpolates it more smoothly. The
        # frames next to the right one differ by 4 levels.
        difference = np.abs(example["image"] - np.stack(expected)).mean((1, 2, 3))
        assert difference.max() < 1.5, (name, difference)


@pytest.mark.parametrize("fps", [0.0, 25.0])
def test_pixels_are_the_crop_of_the_decoded_frames(originals, tmp_path, fps, files):
    """The pixels are equal; at 0 frames a second all frames count, whatever their times."""
    run(originals, tmp_path / "out", fps=fps, num_frames=6)
    frames = decoding.decode_frames(
        files[next(iter(GOOD))], lambda times: range(len(times))
    )
    imported = read_examples(tmp_path / "out", frames=6)[0]["image"]
    expected = [imported_images.center_crop_square(f, SIZE) for f in frames[3:9]]
    np.testing.assert_array_equal(imported, [np.asarray(e) for e in expected])


def test_frames_before_a_truncation_are_kept():
    """They are the frames of the whole file, and only they are counted."""
    whole = encoded(times=range(40))
    start = whole.index(b"mdat")
    truncated = whole[: start + (len(whole) - start) * 2 // 3]
    counts = []

    def select(times):
        counts.append(len(times))
        return range(len(times))

    all_frames = decoding.decode_frames(whole, select)
    frames = decoding.decode_frames(truncated, select)
    assert len(all_frames) == 40 and 4 <= len(frames) < 40
    for a, b in zip(all_frames[: len(frames)], frames, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert counts[-1] == len(frames)


def test_files_that_are_not_video_containers_are_not_opened():
    """FFmpeg would read frames without a container, and lists of other files."""
    raw = b"YUV4MPEG2 W16 H16 F25:1 Ip C420\n" + (b"FRAME\n" + bytes(16 * 24)) * 4
    with pytest.raises(ValueError, match="it cannot be opened"):
        decoding.decode_frames(raw, lambda times: range(len(times)))


@pytest.mark.parametrize(
    ("fps", "num_frames", "expected"),
    [(0, 3, [2, 3, 4]), (1, 3, [1, 3, 4]), (2, 4, [1, 2, 3, 3]), (1, 6, None)],
)
def test_the_middle_of_a_clip_with_irregular_times(fps, num_frames, expected):
    times = [Fraction(n, 10) for n in (5, 10, 21, 26, 36, 44, 47)]
    settings = dict(num_frames=num_frames, fps=Fraction(fps), nominal_seconds=None)
    if expected is None:
        message = "it is too short: 4.20 s give 5 of 6 frames at 1 fps"
        with pytest.raises(ValueError, match=message):
            select_middle_frames(times, **settings)
    else:
        assert list(select_middle_frames(times, **settings)) == expected


def test_missing_and_decreasing_times_are_refused_only_where_they_matter():
    missing, decreasing = [None] * 6, [Fraction(t) for t in (0, 2, 1)]
    settings = dict(num_frames=2, nominal_seconds=9)
    middle = select_middle_frames(missing, fps=Fraction(0), **settings)
    assert list(middle) == [2, 3]
    with pytest.raises(ValueError, match="its frames have no timestamps"):
        select_middle_frames(missing, fps=Fraction(5), **settings)
    with pytest.raises(ValueError, match="its timestamps decrease"):
        select_middle_frames(decreasing, fps=Fraction(1), **settings)


def as_tars(directory, files):
    """Two tars like those of Kinetics, with `./` before the names, and a file of macOS."""
    names = sorted(files)
    for n, part in enumerate((names[::2], names[1::2])):
        content = tar_bytes({f"./{name}": files[name] for name in part})
        (directory / f"part_{n}.tar").write_bytes(content)
    (directory / "._part_0.tar").write_bytes(b"Mac OS X")
    return str(directory)


def write_csv(path, names):
    """A list with Kinetics' columns, which has one clip that does not exist."""
    rows = ["label,youtube_id,time_start,time_end,split"]
    for name in (*names, "dog/gone_000005_000015.mp4"):
        label, base = name.rsplit(".", 1)[0].split("/")
        video, start, end = base.rsplit("_", 2)
        rows.append(f"{label},{video},{int(start)},{int(end)},train")
    path.write_text("\n".join(rows))
    return str(path)


def test_folders_tars_and_lists_give_the_same_clips(originals, tmp_path, files, caplog):
    """By one thread and by several; the clips of tars lie in other shards."""
    whole = run(originals, tmp_path / "one", jobs=1)
    assert whole == run(originals, tmp_path / "two", jobs=3)
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    (tmp_path / "tars").mkdir()
    flat = {name.split("/")[-1]: content for name, content in files.items()}
    clips = [name for name in (*GOOD, *BAD) if name != "dog/fff_000000_000010.mp4"]
    labels = {"train": write_csv(tmp_path / "train.csv", clips)}
    manifest = run(
        originals,
        tmp_path / "three",
        paths={"train": as_tars(tmp_path / "tars", flat)},
        labels=labels,
    )
    assert manifest["splits"]["train"]["labels"] == [4, 1]
    assert manifest["splits"]["train"]["absent"] == 1
    assert manifest["splits"]["train"]["unlisted"] == 1
    assert (
        "lists 1 clips that do not exist, and lacks 1 clips that exist" in caplog.text
    )
    from_tars = {e["image"].tobytes() for e in read_examples(tmp_path / "three")}
    from_folder = [e["image"].tobytes() for e in read_examples(tmp_path / "one")]
    assert from_tars == set(from_folder) - {from_folder[4]}
    (tmp_path / "classes").mkdir()
    again = run(
        originals,
        tmp_path / "four",
        paths={"train": as_tars(tmp_path / "classes", files)},
    )
    assert again["classes"] == ["a cat", "dog"]
    assert again["splits"]["train"]["labels"] == [4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,time_start\na,b,1\n", "missing: time_end"),
        (
            "label,youtube_id,time_start,time_end\ncat,b,x,2\n",
            "cannot be read: line 2: could",
        ),
        ("label,youtube_id,time_start,time_end\ncat,b,1\n", "cannot be read"),
        (
            "label,youtube_id,time_start,time_end\ncat,b,1,2\n",
            "labels none of 2 clips, such as a cat/",
        ),
        (
            "label,youtube_id,time_start,time_end\ncat,h1,0,10\ncow,h1,0,10\n",
            "h1_000000_000010 is cat and cow",
        ),
        (
            "label,youtube_id,time_start,time_end\ncow,h1,0,10\n",
            "have classes that --train has; .* is of class 'cow'",
        ),
    ],
)
def test_lists_with_errors_are_refused(originals, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    labels = {"eval": str(tmp_path / "l.csv")}
    with pytest.raises(DataError, match=message) as e:
        run(originals, tmp_path / "out", labels=labels)
    assert "\n" not in str(e.value)


def test_a_video_in_both_splits_is_reported(originals, tmp_path, caplog):
    (originals / "eval/a cat/aaa_000020_000030.mp4").write_bytes(encoded())
    manifest = run(originals, tmp_path / "out")
    assert manifest["splits"]["eval"]["also_in_train"] == 1
    assert (
        "1 held-out clips come from videos with training clips, for example a cat/aaa"
        in caplog.text
    )


@pytest.mark.parametrize("after", [1, 4, 6])
def test_an_import_interrupted_anywhere_is_finished_with_the_same_bytes(
    originals, tmp_path, after, monkeypatch
):
    whole, out = interrupt_and_rerun(
        monkeypatch,
        imported_clips,
        functools.partial(run, originals),
        read_examples,
        tmp_path,
        after,
        "import_video",
    )
    assert read_folder(out) == read_folder(whole)


def test_another_import_is_not_continued(originals, tmp_path, monkeypatch):
    run(originals, tmp_path / "out")
    for change, message in (
        (dict(num_frames=3), "frames: stored 4, requested 3"),
        (dict(fps=25.0), "fps: stored 10.0, requested 25.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(originals, tmp_path / "out", **change)
    monkeypatch.setitem(av.library_versions, "libavcodec", (1, 2, 3))
    with pytest.raises(
        ConfigError, match=r"made with libavcodec: stored \d.*, installed 1.2.3"
    ):
        run(originals, tmp_path / "out")


def test_fewer_frames_are_cut_in_time_and_more_are_refused(originals, tmp_path):
    out = tmp_path / "out"
    run(originals, out)
    whole = read_examples(out)[0]["image"]
    shape = (2, SIZE, SIZE, 3)
    source = registry.SOURCES["imported_video"]("train", shape, path=str(out))
    assert source.num_classes == 2
    dataset = pipeline.make_dataset(
        source, shape=shape, flip=False, seed=0, shuffle=True
    )
    cropped = {dataset[i]["image"].tobytes() for i in range(60)}
    assert {whole[first : first + 2].tobytes() for first in range(3)} <= cropped
    for wrong in ((5, SIZE, SIZE, 3), (2, 8, 8, 3), (SIZE, SIZE, 3)):
        with pytest.raises(
            DataError, match=r"must be \(4, 16, 16, 3\) or fewer frames"
        ):
            registry.SOURCES["imported_video"]("train", wrong, path=str(out))


def test_a_record_with_more_frames_than_one_file_can_hold(monkeypatch):
    clip = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    one = imported_clips.pack(5, clip)
    monkeypatch.setattr(imported_clips, "MAX_HEIGHT", 25)
    three = imported_clips.pack(5, clip)
    assert len(three) > len(one)
    for record in (one, three):
        label, frames = imported_clips.unpack(record, 8)
        assert label == 5
        np.testing.assert_array_equal(frames, clip)


def test_files_that_macos_leaves_beside_tars_are_ignored(tmp_path):
    inner = {"x.tar": tar_bytes({"a.mp4": b"1"}), "._x.tar": b"Mac OS X"}
    (tmp_path / "all.tar").write_bytes(tar_bytes(inner))
    (tmp_path / "._all.tar").write_bytes(b"Mac OS X")
    for path in (tmp_path, tmp_path / "all.tar"):
        entries = archives.iterate_entries(str(path), collections.Counter())
        assert [e.name for e in entries] == ["x/a.mp4"]


@pytest.mark.processes
def test_an_import_that_was_killed_is_finished_with_the_same_bytes(command, tmp_path):
    clips = [encoded(times=range(30 + i), height=240, width=320) for i in range(4)]
    train = {f"c{i % 2}/{i:04d}.mp4": clips[i % 4] for i in range(240)}
    folder = write_folder(tmp_path / "train", train)
    held_out = write_folder(tmp_path / "eval", {"c0/x.mp4": clips[0]})
    head = ("import_video", f"--train={folder}", f"--eval={held_out}", "--size=64")
    arguments = (*head, "--frames=16", "--shard_examples=20", "--jobs=2")
    whole, killed = kill_and_rerun(command, tmp_path, 12, *arguments)
    assert read_folder(killed) == read_folder(whole)
    assert json.loads((whole / "manifest.json").read_text())["rejected"] == []


BREAKS = (
    Break(
        "files that are not video containers are opened",
        "ul/importing/decoding.py",
        'options={"format_whitelist": _CONTAINERS}',
        "options={}",
        "test_files_that_are_not_video_containers_are_not_opened",
    ),
)
