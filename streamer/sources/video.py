"""`VideoSource`: a video file as frames, as fast as they are read or each at its time."""

from __future__ import annotations

import threading
from pathlib import Path

from streamer.clock import Clock, SystemClock
from streamer.frame import Frame, LatencyTrace
from streamer.sources.source import Source, SourceInfo, SourceState
from streamer.sources.video_reading import Picture, VideoReading


class VideoSource(Source):
    """A video file: RGB frames upright, with square pixels and exact times; variable rates are kept.

    `realtime` delivers each frame at its time and drops nothing itself; otherwise frames come as fast as
    they are read. `loop` starts over for ever with times going on. Damaged places are skipped up to the
    next key frame and a missing end is taken as the end; `damage` (also in `notices`) then says so.
    `quarter_turns`: pictures are turned so often clockwise on top of what the file says
    (`streamer/sources/orientation.py` finds out).
    Raises DriverError when there is no video in the file that can be decoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        loop: bool = False,
        realtime: bool = False,
        quarter_turns: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._quarter_turns = quarter_turns
        self._loop = loop
        self._realtime = realtime
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._damage: str | None = None
        self._final: tuple[str, ...] | None = None
        self._state = SourceState.READY
        self._start_ns: int | None = None
        self._sequence = 0
        self._reading = VideoReading(path, None, quarter_turns)
        first = self._reading.first
        self._pending: Picture | None = first
        # Maps the reading's own time to ours; moves on with every loop.
        self._shift_s = -first.time_s
        self._end_s = 0.0
        duration_s = self._reading.duration_s
        self._info = SourceInfo(
            size_px=(first.image.shape[1], first.image.shape[0]),
            fps=self._reading.fps,
            is_live=False,
            duration_s=None if loop else duration_s,
            has_audio=self._reading.has_audio,
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
        return self._damage or self._reading.damage

    @property
    def notices(self) -> tuple[str, ...]:
        """What is wrong with the file or cannot be used of it, once each."""
        rest = self._final
        if rest is None:
            said = [*self._reading.notices, *([self._damage] if self._damage else [])]
            rest = tuple(dict.fromkeys(said))
        turned = turned_notice(self._path.name, self._quarter_turns)
        return (turned, *rest) if turned else rest

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
        frame = Frame(pts_s, captured_ns, trace, self._sequence, image=picture.image)
        self._sequence += 1
        return frame

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._finish()

    def _next(self) -> Picture | None:
        picture, self._pending = self._pending, None
        picture = picture or self._reading.next()
        if picture is not None:
            return picture
        if not self._loop:
            self._final = self._reading.final_notices()
            return None
        self._damage = self._damage or self._reading.damage
        self._reading.close()
        self._reading = VideoReading(self._path, self._reading.matrix, self._quarter_turns)
        self._shift_s = self._end_s - self._reading.start_s
        return self._reading.first

    def _finish(self) -> None:
        self._state = SourceState.ENDED
        self._pending = None
        self._reading.close()

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


def turned_notice(name: str, quarter_turns: int) -> str | None:
    """What to tell of a video that is turned clockwise; None where it is not."""
    if quarter_turns % 4 == 0:
        return None
    how = "is upside down" if quarter_turns % 4 == 2 else "lies on its side"
    angle = {1: "90° clockwise", 2: "180°", 3: "90° counter-clockwise"}[quarter_turns % 4]
    return f"the face in {name} {how}; the video was turned by {angle}"
