"""`VideoSource`: a video file as frames, and `audio_of`: the same file's audio on the same clock."""

from __future__ import annotations

import struct
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import av.container
import av.error
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import Colorspace
from numpy.typing import NDArray

from engines.errors import DriverError
from streamer.clock import Clock, SystemClock
from streamer.frame import Frame, LatencyTrace
from streamer.sources.names import is_sound
from streamer.sources.source import Source, SourceInfo, SourceState

U8 = NDArray[np.uint8]

# FFmpeg also opens pictures, text (as ANSI art) and lists of addresses; none of them is a driving video.
_NOT_VIDEO = {"tty", "image2", "gif_pipe", "hls", "dash", "concat", "concatf", "sdp", "rtsp"}
# Containers whose header states the length exactly, so that a missing end can be noticed.
_EXACT_LENGTH = ("mov", "matroska", "avi")
_AVCOL_SPC_UNSPECIFIED = 2
_MAX_PLAUSIBLE_FPS = 240.0
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class _Picture:
    image: U8
    time_s: float  # in the container's own time
    end_s: float


class _Pass:
    """One reading of a file from its start; owns the container. `matrix`: as found by an earlier pass."""

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

    def next(self) -> _Picture | None:
        """The next good picture, or None at the end."""
        return next(self._pictures, None)

    def close(self) -> None:
        self._pictures.close()
        self._container.close()

    def _decode(self) -> Generator[_Picture]:
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
            yield _Picture(image, time_s, time_s + length_s)
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


class VideoSource(Source):
    """A video file: RGB frames upright, with square pixels and exact times; variable rates are kept.

    `realtime` delivers each frame at its time and drops nothing itself; otherwise frames come as fast as
    they are read. `loop` starts over for ever with times going on. Damaged places are skipped up to the
    next key frame and a missing end is taken as the end; `damage` (also `notice`) then says so.
    Raises DriverError when there is no video in the file that can be decoded.
    """

    def __init__(
        self, path: Path, *, loop: bool = False, realtime: bool = False, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._loop = loop
        self._realtime = realtime
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._damage: str | None = None
        self._state = SourceState.READY
        self._start_ns: int | None = None
        self._sequence = 0
        self._pass = _Pass(path)
        try:
            first = self._pass.next()
            if first is None:
                raise DriverError(
                    f"{path} holds no picture that can be decoded; export it again as an H.264 .mp4"
                )
        except BaseException:
            self._pass.close()
            raise
        self._pending: _Picture | None = first
        # Maps the pass's own time to ours; moves on with every loop.
        self._shift_s = -first.time_s
        self._end_s = 0.0
        duration_s = self._pass.duration_s
        self._info = SourceInfo(
            width_px=first.image.shape[1],
            height_px=first.image.shape[0],
            fps=self._pass.fps,
            is_live=False,
            duration_s=None if loop else duration_s,
            has_audio=self._pass.has_audio,
            name=path.name,
        )

    @property
    def info(self) -> SourceInfo:
        """Size, average rate and length of the video."""
        return self._info

    @property
    def state(self) -> SourceState:
        """READY until the last frame was read."""
        return self._state

    @property
    def damage(self) -> str | None:
        """What is wrong with the file, as far as it was read, or None."""
        return self._damage or self._pass.damage

    @property
    def notice(self) -> str | None:
        """The same as `damage`."""
        return self.damage

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame; None at the end. `realtime` waits for the frame's time first."""
        with self._lock:
            begin_ns = self._clock.now_ns()
            picture = None if self._state is SourceState.ENDED else self._next()
            if picture is None:
                self._finish()
                return None
            pts_s = picture.time_s + self._shift_s
            self._end_s = picture.end_s + self._shift_s
        captured_ns = self._wait_until_due(pts_s) if self._realtime else begin_ns
        if captured_ns is None:
            return None
        trace = LatencyTrace().mark("captured", captured_ns).mark("decoded", self._clock.now_ns())
        frame = Frame(picture.image, pts_s, captured_ns, trace, self._sequence)
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._finish()

    def _next(self) -> _Picture | None:
        picture, self._pending = self._pending, None
        picture = picture or self._pass.next()
        if picture is not None or not self._loop:
            return picture
        self._damage = self._damage or self._pass.damage
        self._pass.close()
        self._pass = _Pass(self._path, self._pass.matrix)
        picture = self._pass.next()
        if picture is not None:
            self._shift_s = self._end_s - picture.time_s
        return picture

    def _finish(self) -> None:
        self._state = SourceState.ENDED
        self._pending = None
        self._pass.close()

    def _wait_until_due(self, pts_s: float) -> int | None:
        """The frame's due time in monotonic ns once it has come; None when closed meanwhile."""
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns() - round(pts_s * 1e9)
        due_ns = self._start_ns + round(pts_s * 1e9)
        while (left_ns := due_ns - self._clock.now_ns()) > 0:
            if self._state is SourceState.ENDED:
                return None
            # In slices, so that `close` ends a wait over a long gap.
            self._clock.sleep(min(left_ns / 1e9, 0.1))
        return due_ns


class AudioTrack:
    """The audio of a video file, to be copied or decoded; owns its container (a context manager).

    `start_s` is the stream time at which the video's first frame is shown: audio at `t` there belongs to
    `pts_s = t − start_s` of `VideoSource`.
    """

    def __init__(self, container: av.container.InputContainer, start_s: float) -> None:
        self._container = container
        self.stream = container.streams.audio[0]
        self.start_s = start_s

    def packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets in order, ending where the file is damaged; the last, empty one flushes a decoder."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                return
            if packet.is_corrupt:
                return
            yield packet

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# cover pictures of music files are video streams to FFmpeg
def audio_of(path: Path) -> AudioTrack | None:
    """The first audio track of `path`, or None when it has none; DriverError when it is neither video nor sound."""
    if is_sound(path):
        return AudioTrack(open_media(path), 0.0)
    video = _Pass(path)
    try:
        if not video.has_audio:
            return None
        first = video.next()
    finally:
        video.close()
    return AudioTrack(open_media(path), first.time_s if first else 0.0)


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


def open_media(path: Path) -> av.container.InputContainer:
    """A file opened by FFmpeg and nothing but a file; raises DriverError naming what to give instead."""
    kind, example = ("sound", ".wav") if is_sound(path) else ("video", ".mp4")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DriverError(f"the driving {kind} {path} {what}; give the path of a {kind} file")
    try:
        if path.stat().st_size == 0:
            raise DriverError(f"{path} is empty; give a {kind} file such as a {example}")
        # `file:` keeps FFmpeg from taking a name with a colon, or a list inside, for a network address.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.error.InvalidDataError as error:
        raise DriverError(
            f"{path} is not a {kind}, or its index is missing because the recording was cut off; "
            "export or copy it again and use that"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise DriverError(f"cannot read {path} ({error}); check that it is a {kind} you may read") from error
    name = container.format.name
    if name in _NOT_VIDEO or name.endswith("_pipe"):
        container.close()
        raise DriverError(f"{path} is not a {kind}; give a {kind} file such as a {example}")
    return container


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
