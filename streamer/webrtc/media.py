"""Pictures and sound between aiortc and the avatar: colour conversion, outgoing tracks, the sound's delay."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from aiortc.mediastreams import MediaStreamTrack
from numpy.typing import NDArray

from streamer.drive.driver import DriverState
from streamer.frame import LatencyTrace
from streamer.pyav import ColorRange
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ, receive_newest
from streamer.webrtc.sender_reports import capture_wall_ms

U8 = NDArray[np.uint8]
TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
REPEAT_AFTER_S = 0.15  # a sender that hears nothing new for this long repeats its picture


def rgb_of(frame: av.VideoFrame) -> U8:
    """(H, W, 3) uint8 RGB; planar 4:2:0 goes through OpenCV, which takes a fifth of swscale's time.

    OpenCV reads BT.601, limited range, as WebRTC sends it. BT.709, of which H264 may tell, is read so too: a tracker
    does not mind a shift of hue. Full range would be another contrast, and goes the long way.
    """
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if frame.format.name == "yuv420p" and even and frame.color_range != ColorRange.JPEG:
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420).astype(np.uint8, copy=False)
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def video_frame_of(rgb: U8, pts: int) -> av.VideoFrame:
    """A yuv420p frame (BT.601) at `pts` of 90 kHz, for the encoder; odd sizes lose their last row or column."""
    height, width = rgb.shape[0] & ~1, rgb.shape[1] & ~1
    planes = np.asarray(
        cv2.cvtColor(np.ascontiguousarray(rgb[:height, :width]), cv2.COLOR_RGB2YUV_I420), np.uint8
    )
    # without a copy where PyAV can: it counts the rows of a chroma plane in those of the picture, four to one
    made = av.VideoFrame.from_numpy_buffer if height % 4 == 0 else av.VideoFrame.from_ndarray
    frame = made(planes, "yuv420p")
    frame.pts = pts
    frame.time_base = TIME_BASE
    return frame


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One picture on its way out: `pts` of the driving frame, when the browser captured it, what it cost.

    `moved_by_ns`: when what moves its mouth, a camera's picture or sound, was captured by the call's `MediaClock`, in
    ns of the monotonic clock. `held_ms`: how long it waited for its sound.
    """

    frame: av.VideoFrame
    pts: int
    capture_ms: float | None
    trace: LatencyTrace
    state: DriverState = "tracking"
    face: bool = True
    sequence: int = 0
    fresh: bool = True
    moved_by_ns: float | None = None
    held_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class MediaTime:
    """What leaves at `ticks` of its track's `rate_hz` was captured at `captured_ns` of the monotonic clock."""

    ticks: int
    rate_hz: int
    captured_ns: float

    def ticks_at(self, now_ns: float, rate_hz: int) -> int:
        """The track's time in `rate_hz` of what is captured at `now_ns`."""
        return round(self.ticks * rate_hz / self.rate_hz + (now_ns - self.captured_ns) * rate_hz / 1e9)


def next_pts(wanted: int, last: int | None) -> int:
    """`wanted`, or just behind `last`: RTP time must rise though idle frames ran ahead of a camera's."""
    return wanted if last is None or wanted > last else last + 1


