"""The threads of a session: newest frame in, newest picture out, never blocking the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import av

from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, Pacer
from streamer.drive.demo import demo_track, looped
from streamer.drive.driver import Drive
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.pipeline import TrackThenDraw
from streamer.slot import Slot
from streamer.sources.thinning import Thinning
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.call_sound import CallSound
from streamer.webrtc.media import Outgoing, rgb_of, video_frame_of

logger = logging.getLogger(__name__)

DEMO_FPS = 30.0
STOP_WITHIN_S, STOP_STEP_S = 1.0, 0.02
# So many avatars are made at once: browsers that come and go at once leave no heap of threads that all work.
_preparing = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded camera frame as it came off the wire."""

    frame: av.VideoFrame
    pts: int
    received_ns: int
    capture_ms: float | None
    captured_ns: float | None = None  # by the call's `MediaClock`


@dataclass(frozen=True, slots=True)
class _Note:
    """What goes with a driving moment from its decoding to its answer.

    `capture_ms`: of a camera the browser's wall clock at capture; of sound, whose capture nobody tells, this
    computer's when the moment was in the air, as far as its arrival tells. `captured_ns`: the same by the call's
    `MediaClock`.
    """

    capture_ms: float | None = None
    camera_size_px: tuple[int, int] | None = None
    captured_ns: float | None = None


