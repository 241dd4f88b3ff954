"""`run`: camera, microphone or file → avatar → sink, live. One slot between the stages; the newest wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, Pacer
from streamer.curtain import Curtain
from streamer.drive.posture import Posture
from streamer.drive.rest_notices import RestNotices
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.latency.ledger import Ledger
from streamer.pipeline import TrackThenDraw
from streamer.sinks.sink import Sink, SinkClosed, SinkInfo
from streamer.slot import Slot
from streamer.sources.source import Source, SourceState


class SoundBeside(Protocol):
    """Sound that leaves with the pictures."""

    def sent(self, trace: LatencyTrace) -> None:
        """A picture has left."""
        ...

    def skew_ms(self, trace: LatencyTrace) -> float | None:
        """How much later than its sound a picture that has left is seen (> 0), or sooner; None without sound."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What to tell the user."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    frames: int
    seconds: float
    dropped: int
    notice: str | None = None


class LiveLoop:
    """Four threads: capture (reads the source), tracking, drawing, and the caller's, which writes.

    Nothing waits for anything slower than itself: capture overwrites moments that nobody tracked, tracking those
    that nobody drew, drawing pictures that nobody wrote, and the sink repeats its last picture rather than stop.
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
        say: Callable[[str], None] | None = None,
        sound: SoundBeside | None = None,
        curtain: Curtain | None = None,
    ) -> None:
        """How the loop ends in `sink`.

        - `repeat`: the sink wants a steady rate (virtual camera, window), so the last picture is repeated;
        - `sound`: told of each picture that leaves, so that it is heard with it;
        - `curtain`: what leaves in the avatar's place, when the user wants it so;
        - `say`: told each notice of the source once, when it comes up, by the thread that writes.
        """
        self._source = source
        self._avatar = avatar
        self._sink = sink
        self._ledger = ledger
        self._clock = clock
        self._repeat = repeat
        self._say = say
        self._sound = sound
        self._curtain = curtain or Curtain(lambda: avatar.still)
        self._said: set[str] = set()
        self._posture = Posture()
        self._rest = RestNotices()
        # a file was turned upright before
        self._watches_posture = source.info.is_live and source.info.size_px is not None
        self._watches_rest = self._watches_posture or source.info.tells_motion
        self._fps = min(max(source.info.fps, 5.0), 60.0)
        self._moments: Slot[Moment] = Slot()
        self._pictures: Slot[Frame] = Slot()
        self._pipeline = TrackThenDraw[None](
            avatar,
            clock,
            take=self._take,
            give=self._give,
            on_dropped=lambda: ledger.dropped(stage="fitted"),
            on_fault=self._broken,
            ended=lambda: self._ended.is_set(),
            idles=source.info.is_live,
        )
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._count = 0
        self._ended = threading.Event()
        self._pictures_done = threading.Event()

    def stop(self) -> None:
        """End the run from any thread."""
        self._stop.set()
        self._pipeline.stop()
        self._moments.close()
        self._pictures.close()

    def run(self, on_frame: Callable[[int], None] = lambda _: None) -> Outcome:
        """Until the source ends, the sink is closed by its user, or `stop`. Raises what the sink raises."""
        width, height = self._avatar.size_px
        self._sink.open(SinkInfo(width, height, self._fps))
        threads = [
            threading.Thread(target=self._capture, name="capture", daemon=True),
            threading.Thread(target=self._answer, name="tracking", daemon=True),
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
        dropped = self._moments.dropped + self._pipeline.dropped + self._pictures.dropped
        notices = [n for n in (self._avatar.notice, *self._notices()) if n and n not in self._said]
        return Outcome(self._count, seconds, dropped, "; ".join(notices) or None)

    def _capture(self) -> None:
        try:
            while not self._stop.is_set() and self._source.state is not SourceState.ENDED:
                moment = self._source.read(timeout_s=0.1)
                if moment is None:
                    continue
                self._curtain.captured(moment)
                if self._moments.put(moment):
                    self._ledger.dropped(stage="tracked")
        except Exception as error:
            self._error = error  # raised to the caller, once what was captured has been shown
        finally:
            self._ended.set()

    def _answer(self) -> None:
        try:
            self._pipeline.run()
        finally:
            self._pictures_done.set()

    def _take(self, timeout_s: float) -> tuple[Moment, None] | None:
        moment = self._moments.take(timeout_s)
        return None if moment is None else (moment, None)

    def _give(self, shown: Shown, _: None) -> None:
        if self._watches_rest and self._source.state is SourceState.READY:
            seen = shown.drive.motion if shown.drive.face else None
            if self._watches_posture:
                self._posture = self._posture.after(seen, shown.frame.pts_s)
            if seen is not None:
                self._rest = self._rest.after(self._avatar.driver.neutral_report, shown.frame.pts_s)
        if self._pictures.put(shown.frame):
            self._ledger.dropped(stage="sent")

    def _broken(self, _: str, error: Exception) -> None:
        """What no fallback foresaw ends the run and is raised to the caller."""
        self._error = error
        self._pipeline.stop()

    def _notices(self) -> tuple[str, ...]:
        posture = self._posture.notice
        heard = self._sound.notices if self._sound else ()
        return (*self._source.notices, *heard, *([posture] if posture else []))

    def _tell(self) -> None:
        # what is asked of a person is of no use once the run is over: it is no part of the outcome
        for notice in (*self._notices(), *self._rest.said) if self._say else ():
            if self._say and notice not in self._said:
                self._said.add(notice)
                self._say(notice)

    def _deliver(self, on_frame: Callable[[int], None]) -> None:
        pacer = Pacer(self._fps, self._clock)
        last: Frame | None = None
        while not self._stop.is_set():
            self._tell()
            done = self._pictures_done.is_set()  # asked first: the last picture may come right after
            if self._repeat:
                pacer.wait()
                picture = self._pictures.take(0 if last is not None else 0.5)
            else:
                picture = self._pictures.take(0.2)
            if picture is None and done:
                break
            picture = self._curtain.chosen(picture)
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
            skew_ms: float | None = None
            if fresh and self._sound:
                self._sound.sent(sent.trace)
                skew_ms = self._sound.skew_ms(sent.trace)
            self._ledger.frame(
                sent.trace, sequence=sent.sequence, pts_s=sent.pts_s, fresh=fresh, skew_ms=skew_ms
            )
            on_frame(self._count)