class SlotTrack(MediaStreamTrack):
    """The outgoing video: the newest picture from a slot, or the last one again when none comes.

    `sent` is called with each picture once the sender asks for the next one, that is after its packets left. `hold_ms`:
    how long a new one waits here; the slot behind it goes on taking newer ones. `newest`: of the last new one.
    """

    kind = "video"

    def __init__(
        self,
        slot: Slot[Outgoing],
        sent: Callable[[Outgoing], None],
        hold_ms: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__()
        self.newest: MediaTime | None = None
        self._slot = slot
        self._sent = sent
        self._hold_ms = hold_ms
        self._last: Outgoing | None = None
        self._last_at_s = 0.0
        self._last_pts: int | None = None

    async def recv(self) -> av.VideoFrame:
        if self._last is not None:
            stamped = self._last.trace.mark("sent", time.monotonic_ns())
            self._sent(replace(self._last, trace=stamped))
        while True:
            newest = await self._slot.get(REPEAT_AFTER_S)
            if newest is None and self._slot.closed:
                self.stop()
                await asyncio.sleep(3600)  # the sender is about to be cancelled
            if newest is None and self._last is None:
                continue
            if newest is not None:
                newest = await self._held(newest)
            now_s = time.monotonic()
            if newest is None:
                assert self._last is not None
                pts = (self._last_pts or 0) + round((now_s - self._last_at_s) * VIDEO_CLOCK_HZ)
                newest = replace(self._last, fresh=False, capture_ms=None)
            else:
                pts = newest.pts
            pts = next_pts(pts, self._last_pts)
            # both: an encoder may have left a repeated frame in its own time base
            newest.frame.pts, newest.frame.time_base = pts, TIME_BASE
            self._last, self._last_at_s, self._last_pts = replace(newest, pts=pts), now_s, pts
            moved_by_ns = newest.moved_by_ns
            if newest.fresh and moved_by_ns is not None:
                self.newest = MediaTime(pts, VIDEO_CLOCK_HZ, moved_by_ns)
            return newest.frame

    async def _held(self, outgoing: Outgoing) -> Outgoing:
        """The picture once it has waited for its sound."""
        hold_ms = self._hold_ms()
        if hold_ms <= 0:
            return outgoing
        begin_s = time.monotonic()
        await asyncio.sleep(hold_ms / 1000)
        return replace(outgoing, held_ms=(time.monotonic() - begin_s) * 1000)


class EchoTrack(MediaStreamTrack):
    """The input untouched, newest frame first: what the transport alone costs."""

    kind = "video"

    def __init__(
        self,
        source: MediaStreamTrack,
        receiver: object,
        sent: Callable[[Outgoing], None],
        dropped: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._source = source
        self._receiver = receiver
        self._sent = sent
        self._dropped = dropped
        self._last: Outgoing | None = None
        self._count = 0

    async def recv(self) -> av.VideoFrame:
        if self._last is not None:
            self._sent(replace(self._last, trace=self._last.trace.mark("sent", time.monotonic_ns())))
        frame, skipped = await receive_newest(self._source)
        if skipped:
            self._dropped(skipped)
        pts = int(frame.pts or 0)
        trace = LatencyTrace({"received": time.monotonic_ns()})
        capture = capture_wall_ms(self._receiver, pts)  # pyright: ignore[reportArgumentType]
        self._last = Outgoing(frame, pts, capture, trace, sequence=self._count)
        self._count += 1
        return frame


PTIME_S = 0.020
OPUS_MS = (
    6.5  # the encoder's look-ahead (RFC 6716 § 2.1.4 names 2.5 to 6.5 ms): sound comes out that much later
)
MOST_DELAY_MS = 1000.0
STEADY_MS = 8.0


def wanted_delay_ms(video_ms: float, audio_ms: float, current_ms: float, trim_ms: float = 0.0) -> float:
    """How long the sound must wait so that it is heard with the picture it belongs to.

    `video_ms`: what the picture spends between arriving and leaving; `audio_ms`: what sound spends anyway, before
    and after; `trim_ms`: later (> 0) or earlier by hand. A change needs more than `STEADY_MS` of evidence, so that
    the sound is not cut for jitter.
    """
    exact = min(MOST_DELAY_MS, max(0.0, video_ms - audio_ms + trim_ms))
    return current_ms if abs(exact - current_ms) <= STEADY_MS else exact


def start_of(frame: av.AudioFrame) -> int | None:
    """When a sound begins, in samples of its own rate; None if it does not say."""
    if frame.pts is None or frame.time_base is None:
        return None
    return round(frame.pts * frame.time_base * frame.sample_rate)


def soft_at_both_ends(samples: NDArray[Any], over: int = 240) -> NDArray[Any]:
    """(S, C) that begins and ends in a fade: cut off on both sides, it would click."""
    over = min(over, len(samples) // 2)
    if not over:
        return np.zeros_like(samples)
    level = np.ones((len(samples), 1), np.float32)
    level[:over, 0] = np.linspace(0, 1, over + 1, dtype=np.float32)[:-1]
    level[len(samples) - over :] = level[:over][::-1]
    return (samples * level).astype(samples.dtype)


class DelayedAudioTrack(MediaStreamTrack):
    """Incoming sound sent back later by `delay_ms`, at the pace at which it comes in, in pieces of at most `PTIME_S`.

    `delay_ms` is asked with the delay in force. `heard` is given every packet as it comes, and says when its first
    sample was captured, if anybody knows; `left` is given every piece as it leaves, and when its first sample was
    captured. `gone` is told, once the sender asks for the next one, that is after its packets left, when its first
    sample was captured and when it was given. `newest`: of the last piece that left. A longer delay begins with
    silence, a shorter one leaves sound out: to the sample, so that mouth and voice stay together. Where the incoming
    sound has a gap, time goes on: what would have been sent meanwhile is left out.
    """

    kind = "audio"

    def __init__(
        self,
        source: MediaStreamTrack,
        delay_ms: Callable[[float], float] = lambda _: 0.0,
        heard: Callable[[av.AudioFrame], float | None] = lambda _: None,
        left: Callable[[av.AudioFrame, float | None], None] = lambda *_: None,
        gone: Callable[[float, int], None] = lambda *_: None,
    ) -> None:
        super().__init__()
        self.newest: MediaTime | None = None
        self._gone = gone
        self._given_ns: int | None = None  # when the last piece was, if it is known when it was captured
        self._source = source
        self._delay_ms = delay_ms
        self._heard = heard
        self._left = left
        self._held: NDArray[Any] | None = None  # (S, C): what waits
        self._form: tuple[str, str, int] | None = None  # of the first packet, and of all that leaves
        self._to_form: tuple[tuple[str, str, int], av.AudioResampler] | None = None
        self._comes_at: int | None = None  # where the next packet begins if nothing is missing
        self._ready: deque[tuple[av.AudioFrame, float | None]] = deque()
        self._pts = 0

    async def recv(self) -> av.AudioFrame:
        if self.newest is not None and self._given_ns is not None:
            self._gone(self.newest.captured_ns, self._given_ns)
        while not self._ready:
            frame = await self._source.recv()
            assert isinstance(frame, av.AudioFrame)
            captured_ns = self._heard(frame)
            for same in self._in_form(frame):
                self._take(same, captured_ns)
                captured_ns = (
                    None if captured_ns is None else captured_ns + 1e9 * same.samples / same.sample_rate
                )
        piece, left_ns = self._ready.popleft()
        self._given_ns = None
        if left_ns is not None:
            self.newest = MediaTime(int(piece.pts or 0), piece.sample_rate, left_ns)
            self._given_ns = time.monotonic_ns()
        self._left(piece, left_ns)
        return piece

    def _in_form(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The frame, resampled when the codec changed: the encoder takes one form."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        self._form = self._form or form
        if form == self._form:
            return [frame]
        if self._to_form is None or self._to_form[0] != form:
            self._to_form = form, av.AudioResampler(*self._form)
            self._comes_at = None
        frame.pts = None
        return self._to_form[1].resample(frame)

    def _take(self, frame: av.AudioFrame, captured_ns: float | None) -> None:
        channels = len(frame.layout.channels)
        raw: NDArray[Any] = frame.to_ndarray()
        samples: NDArray[Any] = raw.T if frame.format.is_planar else raw.reshape(-1, channels)
        if self._held is None:
            self._held = samples[:0]
        start = start_of(frame)
        if start is not None:
            self._pass(start - (start if self._comes_at is None else self._comes_at))
            self._comes_at = start + len(samples)
        current = len(self._held)
        per_ms = frame.sample_rate / 1000
        wanted = round(self._delay_ms(current / per_ms) * per_ms)
        if wanted > current:
            silence = np.zeros((wanted - current, channels), samples.dtype)
            held = np.concatenate([silence, self._held, samples])
        else:
            held = np.concatenate([self._held[current - wanted :], samples])
        count = len(samples)
        out, self._held = held[:count], held[count:]
        piece = round(PTIME_S * frame.sample_rate)
        for begin in range(0, count, piece):
            # what leaves came as many samples before this packet as wait now
            before_ns = 1e9 * (wanted - begin) / frame.sample_rate
            at_ns = None if captured_ns is None else captured_ns - before_ns
            self._ready.append((self._piece(out[begin : begin + piece], frame), at_ns))

    def _pass(self, samples: int) -> None:
        """Let so much time go by in silence."""
        assert self._held is not None
        if samples > 0:
            self._pts += samples
            left = soft_at_both_ends(self._held[samples:])
            silence = np.zeros((len(self._held) - len(left), self._held.shape[1]), self._held.dtype)
            self._held = np.concatenate([left, silence])

    def _piece(self, samples: NDArray[Any], like: av.AudioFrame) -> av.AudioFrame:
        piece = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T if like.format.is_planar else samples.reshape(1, -1)),
            format=like.format.name,
            layout=like.layout.name,
        )
        piece.sample_rate = like.sample_rate
        piece.pts, piece.time_base = self._pts, Fraction(1, like.sample_rate)
        self._pts += len(samples)
        return piece
