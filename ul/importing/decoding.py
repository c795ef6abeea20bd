"""Frames of a video file, by PyAV (FFmpeg): at import alone, training needs none."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from PIL import Image

from ul.core.errors import ConfigError

# No playlists: they would have other files opened.
_CONTAINERS = "mov,matroska,webm,avi,flv,mpegts,mpeg,asf"
Times = list[Fraction | None]


def made_with() -> dict[str, str]:
    """The libraries that decide which frames there are, and their pixels.

    Raises:
      ConfigError: they are not here.
    """
    try:
        import av
    except ImportError as e:
        raise ConfigError(
            "reading video needs PyAV: pip install 'unified-latents[video]'"
        ) from e
    parts = ("libavformat", "libavcodec", "libswscale")
    versions = {name: ".".join(map(str, av.library_versions[name])) for name in parts}
    return {"av": av.__version__} | versions


def frames(content: bytes, pick: Callable[[Times], Sequence[int]]) -> list[Image.Image]:
    """The frames that `pick` chooses by number, RGB, of those that decode in order.

    `pick` is told the time of each in seconds, None where the file says none. Of a file that
    is cut off, or damaged, frames before that place decode.

    Raises:
      ValueError: it is no video, or what `pick` raises.
    """
    # What the container says spares keeping every frame; decoding has the last word.
    times = _stated(content)
    while True:
        chosen = pick(times)
        decoded, kept = _decoded(content, set(chosen))
        if decoded == times:
            return [kept[i] for i in chosen]
        times = decoded


def _stated(content: bytes) -> Times:
    """The times of all frames as the container has them, without decoding any."""
    import av

    times: Times = []
    with _opened(content) as (container, stream):
        with contextlib.suppress(av.FFmpegError):  # cut off
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard and not packet.is_corrupt:
                    times.append(_time(packet))
    return sorted(times) if None not in times else times  # type: ignore[type-var]


def _decoded(content: bytes, numbers: set[int]) -> tuple[Times, dict[int, Image.Image]]:
    """The times of all frames that decode, and those of these numbers."""
    import av
    from av.video.reformatter import Interpolation

    # The same levels on every processor.
    exactly = (
        Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    )
    exactly |= Interpolation.FULL_CHR_H_INT
    times: Times = []
    kept = {}
    with _opened(content) as (container, stream):
        with contextlib.suppress(av.FFmpegError):  # what comes before is whole
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    break
                for frame in packet.decode():
                    if frame.is_corrupt:
                        continue
                    if len(times) in numbers:
                        image = frame.to_image(interpolation=exactly, threads=1)
                        kept[len(times)] = image
                    times.append(_time(frame))
    return times, kept


def _time(of) -> Fraction | None:
    """When a packet or frame is shown, in seconds."""
    count = of.pts if of.pts is not None else of.dts
    return None if count is None else count * of.time_base


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[tuple]:
    """Container and video stream. One thread: with more, damaged files may differ.

    Raises:
      ValueError: it is no video.
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
            raise ValueError("it has no video")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        yield container, stream
