"""`UploadPlaces`: how many pictures arrive or wait at once, and which slow one makes room for the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from streamer.serve.aside import RETRY_AFTER, WAITING

MOST_UPLOADS_AT_ONCE = 1 + WAITING  # each is in memory, `max_photo_mb` of it
PACE_BYTES_PER_S = 64 << 10  # half a Mbit/s, on the average
GRACE_S = 5.0  # nobody is judged before


class UploadPlace:
    """One picture's place. Event-loop only."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.came_bytes = 0
        self.whole = False  # from then on it is the server's turn
        self._waiting: asyncio.Timeout | None = None
        self._lost = False

    def pace(self, now_s: float) -> float:
        """Bytes a second so far."""
        return self.came_bytes / max(now_s - self.began_s, 1e-3)

    def receiving(self, receive: Receive) -> Receive:
        """`receive` that raises HTTPException 503 once another has the place."""

        async def receive_here() -> Message:
            try:
                async with asyncio.timeout(None) as self._waiting:
                    self._end_wait()
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    503, "the picture came too slowly while others waited; send a smaller one", RETRY_AFTER
                ) from None
            finally:
                self._waiting = None
            self.came_bytes += len(message.get("body", b""))
            self.whole = self.whole or not message.get("more_body", False)
            return message

        return receive_here

    def lose(self) -> None:
        """Another has it: who waits for more of the picture hears so now."""
        self._lost = True
        self._end_wait()

    def _end_wait(self) -> None:
        if self._lost and self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())


class UploadPlaces:
    """The places of one server. Event-loop only.

    Where all are taken, the slowest picture under `PACE_BYTES_PER_S` goes for a new one: `Connections` lets a slow
    line take hours, which is as long as nobody else wants its place.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._taken: set[UploadPlace] = set()

    def take(self) -> UploadPlace | None:
        """A place for a picture that begins to arrive, or None; it is to be left."""
        now_s = self._now_s()
        if len(self._taken) >= MOST_UPLOADS_AT_ONCE:
            slow = [
                place
                for place in self._taken
                if not place.whole
                and now_s - place.began_s >= GRACE_S
                and place.pace(now_s) < PACE_BYTES_PER_S
            ]
            if not slow:
                return None
            slowest = min(slow, key=lambda place: place.pace(now_s))
            slowest.lose()
            self.leave(slowest)
        place = UploadPlace(now_s)
        self._taken.add(place)
        return place

    def leave(self, place: UploadPlace) -> None:
        """It is free, if it was not before."""
        self._taken.discard(place)
