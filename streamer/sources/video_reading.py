"""`VideoReading`: one reading of a video file from its start: pictures upright, damage skipped."""

from __future__ import annotations

import struct
from collections import deque
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
from streamer.pyav import Colorspace, SideData, SideDataType, av
from streamer.sources.media_file import EXACT_LENGTH, open_media, packets_of, stated_length_s
from streamer.sources.outside import length_notice
from streamer.sources.timeline import Timeline
from streamer.sources.tracks import has_decoder, pictures_of, sounds_of, videos_of

U8 = NDArray[np.uint8]

_AVCOL_SPC_UNSPECIFIED = 2
_MAX_PLAUSIBLE_FPS = 240.0
_WITHOUT_PTS = {"avi"}  # containers that have decoding times only
_MOST_INSIDE = 64  # pictures that a decoder with its threads may hold back
_MOST_SKIPPED_S = 10.0  # behind damage, where no key frame comes
_LOST_S, _BEHIND_S = 0.1, 1.0  # of sound; less is not worth a word
_STILL_S = 1.0  # a film has a second picture by then
_UNSHOWN = {"vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d"}  # have packets that show nothing
_FEW = 2  # pictures at the ends that a decoder may keep to itself
_WIDEST = 8.0  # pixels of another shape are a mistake
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, (H, W, 3) uint8 RGB, and its times in the container's own time."""

    image: U8
    time_s: float
    end_s: float


