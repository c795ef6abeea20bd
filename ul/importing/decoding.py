"""Decode the frames of video files with PyAV (FFmpeg). Only importing needs PyAV."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from PIL import Image

from ul.core import extras

# Formats such as playlists are left out, because they make FFmpeg open other files.
_CONTAINERS = "mov,matroska,webm,avi,flv,mpegts,mpeg,asf"
FrameTimes = list[Fraction | None]


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide the frames and their pixels.

    Raises:
      ConfigError: PyAV is not installed.
    """
    av = extras.require("av", "Importing videos", "video", "av")
    libraries = ("libavformat", "libavcodec", "libswscale")
    versions = {
        name: ".".join(map(str, av.library_versions[name])) for name in libraries
    }
    return {"av": av.__version__} | versions


def decode_frames(
    content: bytes, select: Callable[[FrameTimes], Sequence[int]]
) -> list[Image.Image]:
    """Return the RGB frames that `select` chooses by number.

    `select` gets the time in seconds of each frame that can be decoded, in order, or None
    where the file has no time. Of a truncated or damaged file only the frames before the
    damage can be decoded.

    Raises:
      ValueError: the content is not a video, or `select` raises it.
    """
    # The times in the container tell which frames to keep in memory. If other frames turn
    # out to be decodable, the selection is repeated with their times.
    times = _container_times(content)
    while True:
        selected = select(times)
        decoded_times, frames = _decode(content, set(selected))
        if decoded_times == times:
            return [frames[i] for i in selected]
        times = decoded_times


def _container_times(content: bytes) -> FrameTimes:
    """Return the times of all frames according to the container, without decoding."""
    import av

    times: FrameTimes = []
    with _open(content) as (container, stream):
        with contextlib.suppress(av.FFmpegError):  # The file is truncated.
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard and not packet.is_corrupt:
                    times.append(_time(packet))
    return sorted(times) if None not in times else times  # type: ignore[type-var]


def _decode(
    content: bytes, numbers: set[int]
) -> tuple[FrameTimes, dict[int, Image.Image]]:
    """Return the times of all frames that can be decoded, and the frames in `numbers`."""
    import av
    from av.video.reformatter import Interpolation

    # These flags give the same pixels on every processor.
    interpolation = (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    )
    interpolation |= Interpolation.FULL_CHR_H_INT
    times: FrameTimes = []
    frames = {}
    with _open(content) as (container, stream):
        with contextlib.suppress(av.FFmpegError):  # The frames so far are intact.
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    break
                for frame in packet.decode():
                    if frame.is_corrupt:
                        continue
                    number = len(times)
                    if number in numbers:
                        image = frame.to_image(interpolation=interpolation, threads=1)
                        frames[number] = _upright(image, frame.rotation)
                    times.append(_time(frame))
    return times, frames


def _upright(image: Image.Image, degrees: int) -> Image.Image:
    """Turn a frame as its display matrix says: `degrees` counterclockwise."""
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    turn = turns.get(degrees % 360)
    return image if turn is None else image.transpose(turn)


def _time(packet_or_frame) -> Fraction | None:
    """Return the time at which a packet or frame is shown, in seconds."""
    ticks = packet_or_frame.pts
    ticks = packet_or_frame.dts if ticks is None else ticks
    return None if ticks is None else ticks * packet_or_frame.time_base


@contextlib.contextmanager
def _open(content: bytes) -> Iterator[tuple]:
    """Open a video and yield its container and stream.

    One thread decodes: with several, the frames of damaged files can differ.

    Raises:
      ValueError: the content is not a video.
    """
    import av

    try:
        container = av.open(
            io.BytesIO(content), options={"format_whitelist": _CONTAINERS}
        )
    except av.FFmpegError as e:
        raise ValueError(f"it cannot be opened: {e.strerror}") from e
    with container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("its codec is not known")
        stream.codec_context.thread_count = 1
        yield container, stream
