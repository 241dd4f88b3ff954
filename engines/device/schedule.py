"""`Schedule`: which calls are drawn together, and when. Pure: it is told the time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Call = TypeVar("Call", bound=Hashable)
Frame = TypeVar("Frame")


class Schedule(Generic[Call, Frame]):
    """Frames wait for those of other calls, but never longer than `wait_ns`, and not at all once every call that is
    there has one, or there are `most`. Of one call the newest is drawn. Those that wait longest are drawn first."""

    def __init__(self, most: int, wait_ns: int) -> None:
        self._most, self._wait_ns = most, wait_ns
        self._calls: set[Call] = set()
        self._waiting: dict[Call, tuple[int, Frame]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, call: Call) -> None:
        """A call is there: others wait for it."""
        self._calls.add(call)

    def leave(self, call: Call) -> Frame | None:
        """A call has gone; the frame that it will not see."""
        self._calls.discard(call)
        gone = self._waiting.pop(call, None)
        return None if gone is None else gone[1]

    def ask(self, call: Call, frame: Frame, now_ns: int) -> Frame | None:
        """A frame is to be drawn; the older one of the same call, which is not drawn any more. It keeps that one's
        place: who asks often does not wait longer."""
        older = self._waiting.get(call)
        self._waiting[call] = (now_ns if older is None else older[0], frame)
        return None if older is None else older[1]

    def due_ns(self) -> int | None:
        """When the next are to be drawn, if nothing else comes; None: nothing waits."""
        if not self._waiting:
            return None
        oldest = min(since for since, _ in self._waiting.values())
        together = len(self._waiting) >= min(self._most, len(self._calls | self._waiting.keys()))
        return oldest if together else oldest + self._wait_ns

    def take(self, now_ns: int) -> dict[Call, Frame]:
        """The frames that are drawn now, at most `most`; they wait no more."""
        due_ns = self.due_ns()
        if due_ns is None or now_ns < due_ns:
            return {}
        first = sorted(self._waiting, key=lambda call: self._waiting[call][0])[: self._most]
        return {call: self._waiting.pop(call)[1] for call in first}
