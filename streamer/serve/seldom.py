"""`Seldom`: what uvicorn says of each request that is no HTTP, said once a minute and in a sentence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

UVICORN_SAYS = "Invalid HTTP request received."  # uvicorn/protocols/http/h11_impl.py
EVERY_S = 60.0


class Seldom(logging.Filter):
    """For uvicorn's logger. All else passes."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._said_s: float | None = None
        self._unsaid = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is said, reworded."""
        if record.msg != UVICORN_SAYS:
            return True
        now_s = self._clock_s()
        if self._said_s is not None and now_s - self._said_s < EVERY_S:
            self._unsaid += 1
            return False
        more = f"; {self._unsaid} more since the last such line" if self._unsaid else ""
        record.msg = f"something that is no HTTP came to this port (https for http, or a scanner){more}"
        self._said_s, self._unsaid = now_s, 0
        return True


SELDOM = Seldom()
