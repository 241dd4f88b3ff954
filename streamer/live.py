"""`run`: camera or video → avatar → sink, live. One slot between the stages; the newest frame wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from engines.frame import Frame
from streamer.avatar import Avatar
from streamer.clock import Clock, Pacer
from streamer.idle import IDLE_AFTER_S, IDLE_FPS
from streamer.ledger import Ledger
from streamer.sinks.sink import Sink, SinkClosed, SinkInfo
from streamer.slot import Slot
from streamer.sources.source import Source, SourceState


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    frames: int
    seconds: float
    dropped: int
    notice: str | None = None


class LiveLoop:
    """Three threads: capture (reads the source), inference (the avatar), and the caller's, which writes.

    Nothing waits for anything slower than itself: capture overwrites unread frames, inference overwrites
    undelivered pictures, and the sink repeats its last picture rather than stop.
    """

    def __init__(
        self,
        source: Source,
        avatar: Avatar,
        sink: Sink,
        *,
        ledger: Ledger,
        clock: Clock,
        repeat: bool = False,
    ) -> None:
        """`repeat`: the sink wants a steady rate (virtual camera, window), so the last picture is repeated."""
        self._source = source
        self._avatar = avatar
        self._sink = sink
        self._ledger = ledger
        self._clock = clock
        self._repeat = repeat
        self._fps = min(max(source.info.fps, 5.0), 60.0)
        self._frames: Slot[Frame] = Slot()
        self._pictures: Slot[Frame] = Slot()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._count = 0
        self._ended = threading.Event()
        self._pictures_done = threading.Event()

    def stop(self) -> None:
        """End the run from any thread."""
        self._stop.set()
        self._frames.close()
        self._pictures.close()

    def run(self, on_frame: Callable[[int], None] = lambda _: None) -> Outcome:
        """Until the source ends, the sink is closed by its user, or `stop`. Raises what the sink raises."""
        width, height = self._avatar.size_px
        self._sink.open(SinkInfo(width, height, self._fps))
        threads = [
            threading.Thread(target=self._capture, name="capture", daemon=True),
            threading.Thread(target=self._infer, name="inference", daemon=True),
        ]
        start_ns = self._clock.now_ns()
        for thread in threads:
            thread.start()
        try:
            self._deliver(on_frame)
        except SinkClosed:
            pass
        finally:
            self.stop()
            for thread in threads:
                thread.join(timeout=2.0)
        if self._error is not None:
            raise self._error
        seconds = (self._clock.now_ns() - start_ns) / 1e9
        return Outcome(
            self._count, seconds, self._frames.dropped + self._pictures.dropped, self._source.notice
        )

    def _capture(self) -> None:
        try:
            while not self._stop.is_set() and self._source.state is not SourceState.ENDED:
                frame = self._source.read(timeout_s=0.1)
                if frame is not None and self._frames.put(frame):
                    self._ledger.dropped(stage="captured")
        except Exception as error:
            self._error = error  # raised to the caller, once what was captured has been shown
        finally:
            self._ended.set()

    def _infer(self) -> None:
        try:
            self._answer_frames()
        except Exception as error:
            self._error = error
        finally:
            self._pictures_done.set()

    def _answer_frames(self) -> None:
        last_s, last_ns = 0.0, self._clock.now_ns()
        sequence = 0
        while not self._stop.is_set():
            frame = self._frames.take(IDLE_AFTER_S if sequence == 0 else 1 / IDLE_FPS)
            if frame is None and self._ended.is_set():
                break
            if frame is None:
                quiet_s = (self._clock.now_ns() - last_ns) / 1e9
                if quiet_s < IDLE_AFTER_S or not self._source.info.is_live:
                    continue
                shown = self._avatar.step_idle(last_s + quiet_s, sequence)
            else:
                last_s, last_ns = frame.pts_s, self._clock.now_ns()
                shown = self._avatar.step(frame)
            sequence += 1
            if self._pictures.put(shown.frame):
                self._ledger.dropped(stage="composited")

    def _deliver(self, on_frame: Callable[[int], None]) -> None:
        pacer = Pacer(self._fps, self._clock)
        last: Frame | None = None
        while not self._stop.is_set():
            done = self._pictures_done.is_set()  # asked first: the last picture may come right after
            if self._repeat:
                pacer.wait()
                picture = self._pictures.take(0 if last is not None else 0.5)
            else:
                picture = self._pictures.take(0.2)
            if picture is None and done:
                break
            fresh = picture is not None
            if picture is None:
                if not self._repeat or last is None:
                    continue
                picture = last
            self._sink.write(picture)
            self._count += 1
            if fresh:
                last = picture
            sent = picture.mark("sent", self._clock.now_ns())
            self._ledger.frame(sent.trace, sequence=sent.sequence, pts_s=sent.pts_s, fresh=fresh)
            on_frame(self._count)
