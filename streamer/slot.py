"""`Slot`: the only hand-off between stages. It holds one value and the newest wins, so nothing queues up."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class _Empty:
    """Type of the mark for 'nothing here'."""


_EMPTY = _Empty()


class Slot(Generic[T]):
    """One value between a producer and a consumer, each a thread or an asyncio task.

    A `put` replaces a value that nobody has read yet and counts it as dropped. Each value is read at most
    once; with several consumers, one of them gets it. The async side uses no executor thread and leaves
    nothing behind when its task is cancelled: the value stays for the next reader.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._value: T | _Empty = _EMPTY
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many values were overwritten unread."""
        with self._changed:
            return self._dropped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._changed:
            return self._closed

    def put(self, value: T) -> bool:
        """Leave `value` for the consumer, never blocking; True when an unread one was overwritten.

        After `close` the value is discarded and the answer is False.
        """
        with self._changed:
            if self._closed:
                return False
            overwritten = not isinstance(self._value, _Empty)
            self._value = value
            self._dropped += overwritten
            self._wake()
            return overwritten

    def take(self, timeout_s: float | None = None) -> T | None:
        """The newest value, waiting for one up to `timeout_s` (None: without limit; 0: not at all).

        None when the time is up or the slot is closed. Blocks its thread: tasks use `get`.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while isinstance(self._value, _Empty) and not self._closed:
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                self._changed.wait(left_s)
            return self._pop()

    async def get(self, timeout_s: float | None = None) -> T | None:
        """`take` for an asyncio task: awaits without occupying a thread."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with self._changed:
                        if not isinstance(self._value, _Empty) or self._closed:
                            return self._pop()
                        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                        self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        with self._changed:
                            self._waiters.discard(waiter)
        except TimeoutError:
            return None

    def close(self) -> None:
        """End the hand-off: an unread value is discarded, every waiting reader gets None. Idempotent."""
        with self._changed:
            self._closed = True
            self._value = _EMPTY
            self._wake()

    def _pop(self) -> T | None:
        if isinstance(self._value, _Empty):
            return None
        value = cast(T, self._value)
        self._value = _EMPTY
        return value

    def _wake(self) -> None:
        self._changed.notify_all()
        for waiter in self._waiters:
            try:
                waiter.get_loop().call_soon_threadsafe(_finish, waiter)
            except RuntimeError:
                continue  # its loop has been closed: nobody waits there any more


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
