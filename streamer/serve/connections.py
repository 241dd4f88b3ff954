"""`Connections`: who is connected, how long each may keep the server waiting, and who goes when there are too many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

MOST_CONNECTIONS = 256
WAIT_S = 8.0  # two such waits and a sweep stay under 20 s
BODY_STEP_BYTES = 16 << 10  # what a body must grow by in `WAIT_S`: 16 kbit/s


class Phase(IntEnum):
    """What a connection is at."""

    HELLO = 0  # TLS' handshake
    HEAD = 1  # between requests, or in the head of one
    ENDING = 2  # answered: what is left of a body, or of the answer
    ANSWER = 3  # the client does not read
    BODY = 4
    WORK = 5  # the server's turn, and so never too long

    @property
    def worth(self) -> int:
        """Where room is needed, those of the lowest go first. Until a client has asked for something, age decides."""
        return max(self, Phase.ENDING)


@dataclass(frozen=True, slots=True)
class Stage:
    """How far a connection is. `progress` grows as the client does its part."""

    phase: Phase
    progress: int = 0


@dataclass(slots=True, eq=False)
class Connection:
    """One client. `look` says where it is, `drop` ends it at once; it is at `stage` since `since_s`."""

    drop: Callable[[], None]
    since_s: float
    stage: Stage = Stage(Phase.HELLO)
    look: Callable[[], Stage] | None = None

    def update(self, now_s: float) -> None:
        """Look where it is now."""
        stage = self.look() if self.look is not None else self.stage
        if stage != self.stage:
            self.stage, self.since_s = stage, now_s


class Connections:
    """Those that are open, by file descriptor. Not by address: all of one computer, or of one house, have the same.

    One that makes no progress for `WAIT_S` while the server waits for it ends; and where `limit` are open, the
    one that has kept the server waiting longest goes for a new one. Event-loop only.
    """

    def __init__(self, limit: int = MOST_CONNECTIONS, now_s: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now_s = now_s
        self._open: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, descriptor: int, drop: Callable[[], None]) -> bool:
        """Whether there is room, or some can be made, for one that `drop` would end."""
        if len(self._open) >= self._limit and not self._make_room():
            return False
        self._open[descriptor] = Connection(drop, self._now_s())
        return True

    def follow(self, descriptor: int, look: Callable[[], Stage], drop: Callable[[], None]) -> None:
        """From now on `look` says where it is: what comes before HTTP is done."""
        connection = self._open.get(descriptor)
        if connection is not None:
            connection.look, connection.drop = look, drop
            connection.update(self._now_s())

    def forget(self, descriptor: int) -> None:
        """It is closed."""
        self._open.pop(descriptor, None)

    def sweep(self) -> None:
        """End those that have kept the server waiting for too long."""
        now_s = self._now_s()
        for connection in list(self._open.values()):
            connection.update(now_s)
            if connection.stage.phase is not Phase.WORK and now_s - connection.since_s >= WAIT_S:
                connection.drop()

    def _make_room(self) -> bool:
        now_s = self._now_s()
        for connection in self._open.values():
            connection.update(now_s)
        idle = [(d, c) for d, c in self._open.items() if c.stage.phase is not Phase.WORK]
        if not idle:
            return False
        # of several that are the same `min` takes the first, which is the one that came first
        descriptor, connection = min(idle, key=lambda found: (found[1].stage.phase.worth, found[1].since_s))
        del self._open[descriptor]
        connection.drop()
        return True
