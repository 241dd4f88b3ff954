"""`Together`: the thread that draws all calls of one kind on one device, as many at once as `Schedule` says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from engines.device.batch import Batch
from engines.device.drawing import Drawing
from engines.device.schedule import Schedule
from engines.errors import EngineError, brief

U8 = NDArray[np.uint8]
Asked = tuple[U8, "Future[U8 | None]"]


class Together:
    """Any thread may ask. All that touches the device is done by its own thread, which ends with the last call.

    A fault ends it: every frame that waits, and every later one, raises EngineError with the reason.
    """

    def __init__(
        self,
        batch: Callable[[], Batch],
        *,
        most: int,
        wait_ns: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`batch` is called in the thread."""
        self._make, self._clock_ns = batch, clock_ns
        self._schedule: Schedule[int, Asked] = Schedule(most, wait_ns)
        self._changed = threading.Condition()
        self._entering: list[tuple[int, Drawing, Future[None]]] = []
        self._leaving: list[int] = []
        self._calls = 0
        self._number = 0
        self._fault: str | None = None
        self._drawing: dict[int, Asked] = {}  # those that are being drawn
        self._thread: threading.Thread | None = None

    @property
    def calls(self) -> int:
        """How many there are."""
        return self._calls

    @property
    def broken(self) -> bool:
        """Whether a fault has ended it."""
        return self._fault is not None

    @property
    def waiting(self) -> int:
        """How many frames wait to be drawn."""
        with self._changed:
            return len(self._schedule)

    def enter(self, drawing: Drawing) -> tuple[int, Future[None]]:
        """A call comes: its number, and when it can be drawn; before that nothing may be asked. Raises EngineError."""
        entered: Future[None] = Future()
        with self._changed:
            self._require()
            self._number, self._calls = self._number + 1, self._calls + 1
            self._entering.append((self._number, drawing, entered))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="device drawing", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._number, entered

    def leave(self, number: int) -> None:
        """A call goes; a frame of it that waits raises EngineError. Also from a finaliser, in whatever thread."""
        with self._changed:
            self._calls -= 1
            self._leaving.append(number)
            self._changed.notify_all()

    def draw(self, number: int, frame: U8, timeout_s: float = 10.0) -> U8 | None:
        """The picture of a packed frame; None: it is for the CPU. Raises EngineError."""
        drawn: Future[U8 | None] = Future()
        with self._changed:
            self._require()
            older = self._schedule.ask(number, (frame, drawn), self._clock_ns())
            self._changed.notify_all()
        if older is not None:
            older[1].set_exception(EngineError("a newer frame was asked for"))
        try:
            return drawn.result(timeout_s)
        except TimeoutError:
            raise EngineError(f"the GPU has not answered for {timeout_s:.0f} s") from None

    def _require(self) -> None:
        if self._fault is not None:
            raise EngineError(self._fault)

    def _work(self) -> None:
        rows: dict[int, int] = {}
        batch: Batch | None = None
        try:
            while True:
                with self._changed:
                    frames = self._next()
                    entering, self._entering = self._entering, []
                    leaving, self._leaving = self._leaving, []
                    if not (self._calls or entering or frames or leaving):
                        self._thread = None
                        return
                batch = batch or self._make()
                if entering or leaving:
                    self._let(batch, rows, entering, leaving)
                if frames:
                    shown = batch.draw({rows[n]: frame for n, (frame, _) in frames.items() if n in rows})
                    for n, (_, drawn) in frames.items():
                        if n in rows:
                            drawn.set_result(shown[rows[n]])
                        else:
                            drawn.set_exception(EngineError("the call has ended"))
                    self._drawing = {}
        except Exception as error:
            self._end(brief(error))

    def _next(self) -> dict[int, Asked]:
        """Wait until frames are due, or calls come or go; the frames."""
        while True:
            if self._entering or self._leaving or not self._calls:
                return {}
            now_ns = self._clock_ns()
            frames = self._schedule.take(now_ns)
            if frames:
                self._drawing = frames
                return frames
            due_ns = self._schedule.due_ns()
            self._changed.wait(None if due_ns is None else max(0, due_ns - now_ns) / 1e9)

    def _let(
        self,
        batch: Batch,
        rows: dict[int, int],
        entering: list[tuple[int, Drawing, Future[None]]],
        leaving: list[int],
    ) -> None:
        for number in leaving:
            with self._changed:
                gone = self._schedule.leave(number)
            if gone is not None:
                gone[1].set_exception(EngineError("the call has ended"))
            if number in rows:
                batch.leave(rows.pop(number))
        came: list[Future[None]] = []
        for number, drawing, entered in entering:
            if number in leaving:
                continue
            try:
                rows[number] = batch.enter(drawing)
            except EngineError as error:  # no room: the others go on
                entered.set_exception(error)
                continue
            except Exception:
                self._entering = entering  # all of them are told why
                raise
            with self._changed:
                self._schedule.enter(number)
            came.append(entered)
        try:
            batch.record()
        except Exception:
            self._entering = entering
            raise
        for entered in came:
            entered.set_result(None)

    def _end(self, reason: str) -> None:
        with self._changed:
            self._fault = f"drawing on the GPU failed: {reason}"
            waiting = [drawn for _, drawn in self._drawing.values()]
            waiting += [
                entry[1] for entry in (self._schedule.leave(n) for n in range(self._number + 1)) if entry
            ]
            entering, self._entering = self._entering, []
        for drawn in waiting:
            if not drawn.done():
                drawn.set_exception(EngineError(self._fault))
        for _, _, entered in entering:
            if not entered.done():
                entered.set_exception(EngineError(self._fault))
