"""`TrackThenDraw`: tracking and drawing in two threads, so that one moment is tracked while another is drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from streamer.avatar import Avatar, Driven, Shown
from streamer.clock import Clock
from streamer.drive.idle import IDLE_AFTER_S, IDLE_FPS
from streamer.frame import Moment
from streamer.slot import Slot

NoteT = TypeVar("NoteT")

# how long the drawing thread sleeps through the end of the moments; a new one wakes it at once
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class _Between(Generic[NoteT]):
    driven: Driven
    note: NoteT | None


def _never() -> bool:
    return False


class TrackThenDraw(Generic[NoteT]):
    """Moments through one avatar: the tracking thread follows the face, the drawing thread makes the picture.

    One slot lies between them. The newest moment wins there too, so a picture is never made of an old one, and
    drawing begins as soon as it is tracked. The driver is used by the tracking thread alone, the
    renderer by the drawing thread alone.
    """

    def __init__(
        self,
        avatar: Avatar,
        clock: Clock,
        *,
        take: Callable[[float], tuple[Moment, NoteT] | None],
        give: Callable[[Shown, NoteT | None], None],
        on_dropped: Callable[[], None],
        on_fault: Callable[[str, Exception], None],
        ended: Callable[[], bool] = _never,
        idles: bool = True,
    ) -> None:
        """How moments come and go; all but `give` are called by the tracking thread, `on_fault` by both.

        - `take(timeout_s)`: the newest moment and a note that travels with it, or None when none came in time;
        - `give(shown, note)`: a picture; the note is None for one that no moment asked for;
        - `on_dropped()`: a tracked moment was replaced before it was drawn;
        - `on_fault(stage, error)`: what neither the driver nor the avatar had an answer to; the next moment is
          tried, unless `stop` is called;
        - `ended()`: True when no moment will come any more: the last ones are drawn, then `run` returns;
        - `idles`: whether missing ones are made up for by idle life.
        """
        self._avatar = avatar
        self._clock = clock
        self._take = take
        self._give = give
        self._on_dropped = on_dropped
        self._on_fault = on_fault
        self._ended = ended
        self._idles = idles
        self._between: Slot[_Between[NoteT]] = Slot()
        self._stop = threading.Event()
        self._all_tracked = threading.Event()

    @property
    def dropped(self) -> int:
        """How many tracked moments were replaced before they were drawn."""
        return self._between.dropped

    def stop(self) -> None:
        """End soon, from any thread; `run` returns when the moments in work are done."""
        self._stop.set()
        self._between.close()

    def run(self) -> None:
        """Track in this thread and draw in another one until `stop` or the end of the moments; joins it."""
        drawing = threading.Thread(target=self._draw_all, name="drawing", daemon=True)
        drawing.start()
        try:
            self._track_all()
        finally:
            self._all_tracked.set()
            drawing.join()

    def _track_all(self) -> None:
        last_s, last_ns = 0.0, self._clock.now_ns()
        count = 0
        ahead_s: float | None = None
        while not self._stop.is_set():
            ended = self._ended()  # asked first: the last moment may come right after
            stage = "decoded"
            try:
                taken = self._take(1 / IDLE_FPS)
                if self._stop.is_set() or (taken is None and ended):
                    return
                stage = "tracked"
                quiet_s = (self._clock.now_ns() - last_ns) / 1e9
                note: NoteT | None = None
                if taken is not None:
                    moment, note = taken
                    if ahead_s is None:
                        # a camera that comes late starts at 0: its time goes on where idle life has got to
                        ahead_s = last_s + quiet_s - moment.pts_s if count else 0.0
                    if ahead_s:
                        moment = replace(moment, pts_s=moment.pts_s + ahead_s)
                    last_s, last_ns = moment.pts_s, self._clock.now_ns()
                    driven = self._avatar.track(moment)
                elif self._idles and quiet_s >= IDLE_AFTER_S:
                    driven = self._avatar.track_idle(last_s + quiet_s, count)
                else:
                    continue
                count += 1
                if self._between.put(_Between(driven, note)):
                    self._on_dropped()
            except Exception as error:
                self._on_fault(stage, error)

    def _draw_all(self) -> None:
        while not self._stop.is_set():
            done = self._all_tracked.is_set()  # asked first: the last moment may come right after
            between = self._between.take(_LOOK_AGAIN_S)
            if between is None:
                if done:
                    return
                continue
            stage = "generated"
            try:
                moment = between.driven.moment.mark("waited", self._clock.now_ns())
                shown = self._avatar.show_drive(between.driven.drive, moment)
                stage = "encoded"
                self._give(shown, between.note)
            except Exception as error:
                self._on_fault(stage, error)