class Worker:
    """Runs one avatar in two threads of its own: one tracks, the other draws (only that one for the demo).

    Everything heavy in them releases the GIL (OpenCV, MediaPipe, OpenVINO).
    """

    def __init__(
        self,
        make_avatar: Callable[[], Avatar],
        out: Broadcast,
        clock: Clock,
        *,
        demo: bool = False,
        sound: CallSound | None = None,
        on_shown: Callable[[Shown], None] = lambda _: None,
        on_dropped: Callable[[], None] = lambda: None,
        on_fault: Callable[[str, BaseException], None] = lambda *_: None,
    ) -> None:
        """`sound`: drives instead of a camera. `on_dropped`: a tracked frame was replaced before it was drawn.

        Callbacks come from the worker's threads.
        """
        self.frames: Slot[Incoming] = Slot()
        self._thinning = Thinning()
        self._make_avatar = make_avatar
        self._out = out
        self._clock = clock
        self._demo = demo
        self._sound = sound
        self._on_shown = on_shown
        self._on_dropped = on_dropped
        self._on_fault = on_fault
        self._stop = threading.Event()
        self._awake = threading.Event()
        self._awake.set()
        self._pipeline: TrackThenDraw[_Note] | None = None
        self._taken = self._given = 0
        self.avatar: Avatar | None = None
        self.camera_size_px: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._run, name="avatar", daemon=True)

    def offer(self, incoming: Incoming) -> int:
        """The newest camera frame, unless the camera is quicker than is worth drawing; how many gave way to it."""
        self._thinning = self._thinning.after(incoming.pts * 1_000_000_000 // VIDEO_CLOCK_HZ)
        return int(self.frames.put(incoming)) if self._thinning.keeps else 0

    def start(self) -> None:
        """Begin; the avatar is built in the worker, so that a call's start does not stall other calls."""
        self._thread.start()

    @property
    def resting(self) -> bool:
        """Whether nothing is tracked or drawn for now."""
        return not self._awake.is_set()

    def rest(self, resting: bool) -> None:
        """Track and draw nothing for as long as that: nobody looks. Time goes on."""
        if resting:
            self._awake.clear()
        else:
            self._awake.set()

    async def stop(self) -> None:
        """End the threads; waits a little for the frames in work, in no thread: those that there are encode."""
        self._stop.set()
        self._awake.set()
        if self._pipeline is not None:
            self._pipeline.stop()
        self.frames.close()
        if self._sound is not None:
            self._sound.close()
        for _ in range(round(STOP_WITHIN_S / STOP_STEP_S)):
            if not self._thread.is_alive():
                break
            await asyncio.sleep(STOP_STEP_S)

    def _run(self) -> None:
        try:
            with _preparing:
                if self._stop.is_set():  # the browser has gone already
                    return
                avatar = self.avatar = self._make_avatar()
        except Exception as error:
            logger.error("the avatar could not be prepared", exc_info=error)
            self._on_fault("prepared", error)
            return
        try:
            if self._demo:
                self._play_demo(avatar)
            else:
                self._follow(avatar)
        finally:
            avatar.close()
            # let go now: a call is full of circles, and they may wait for minutes to be collected
            self.avatar = self._pipeline = None

    def _follow(self, avatar: Avatar) -> None:
        pipeline = self._pipeline = TrackThenDraw[_Note](
            avatar,
            self._clock,
            take=self._take,
            give=self._deliver,
            on_dropped=self._on_dropped,
            on_fault=self._failed,
        )
        if self._stop.is_set():  # told while the avatar was made
            pipeline.stop()
        pipeline.run()

    def _failed(self, stage: str, error: Exception) -> None:
        # the loop is sacred: whatever one frame does, the next one is tried
        logger.error("a frame failed", exc_info=error)
        self._on_fault(stage, error)

    def _take(self, timeout_s: float) -> tuple[Moment, _Note] | None:
        self._awake.wait()
        if self._sound is not None:
            heard = self._sound.read(timeout_s)
            if heard is None:
                return None
            age_ms = (self._clock.now_ns() - heard.capture_time_ns) / 1e6
            return heard, _Note(self._clock.wall_ms() - age_ms, captured_ns=heard.capture_time_ns)
        incoming = self.frames.take(timeout_s)
        return None if incoming is None else self._decode(incoming)

    def _decode(self, incoming: Incoming) -> tuple[Frame, _Note]:
        image = rgb_of(incoming.frame)
        captured_ns = incoming.received_ns
        if incoming.capture_ms is not None:
            # the browser's wall clock, only as a stamp for people on the same computer: never after arrival
            age_ms = self._clock.wall_ms() - incoming.capture_ms
            captured_ns = min(incoming.received_ns, self._clock.now_ns() - round(age_ms * 1e6))
        trace = LatencyTrace(
            {"captured": captured_ns, "received": incoming.received_ns, "decoded": self._clock.now_ns()}
        )
        frame = Frame(incoming.pts / VIDEO_CLOCK_HZ, captured_ns, trace, self._taken, image=image)
        self._taken += 1
        return frame, _Note(incoming.capture_ms, (image.shape[1], image.shape[0]), incoming.captured_ns)

    def _play_demo(self, avatar: Avatar) -> None:
        track = demo_track()
        neutral = track.neutral or track.motions[0]
        pacer = Pacer(DEMO_FPS, self._clock)
        start_ns = self._clock.now_ns()
        while not self._stop.is_set():
            self._awake.wait()
            due_ns = pacer.wait()
            time_s = (due_ns - start_ns) / 1e9
            motion = looped(track, time_s)
            capture_ms = self._clock.wall_ms()
            trace = LatencyTrace({"captured": self._clock.now_ns()})
            moment = Moment(time_s, due_ns, trace, self._given)
            shown = avatar.show_drive(Drive(motion, neutral, "tracking", face=True), moment)
            self._send(shown, capture_ms)

    def _deliver(self, shown: Shown, note: _Note | None) -> None:
        if note is not None and note.camera_size_px is not None:
            self.camera_size_px = note.camera_size_px
        note = note or _Note()
        heard_ns = shown.drive.heard_ns
        self._send(shown, note.capture_ms, note.captured_ns if heard_ns is None else heard_ns)

    def _send(self, shown: Shown, capture_ms: float | None, moved_by_ns: float | None = None) -> None:
        pts = round(shown.frame.pts_s * VIDEO_CLOCK_HZ)
        outgoing = Outgoing(
            frame=video_frame_of(shown.frame.image, pts),
            pts=pts,
            capture_ms=capture_ms,
            trace=shown.frame.trace,
            state=shown.drive.state,
            face=shown.drive.face,
            sequence=self._given,
            moved_by_ns=moved_by_ns,
        )
        self._given += 1
        self._on_shown(shown)
        self._out.put(outgoing)
