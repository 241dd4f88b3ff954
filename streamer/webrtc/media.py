"""Pictures and sound between aiortc and the avatar: colour conversion, outgoing tracks, the sound's delay."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np
from aiortc.mediastreams import MediaStreamTrack
from numpy.typing import NDArray

from engines.frame import LatencyTrace
from streamer.driver import DriverState
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ, capture_wall_ms, receive_newest

U8 = NDArray[np.uint8]
TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
REPEAT_AFTER_S = 0.15  # a sender that hears nothing new for this long repeats its picture


def rgb_of(frame: av.VideoFrame) -> U8:
    """(H, W, 3) uint8 RGB; planar 4:2:0 goes through OpenCV, which takes a fifth of swscale's time."""
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if frame.format.name == "yuv420p" and even:
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420).astype(np.uint8, copy=False)
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def video_frame_of(rgb: U8, pts: int) -> av.VideoFrame:
    """A yuv420p frame (BT.601) at `pts` of 90 kHz, for the encoder; odd sizes lose their last row or column."""
    height, width = rgb.shape[0] & ~1, rgb.shape[1] & ~1
    planes = cv2.cvtColor(np.ascontiguousarray(rgb[:height, :width]), cv2.COLOR_RGB2YUV_I420)
    frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8, copy=False), format="yuv420p")
    frame.pts = pts
    frame.time_base = TIME_BASE
    return frame


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One picture on its way out: `pts` of the driving frame, when the browser captured it, what it cost."""

    frame: av.VideoFrame
    pts: int
    capture_ms: float | None
    trace: LatencyTrace
    state: DriverState = "tracking"
    face: bool = True
    sequence: int = 0
    fresh: bool = True


def next_pts(wanted: int, last: int | None) -> int:
    """`wanted`, or just behind `last`: RTP time must rise though idle frames ran ahead of a camera's."""
    return wanted if last is None or wanted > last else last + 1


class SlotTrack(MediaStreamTrack):
    """The outgoing video: the newest picture from a slot, or the last one again when none comes.

    `sent` is called with each picture once the sender asks for the next one, that is after its packets left.
    """

    kind = "video"

    def __init__(self, slot: Slot[Outgoing], sent: Callable[[Outgoing], None]) -> None:
        super().__init__()
        self._slot = slot
        self._sent = sent
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
            return newest.frame


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


def wanted_delay_frames(video_ms: float, audio_ms: float, current: int) -> int:
    """How many 20 ms packets the sound must wait so that it leaves with the picture it belongs to.

    `video_ms`: what the picture spends between arriving and leaving; `audio_ms`: what sound spends anyway.
    A change needs more than 15 ms of evidence, so that the sound is not cut for jitter.
    """
    exact = max(0.0, video_ms - audio_ms) / (PTIME_S * 1000)
    return current if abs(exact - current) <= 0.75 else round(exact)


class DelayedAudioTrack(MediaStreamTrack):
    """Incoming sound sent back `delay_frames` packets later, at the pace at which it comes in."""

    kind = "audio"

    def __init__(self, source: MediaStreamTrack, delay_frames: Callable[[int], int] = lambda _: 0) -> None:
        super().__init__()
        self._source = source
        self._delay_frames = delay_frames
        self._held: deque[av.AudioFrame] = deque()
        self._delay = 0
        self._pts = 0

    async def recv(self) -> av.AudioFrame:
        frame = await self._source.recv()
        assert isinstance(frame, av.AudioFrame)
        self._held.append(frame)
        wanted = self._delay_frames(self._delay)
        if wanted > self._delay:
            out = silence_like(frame)  # one packet of silence: everything after is one packet later
            self._delay += 1
        else:
            if wanted < self._delay and len(self._held) > 1:
                self._held.popleft()
                self._delay -= 1
            out = self._held.popleft()
        out.pts = self._pts
        out.time_base = Fraction(1, out.sample_rate)
        self._pts += out.samples
        return out


def silence_like(frame: av.AudioFrame) -> av.AudioFrame:
    """A silent frame of the same format and length."""
    silent = av.AudioFrame(format=frame.format.name, layout=frame.layout.name, samples=frame.samples)
    for plane in silent.planes:
        plane.update(bytes(plane.buffer_size))
    silent.sample_rate = frame.sample_rate
    return silent