class VideoReading(Closing):
    """Owns the container. `matrix`: the display matrix, as found by an earlier reading.

    `quarter_turns`: pictures are turned so often clockwise on top of what the file says. Of several video tracks
    it reads the best that gives a picture (`streamer/sources/tracks.py`).
    Raises DriverError when there is no video in the file that can be decoded.
    """

    def __init__(self, path: Path, matrix: tuple[int, ...] | None = None, quarter_turns: int = 0) -> None:
        self._path = path
        self._quarter_turns = quarter_turns
        self._container = open_media(path)
        try:
            _require_video(self._container, path)
            self._first = self._begin(matrix)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, matrix: tuple[int, ...] | None) -> Picture:
        for k, index in enumerate([s.index for s in videos_of(self._container, self._path)]):
            if k:
                self._container.close()
                self._container = open_media(self._path)
            self._take_track(next(s for s in self._container.streams.video if s.index == index), matrix)
            if (first := next(self._pictures, None)) is not None:
                return first
        raise DriverError(
            f"{self._path} holds no picture that can be decoded; export it again as an H.264 .mp4"
        )

    def _take_track(self, stream: av.VideoStream, matrix: tuple[int, ...] | None) -> None:
        self._stream = stream
        stream.thread_type = "AUTO"
        self.fps = _frame_rate(self._path, stream.index, stream.average_rate, stream.guessed_rate)
        self._size_px: tuple[int, int] | None = None
        self._pixel_aspect = 1.0
        self._sounds = sounds_of(self._container)
        self.has_audio = bool(self._sounds)
        self._mute: str | None = None
        if self._container.streams.audio and not self._sounds:
            self._mute = (
                f"the sound of {self._path.name} is in a format that cannot be decoded; it is left out"
            )
        self._heard_index = self._sounds[0].index if self._sounds else -1
        self.duration_s = stated_length_s(self._container, (self._container.start_time or 0) / 1e6)
        self.damage: str | None = None
        self.matrix = matrix
        self._reached_s = 0.0
        self._pictures_end_s = self._sound_end_s = 0.0
        self._sound_lost_s = 0.0
        self._is_cut = self._interlaced = False
        self._given = self._wanted = 0  # pictures
        # decoding times of what lies in the decoder, in order
        self._dts_s: deque[float] = deque(maxlen=_MOST_INSIDE)
        self._pictures = self._decode()

    @property
    def start_s(self) -> float:
        """The container's time of the first picture."""
        return self._first.time_s

    @property
    def first(self) -> Picture:
        """The first good picture; `next` goes on behind it."""
        return self._first

    def next(self) -> Picture | None:
        """The next good picture, or None at the end."""
        return next(self._pictures, None)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._pictures.close()
        self._container.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is wrong with the file, as far as it was read."""
        return tuple(n for n in (self._mute, self.damage) if n)

    def final_notices(self) -> tuple[str, ...]:
        """All that is to be said once everything was read."""
        notes: list[str | None] = [*self.notices]
        wanted = min(self._stream.frames, self._wanted) or self._wanted
        if self._stream.codec_context.name in _UNSHOWN or self._interlaced:
            # not every packet is a picture: of a file that broke nowhere only a stated number counts
            wanted = self._wanted if self.damage else self._stream.frames
        left_out = wanted - self._given
        if not self._is_cut and left_out > (0 if self.damage else _FEW + 0.02 * wanted):
            notes.append(f"{left_out} of {wanted} pictures of {self._path.name} could not be used")
        if self._sound_lost_s > _LOST_S:
            notes.append(
                f"{self._sound_lost_s:.1f} s of the sound of {self._path.name} are damaged and left out"
            )
        if (behind_s := self._sound_end_s - self._pictures_end_s) > _BEHIND_S:
            notes.append(
                f"the sound of {self._path.name} goes on for {behind_s:.1f} s behind its last picture; that is left out"
            )
        elif self._wanted == self._given == 1 and (self.duration_s or 0) > _STILL_S:
            notes.append(
                f"{self._path.name} lasts {self.duration_s:.1f} s and shows a single picture; is it the film?"
            )
        notes.append(length_notice(self._path, self._container.format.name))
        return tuple(n for n in notes if n)

    def _decode(self) -> Generator[Picture]:
        base = self._stream.time_base or Fraction(1, 90000)
        timeline = Timeline(1 / self.fps, in_order=self._container.format.name in _WITHOUT_PTS)
        good = True
        skipped = 0
        for frame in self._decoded_frames():
            # Frames predicted from a damaged one look whole to the decoder: wait for a key frame.
            if frame is None or frame.is_corrupt:
                good, skipped = False, 0
                at_s = timeline.last_s or 0.0
                self.damage = (
                    self.damage or f"{self._path.name} is damaged at {at_s:.1f} s; frames are skipped there"
                )
                continue
            self._interlaced = self._interlaced or bool(frame.interlaced_frame)
            dts_s = self._next_dts(frame, base)
            good = good or frame.key_frame or timeline.last_s is None or skipped >= _MOST_SKIPPED_S * self.fps
            if not good:
                skipped += 1
                continue
            timeline = timeline.after(frame.time if frame.pts is not None else None, dts_s)
            time_s = timeline.last_s
            assert time_s is not None
            length_s = float(frame.duration * base) if frame.duration else 1 / self.fps
            if self.matrix is None:
                # Once per file: a frame whose side data was looked at is freed only by the garbage
                # collector, and keeps the whole decoder with its threads alive until then.
                self.matrix = _display_matrix(frame)
            if (frame.width, frame.height) != self._size_px:
                self._size_px = (frame.width, frame.height)
                self._pixel_aspect = _pixel_aspect(self._stream)
            try:
                rgb = _rgb(frame, self._pixel_aspect)
            except (av.error.FFmpegError, ValueError):  # pixels that cannot be made RGB
                self.damage = (
                    self.damage or f"{self._path.name} has pictures at {time_s:.1f} s that cannot be shown"
                )
                continue
            image = upright(rgb, self.matrix, self._quarter_turns)
            self._given += 1
            self._pictures_end_s = time_s + length_s
            yield Picture(image, time_s, time_s + length_s)
        self._notice_missing_end()

    def _next_dts(self, frame: av.VideoFrame, base: Fraction) -> float | None:
        """The decoding time that `frame`, the next to be shown, stands for: they rise where its own may not."""
        if frame.key_frame and frame.dts is not None and not self._stream.codec_context.has_b_frames:
            own_s = float(frame.dts * base)  # what was lost before is no longer waited for
            while len(self._dts_s) > 1 and self._dts_s[0] < own_s:
                self._dts_s.popleft()
        return self._dts_s.popleft() if self._dts_s else None

    def _decoded_frames(self) -> Iterator[av.VideoFrame | None]:
        """Frames in display order; None where something could not be decoded."""
        for packet in packets_of(self._container, [self._stream, *self._sounds]):
            if packet is None:
                yield None
                continue
            # Not `packet.stream_index`: it is 0 on the empty packets that end every stream.
            video = packet.stream.index == self._stream.index
            if video and packet.size and not packet.is_discard:
                self._wanted += 1
            if packet.is_corrupt:
                if video:
                    yield None
                else:
                    self._sound_lost_s += float((packet.duration or 0) * packet.time_base)
                continue
            if packet.pts is not None:
                end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached_s = max(self._reached_s, end_s)
                if packet.stream.index == self._heard_index:
                    self._sound_end_s = max(self._sound_end_s, end_s)
            if not video:
                continue
            if packet.dts is not None and packet.size and not packet.is_discard:
                self._dts_s.append(float(packet.dts * packet.time_base))
            try:
                yield from self._stream.codec_context.decode(cast("av.Packet[av.VideoStream]", packet))
            except av.error.FFmpegError:
                yield None

    def _notice_missing_end(self) -> None:
        expected_s = self.duration_s
        if expected_s is None or not self._container.format.name.startswith(EXACT_LENGTH):
            return
        start_s = (self._container.start_time or 0) / 1e6
        reached_s = self._reached_s - start_s
        if reached_s < expected_s - max(0.25, 3 / self.fps):
            self._is_cut = True
            self.damage = (
                f"{self._path.name} ends at {reached_s:.1f} s of {expected_s:.1f} s; the rest is missing"
            )


def upright(image: U8, matrix: tuple[int, ...], quarter_turns: int = 0) -> U8:
    """`image` (H, W, 3) turned as a display matrix says; only its quarter turns and flips are followed.

    `quarter_turns` more, clockwise, come behind it.

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
    turned = np.rot90(turned, -quarter_turns)
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


def _pixel_aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _WIDEST <= aspect <= _WIDEST else 1.0


def _require_video(container: av.container.InputContainer, path: Path) -> None:
    shown = pictures_of(container)
    if not shown:
        raise DriverError(
            f"{path} holds no video that can be decoded; give a file that shows a face, such as an .mp4"
        )
    if not any(has_decoder(s) for s in shown):
        raise DriverError(
            f"the video of {path} is in a format that cannot be decoded; export it again as an H.264 .mp4"
        )


def _frame_rate(path: Path, index: int, *stated: Fraction | None) -> float:
    """The average rate in frames per second: as stated when plausible, else measured on the packets."""
    for rate in stated:
        if rate is not None and 1 <= rate <= _MAX_PLAUSIBLE_FPS:
            return float(rate)
    times_s: list[float] = []
    with open_media(path) as container, suppress(av.error.FFmpegError, OSError):
        for packet in container.demux(container.streams[index]):
            if packet.pts is not None:
                times_s.append(float(packet.pts * packet.time_base))
            if len(times_s) >= 300:
                break
    span_s = max(times_s) - min(times_s) if times_s else 0.0
    return min(_MAX_PLAUSIBLE_FPS, (len(times_s) - 1) / span_s) if span_s > 0 else 30.0
