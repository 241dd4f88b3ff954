"""Batches made ahead in threads: training never waits for them, and their order does not depend on the threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from itertools import count
from typing import TypeVar

T = TypeVar("T")


def prefetched(
    make: Callable[[int], T], first: int, *, workers: int = 1, depth: int = 3
) -> Generator[tuple[int, T]]:
    """(step, make(step)) from `first` on, in order, `depth` ahead in each of `workers` threads; 0: made when asked for.

    Close it to end the threads. What `make` raises is raised here, in its turn.
    """
    if not workers:
        yield from ((step, make(step)) for step in count(first))
    ready = [queue.Queue[tuple[int, T] | BaseException](depth) for _ in range(workers)]
    stop = threading.Event()

    def put(number: int, entry: tuple[int, T] | BaseException) -> None:
        while not stop.is_set():
            try:
                ready[number].put(entry, timeout=0.5)
                return
            except queue.Full:
                continue

    def work(number: int) -> None:
        try:
            for step in count(first + number, workers):
                if stop.is_set():
                    return
                put(number, (step, make(step)))
        except BaseException as error:
            put(number, error)

    for number in range(workers):
        threading.Thread(target=work, args=(number,), name=f"batches-{number}", daemon=True).start()
    try:
        for turn in count():
            entry = ready[turn % workers].get()
            if isinstance(entry, BaseException):
                raise entry
            yield entry
    finally:
        stop.set()
