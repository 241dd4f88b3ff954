"""`VideoReading`: one reading of a video file from its start: pictures upright, damage skipped."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from streamer.closing import Closing
from streamer.pyav import Colorspace, Disposition, SideData, SideDataType, av
from streamer.sources.media_file import open_media

U8 = NDArray[np.uint8]

# Containers whose header states the length exactly, so that a missing end can be noticed.
_EXACT_LENGTH = ("mov", "matroska", "avi")
_AVCOL_SPC_UNSPECIFIED = 2
_MAX_PLAUSIBLE_FPS = 240.0
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, (H, W, 3) uint8 RGB, and its times in the container's own time."""

    image: U8
    time_s: float
    end_s: float


class VideoReading(Closing):
    """Owns the container. `matrix`: the display matrix, as found by an earlier reading.

    Raises DriverError when there is no video in the file that can be decoded.
    """

    def __init__(self, path: Path, matrix: tuple[int, ...] | None = None) -> None:
        self._path = path
        self._container = open_media(path)
        try:
            self._stream = _video_stream(self._container, path)
        except DriverError:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self.fps = _frame_rate(path, self._stream.average_rate, self._stream.guessed_rate)
        self._pixel_aspect = float(self._stream.sample_aspect_ratio or 1)
        self.has_audio = bool(self._container.streams.audio)
        duration = self._container.duration
        self.duration_s = None if duration is None else duration / 1e6
        self.damage: str | None = None
        self.matrix = matrix
        self._reached_s = 0.0
        self._pictures = self._decode()

    def next(self) -> Picture | None:
        """The next good picture, or None at the end."""
        return next(self._pictures, None)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._pictures.close()
        self._container.close()

    def _decode(self) -> Generator[Picture]:
        time_base = float(self._stream.time_base or 1 / 90000)
        last_s: float | None = None
        good = True
        for frame in self._decoded_frames():
            # Frames predicted from a damaged one look whole to the decoder: wait for a key frame.
            if frame is None or frame.is_corrupt:
                good = False
                at_s = last_s if last_s is not None else 0.0
                self.damage = (
                    self.damage or f"{self._path.name} is damaged at {at_s:.1f} s; frames are skipped there"
                )
                continue
            good = good or frame.key_frame or last_s is None
            if not good:
                continue
            time_s = frame.time if frame.pts is not None else None
            if time_s is None:
                time_s = 0.0 if last_s is None else last_s + 1 / self.fps
            if last_s is not None and time_s <= last_s:
                continue  # a repeated or backward time cannot be shown after its predecessor
            last_s = time_s
            length_s = frame.duration * time_base if frame.duration else 1 / self.fps
            if self.matrix is None:
                # Once per file: a frame whose side data was looked at is freed only by the garbage
                # collector, and keeps the whole decoder with its threads alive until then.
                self.matrix = _display_matrix(frame)
            image = upright(_rgb(frame, self._pixel_aspect), self.matrix)
            yield Picture(image, time_s, time_s + length_s)
        self._notice_missing_end()

    def _decoded_frames(self) -> Iterator[av.VideoFrame | None]:
        """Frames in display order; None where something could not be decoded."""
        streams = [self._stream, *self._container.streams.audio]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError):
                yield None
                return
            # Not `packet.stream_index`: it is 0 on the empty packets that end every stream.
            video = packet.stream.index == self._stream.index
            if packet.is_corrupt:
                if video:
                    yield None
                continue
            if packet.pts is not None:
                end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached_s = max(self._reached_s, end_s)
            if not video:
                continue
            try:
                yield from self._stream.codec_context.decode(cast("av.Packet[av.VideoStream]", packet))
            except av.error.FFmpegError:
                yield None

    def _notice_missing_end(self) -> None:
        expected_s = self.duration_s
        if expected_s is None or not self._container.format.name.startswith(_EXACT_LENGTH):
            return
        start_s = (self._container.start_time or 0) / 1e6
        reached_s = self._reached_s - start_s
        if reached_s < expected_s - max(0.25, 3 / self.fps):
            self.damage = (
                f"{self._path.name} ends at {reached_s:.1f} s of {expected_s:.1f} s; the rest is missing"
            )


def upright(image: U8, matrix: tuple[int, ...]) -> U8:
    """`image` (H, W, 3) turned as a display matrix says; only its quarter turns and flips are followed.

    `matrix` holds the nine numbers of the MP4/FFmpeg display matrix (a, b, u, c, d, v, x, y, w): the shown
    point is (a x + c y, b x + d y).
    """
    a, b, _, c, d = matrix[:5]
    if abs(b) + abs(c) > abs(a) + abs(d):
        turned, left_right, up_down = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        turned, left_right, up_down = image, a < 0, d < 0
    turned = turned[:, ::-1] if left_right else turned
    turned = turned[::-1] if up_down else turned
    return np.ascontiguousarray(turned)


def _rgb(frame: av.VideoFrame, pixel_aspect: float) -> U8:
    width_px = max(1, round(frame.width * pixel_aspect))
    source: Colorspace | None = None
    if frame.colorspace == _AVCOL_SPC_UNSPECIFIED and frame.height >= 720:
        source = Colorspace.ITU709  # what players assume of untagged HD; swscale would take ITU-R 601
    rgb = frame.reformat(width=width_px, height=frame.height, format="rgb24", src_colorspace=source)
    return np.asarray(rgb.to_ndarray(), np.uint8)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...]:
    for data in cast("Iterable[SideData]", frame.side_data):
        if data.type is SideDataType.DISPLAYMATRIX:
            return struct.unpack("=9i", bytes(data)[:36])
    return _IDENTITY


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # a cover is not a video
            return stream
    raise DriverError(
        f"{path} holds no video that can be decoded; give a file that shows a face, such as an .mp4"
    )


def _frame_rate(path: Path, *stated: Fraction | None) -> float:
    """The average rate in frames per second: as stated when plausible, else measured on the packets."""
    for rate in stated:
        if rate is not None and 1 <= rate <= _MAX_PLAUSIBLE_FPS:
            return float(rate)
    times_s: list[float] = []
    with open_media(path) as container, suppress(av.error.FFmpegError, OSError):
        for packet in container.demux(_video_stream(container, path)):
            if packet.pts is not None:
                times_s.append(float(packet.pts * packet.time_base))
            if len(times_s) >= 300:
                break
    span_s = max(times_s) - min(times_s) if times_s else 0.0
    return min(_MAX_PLAUSIBLE_FPS, (len(times_s) - 1) / span_s) if span_s > 0 else 30.0
