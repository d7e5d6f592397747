"""The frames of a video by PyAV: key frames or one every few seconds, upright, runs of equal ones as one.

FFmpeg reads an open file, and only containers that hold all of their frames themselves: so no file makes it open another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.data.faults import Broken
from unclip.errors import ConfigError, DataError

CONTAINERS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,ogg"
GRID, SAME = 16, 12  # frames are equal when no cell of a grid of so many by so many differs by more, of 255
SLACK = 0.5  # seconds that may be missing at the end of a video before it counts as cut off
ROUNDED = 1e-3  # of a stretch: 0.6 s is the third of 0.2 s
TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Run:
    """Equal frames one after the other: the first one, its seconds from the beginning, and those of the next run's."""

    image: Image.Image
    time: float
    until: float


def runs(path: str | Path, every: float = 0) -> Iterator[Run]:
    """The key frames of a video, or, with `every` seconds, the first frame of each such stretch; equal neighbours merged.

    Raises Broken when nothing of it can be read, and, after the runs until there, when it is cut off.
    """
    name = str(path)
    with _opened(path) as (container, stream):
        if not every:
            stream.codec_context.skip_frame = "NONKEY"
        reading = _Reading(container, stream)
        first: Run | None = None
        cells = None
        stretch = -1
        for frame, time in reading.frames():
            if every and int(time / every + ROUNDED) <= stretch:
                continue
            stretch = int(time / every + ROUNDED) if every else -1
            image = _upright(frame)
            seen = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.int16)
            if first is not None and cells is not None and abs(seen - cells).max() <= SAME:
                continue
            if first is not None:
                yield Run(first.image, first.time, time)
            first, cells = Run(image, time, time), seen
        if first is not None:
            yield Run(first.image, first.time, max(reading.end, first.time))
        if first is None or reading.fault:
            raise Broken(name, reading.fault or "it has no frame that can be read")


def frame_at(path: str | Path, seconds: float) -> Image.Image:
    """The frame that is shown so many seconds after the beginning, the last one past the end. DataError without any."""
    found = None
    try:
        with _opened(path) as (container, stream):
            reading = _Reading(container, stream)
            container.seek(int((seconds + reading.start) / stream.time_base), stream=stream)
            for frame, time in reading.frames():
                if found is not None and time > seconds + 1e-3:
                    break
                found = frame
            if found is not None:
                return _upright(found)
    except Broken as broken:
        raise DataError(f"{path}: {broken.args[1]}") from None
    raise DataError(f"{path} has no frame at {clock(seconds)}")


def clock(seconds: float) -> str:
    """As players show it: 0:07, 12:40, 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class _Reading:
    """One pass over a video. Seconds count from its beginning; `end` is that of the last packet, `fault` what went wrong."""

    def __init__(self, container: Any, stream: Any):
        self._container, self._stream = container, stream
        self.start = float((stream.start_time or 0) * stream.time_base)
        self.end = 0.0
        self.fault: str | None = None

    def frames(self) -> Iterator[tuple[Any, float]]:
        import av.error

        undecoded = 0
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.start)
                if packet.stream is not self._stream:
                    continue
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    undecoded += 1
                    continue
                yield from ((frame, max(0.0, frame.time - self.start)) for frame in decoded if frame.time is not None)
        except (av.error.FFmpegError, OSError) as error:
            self.fault = f"cut off or damaged after {clock(self.end)}: {_reason(error)}"
        length = (self._container.duration or 0) / av.time_base
        if self.fault is None and length - self.end > SLACK:
            self.fault = f"cut off after {clock(self.end)} of {clock(length)}"
        elif self.fault is None and undecoded:
            self.fault = f"{undecoded} of its packets cannot be decoded"


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; Broken when there is none."""
    try:
        import av
        import av.error
        import av.logging
    except ImportError:
        raise ConfigError(f"{path} is a video, which needs PyAV: install unclip[video]") from None
    # What is wrong is said by us, once. Any other level has FFmpeg's threads wait for Python, which waits for them to end.
    av.logging.set_level(None)
    name = str(path)
    try:
        with (
            Path(path).open("rb") as file,
            av.open(file, container_options={"format_whitelist": CONTAINERS}, metadata_errors="replace") as container,
        ):
            if not container.streams.video:
                raise Broken(name, "there is no video in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise Broken(name, f"not a readable video: {_reason(error)}") from None


def _upright(frame: Any) -> Image.Image:
    """The frame as its file says that it is held: turned counter-clockwise by its rotation."""
    turn = TURNS.get(round(frame.rotation) % 360)
    image = frame.to_image()
    return image if turn is None else image.transpose(turn)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
