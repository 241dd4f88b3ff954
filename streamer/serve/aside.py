"""`Aside`: work beside the calls: one thread of low priority, a short queue, nothing for clients that have gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import HTTPException
from starlette.requests import Request

T = TypeVar("T")

WAITING = 4
RETRY_AFTER = {"Retry-After": "5"}
NICE = 10
CLIENT_HAS_GONE = 499  # as nginx logs it; nobody reads this answer


class Aside:
    """One piece of work at a time, at most `waiting` behind it. Event-loop only."""

    def __init__(self, waiting: int = WAITING) -> None:
        # Not the default executor: aiortc encodes there, and an enrollment takes a second. One thread, so that
        # two writers of one avatar's file take turns.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="enroll", initializer=_lower_priority)
        self._waiting = waiting
        self._inside = self._done = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[threading.Event], T], *, always: bool = False) -> T:
        """What `work` gives, done after what was asked for before it.

        Cancelled, it is not begun; begun, its event is set, and it should end soon. Raises HTTPException 503 where
        too much waits already, unless `always`: for what is short.
        """
        with self._lock:
            if self._inside > self._waiting and not always:
                raise HTTPException(
                    503,
                    "too many pictures are waiting; send yours again in a moment",
                    headers=RETRY_AFTER,
                )
            self._inside += 1
        unwanted = threading.Event()
        try:
            future = self._pool.submit(work, unwanted)
        except RuntimeError:  # shut down
            self._left()
            raise
        future.add_done_callback(self._left)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            unwanted.set()
            raise

    @property
    def done(self) -> int | None:
        """How many pieces of work have ended so far; None while there is one."""
        with self._lock:
            return None if self._inside else self._done

    def _left(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._inside -= 1
            self._done += 1

    def close(self) -> None:
        """What is still to be done is left."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; cancelled, with HTTPException 499, when the client of `request` goes before.

    The body of `request` must have been read.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(CLIENT_HAS_GONE, "the client has gone")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _lower_priority() -> None:
    # Linux: of this thread alone, and of those that it starts
    with suppress(OSError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
