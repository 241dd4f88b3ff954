"""The inference thread of a session: newest frame in, newest picture out, never blocking the event loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import av
import numpy as np

from engines.frame import Frame, LatencyTrace
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, Pacer
from streamer.demo import demo_track, looped
from streamer.driver import Drive
from streamer.idle import IDLE_AFTER_S, IDLE_FPS
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ
from streamer.webrtc.media import Outgoing, rgb_of, video_frame_of

logger = logging.getLogger(__name__)

DEMO_FPS = 30.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded camera frame as it came off the wire."""

    frame: av.VideoFrame
    pts: int
    received_ns: int
    capture_ms: float | None


class Worker:
    """Runs one avatar in a thread of its own. Everything heavy in it releases the GIL (OpenCV, MediaPipe)."""

    def __init__(
        self,
        make_avatar: Callable[[], Avatar],
        out: Slot[Outgoing],
        clock: Clock,
        *,
        demo: bool,
        on_shown: Callable[[Shown], None] = lambda _: None,
        on_fault: Callable[[str, BaseException], None] = lambda *_: None,
    ) -> None:
        self.frames: Slot[Incoming] = Slot()
        self._make_avatar = make_avatar
        self._out = out
        self._clock = clock
        self._demo = demo
        self._on_shown = on_shown
        self._on_fault = on_fault
        self._stop = threading.Event()
        self._sequence = 0
        self.avatar: Avatar | None = None
        self.camera_size_px: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="avatar-worker", daemon=True)

    def start(self) -> None:
        """Begin; the avatar is built in the worker, so that a call's start does not stall other calls."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits a moment for the frame in work."""
        self._stop.set()
        self.frames.close()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            avatar = self.avatar = self._make_avatar()
        except Exception as error:
            logger.error("the avatar could not be prepared", exc_info=error)
            self._on_fault("prepared", error)
            return
        try:
            if self._demo:
                self._play_demo(avatar)
            else:
                self._follow_camera(avatar)
        finally:
            avatar.close()

    def _follow_camera(self, avatar: Avatar) -> None:
        last_pts, last_at_s = 0, time.monotonic()
        ahead: int | None = None
        while not self._stop.is_set():
            incoming = self.frames.take(IDLE_AFTER_S if self._recent(last_at_s) else 1 / IDLE_FPS)
            if self._stop.is_set():
                return
            try:
                idle_pts = last_pts + round((time.monotonic() - last_at_s) * VIDEO_CLOCK_HZ)
                if incoming is None:
                    self._deliver(avatar.step_idle(idle_pts / VIDEO_CLOCK_HZ, self._sequence), idle_pts, None)
                    continue
                if ahead is None:
                    # a camera that comes late starts at 0: its time goes on where idle life has got to
                    ahead = idle_pts - incoming.pts if self._sequence else 0
                incoming = replace(incoming, pts=incoming.pts + ahead)
                last_pts, last_at_s = incoming.pts, time.monotonic()
                self._deliver(avatar.step(self._decode(incoming)), incoming.pts, incoming.capture_ms)
            except Exception as error:  # the loop is sacred: whatever one frame does, the next one is tried
                logger.error("a frame failed", exc_info=error)
                self._on_fault("decoded", error)

    @staticmethod
    def _recent(last_at_s: float) -> bool:
        return time.monotonic() - last_at_s < IDLE_AFTER_S

    def _decode(self, incoming: Incoming) -> Frame:
        image = rgb_of(incoming.frame)
        self.camera_size_px = (image.shape[1], image.shape[0])
        captured_ns = incoming.received_ns
        if incoming.capture_ms is not None:
            # the browser's wall clock, only as a stamp for people on the same computer: never after arrival
            age_ms = self._clock.wall_ms() - incoming.capture_ms
            captured_ns = min(incoming.received_ns, self._clock.now_ns() - round(age_ms * 1e6))
        trace = LatencyTrace(
            {"captured": captured_ns, "received": incoming.received_ns, "decoded": self._clock.now_ns()}
        )
        return Frame(image, incoming.pts / VIDEO_CLOCK_HZ, captured_ns, trace, self._sequence)

    def _play_demo(self, avatar: Avatar) -> None:
        track = demo_track()
        neutral = track.neutral or track.motions[0]
        pacer = Pacer(DEMO_FPS, self._clock)
        start_ns = self._clock.now_ns()
        empty = np.zeros((2, 2, 3), np.uint8)
        while not self._stop.is_set():
            due_ns = pacer.wait()
            time_s = (due_ns - start_ns) / 1e9
            motion = looped(track, time_s)
            capture_ms = self._clock.wall_ms()
            frame = Frame(
                empty, time_s, due_ns, LatencyTrace({"captured": self._clock.now_ns()}), self._sequence
            )
            shown = avatar.show_drive(Drive(motion, neutral, "tracking", face=True), frame)
            self._deliver(shown, round(time_s * VIDEO_CLOCK_HZ), capture_ms)

    def _deliver(self, shown: Shown, pts: int, capture_ms: float | None) -> None:
        outgoing = Outgoing(
            frame=video_frame_of(shown.frame.image, pts),
            pts=pts,
            capture_ms=capture_ms,
            trace=shown.frame.trace,
            state=shown.drive.state,
            face=shown.drive.face,
            sequence=self._sequence,
        )
        self._sequence += 1
        self._on_shown(shown)
        self._out.put(outgoing)
