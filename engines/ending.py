"""The wish to end a program: Ctrl-C, SIGTERM or SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_ENDING = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))


@contextmanager
def told_to_end(first: Callable[[], None] = lambda: None) -> Generator[list[int]]:
    """A list that the first such signal is put into; then `first` is called. A second one ends the program at once.

    Outside the main thread, where Python gives no signals, the list stays empty.
    """
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    # what the caller ignores (nohup's SIGHUP, SIGINT of `command &` in a script) stays ignored
    before = {n: h for n in _ENDING if (h := signal.getsignal(n)) is not signal.SIG_IGN}

    def wish(number: int, _: FrameType | None) -> None:
        told.append(number)
        for other in before:
            signal.signal(other, end_at_once)
        first()

    for number in before:
        signal.signal(number, wish)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """As the signal itself would have ended it."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
