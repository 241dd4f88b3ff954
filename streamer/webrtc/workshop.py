"""`Workshop`: where what a call will show next is made, beside all drawing, in threads that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Workshop:
    """One piece of work at a time in this process, however many calls change: the rest waits. From any event loop."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counts = threading.Lock()
        self._inside = self._done = 0

    @property
    def done(self) -> int | None:
        """How many pieces of work have ended so far; None while there is one."""
        with self._counts:
            return None if self._inside else self._done

    async def make(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and how many seconds it took. Cancelled before its turn has come, it is not begun.

        Raises what `work` raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[T, float]] = loop.create_future()
        unwanted = threading.Event()
        with self._counts:
            self._inside += 1

        def settle(result: tuple[T, float] | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            elif result is not None:
                future.set_result(result)

        def run() -> None:
            try:
                with self._turn:
                    if unwanted.is_set():
                        return
                    began_s = time.monotonic()
                    result, error = (work(), time.monotonic() - began_s), None
            except Exception as failed:
                result, error = None, failed
            finally:
                with self._counts:
                    self._inside -= 1
                    self._done += 1
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the event loop has been closed meanwhile

        # a thread of its own, not the default executor: aiortc encodes there
        threading.Thread(target=run, name="change", daemon=True).start()
        try:
            return await future
        except asyncio.CancelledError:
            unwanted.set()
            raise


shared_workshop = Workshop()
