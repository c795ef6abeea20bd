"""Video files as the world has them, with the frames that a reader must see in each."""

import dataclasses
import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from tests.lib.generated_images import NAMES

SIDE, FRAMES = 8, 4
# Codecs that keep every bit of RGB, with their pixel formats.
LOSSLESS = {
    "matroska": ("ffv1", "bgr0"),
    "mov": ("png", "rgb24"),
    "avi": ("ffv1", "bgr0"),
}


@dataclasses.dataclass(frozen=True)
class GeneratedClip:
    """A file. frames: uint8 [N, 8, 8, 3], whose middle four must be read.

    may_be_rejected: it is damaged; four of its frames in a row may be read instead, because
    only those before the damage can be decoded.
    checked: its pixels are known.
    """

    name: str
    content: bytes
    frames: np.ndarray | None
    may_be_rejected: bool = False
    checked: bool = True

    def accepts(self, clip: np.ndarray | None) -> bool:
        """Return whether a reader may make this of the file: frames, or None."""
        if clip is None:
            return self.frames is None or self.may_be_rejected
        if not self.checked or self.frames is None:
            return not self.checked
        last = len(self.frames) - FRAMES
        starts = range(last + 1) if self.may_be_rejected else [last // 2]
        return any(np.array_equal(clip, self.frames[i : i + FRAMES]) for i in starts)


def encode(frames, container, codec="", rate=25):
    """Return a file of RGB frames, which is exact unless `codec` is given."""
    name, pixel_format = (codec, "yuv420p") if codec else LOSSLESS[container]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(name, rate=Fraction(rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


def _clip(rng, count):
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def _container(rng):
    return list(LOSSLESS)[rng.integers(len(LOSSLESS))]


def intact(rng):
    frames = _clip(rng, int(rng.integers(FRAMES, 12)))
    rate = (1, 25, Fraction(30000, 1001), 240)[rng.integers(4)]
    return encode(frames, _container(rng), rate=rate), frames, {}


def too_short(rng):
    frames = _clip(rng, int(rng.integers(1, FRAMES)))
    return encode(frames, _container(rng)), None, {}


def of_one_color(rng):
    """Return a clip of any size in a lossy codec, which loses nothing of one color."""
    height, width = (int(2 * rng.integers(1, 60)) for _ in range(2))
    frame = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (9, height, width, 3))
    content = encode(np.ascontiguousarray(frame), "matroska", "mpeg4")
    return content, None, {"may_be_rejected": True, "checked": False}


def truncated(rng):
    frames = _clip(rng, 9)
    whole = encode(frames, _container(rng))
    return whole[: rng.integers(len(whole))], frames, {"may_be_rejected": True}


def garbled(rng):
    whole = bytearray(encode(_clip(rng, 9), _container(rng)))
    for position in rng.integers(len(whole), size=rng.integers(1, 20)):
        whole[position] = rng.integers(256)
    return bytes(whole), None, {"may_be_rejected": True, "checked": False}


def no_video(rng):
    picture = io.BytesIO()
    Image.fromarray(_clip(rng, 1)[0]).save(picture, "PNG")
    return (
        (
            b"",
            rng.bytes(int(rng.integers(1, 3000))),
            b"<!DOCTYPE html><h1>404</h1>",
            picture.getvalue(),
            b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n",
            b"ffconcat version 1.0\nfile /etc/passwd\n",
        )[rng.integers(6)],
        None,
        {},
    )


KINDS = (intact, too_short, of_one_color, truncated, garbled, no_video)


def generate(count: int, seed: int) -> list[GeneratedClip]:
    """Return files of all kinds, in two class folders."""
    rng = np.random.default_rng(seed)
    generated = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        content, frames, more = kind(rng)
        stem = NAMES[rng.integers(len(NAMES))].format(f"{kind.__name__}{i}")
        suffix = ("mp4", "MKV", "avi", "mov", "webm")[rng.integers(5)]
        name = f"{('a', 'b')[i % 2]}/{stem}.{suffix}"
        generated.append(GeneratedClip(name, content, frames, **more))
    return generated
