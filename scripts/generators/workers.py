"""Work spread over processes, of which any may die: then one piece is lost, and another process takes its place."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from scripts.training.errors import TrainingError

_END_WITHIN_S = 10.0

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Died:
    """A process ended while at work: by a signal (below 0) or with an exit status."""

    exit_code: int

    def __str__(self) -> str:
        if self.exit_code >= 0:
            return f"its process ended with status {self.exit_code}"
        with suppress(ValueError):
            return f"its process was killed by {signal.Signals(-self.exit_code).name}"
        return f"its process was killed by signal {-self.exit_code}"


class _Worker:
    def __init__(self, task: Callable[[Any], Any]) -> None:
        context = get_context("spawn")  # a fork would share the threads of what is loaded here
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, task), daemon=True)
        self.process.start()
        theirs.close()  # so that its end shows here
        self.piece: Any = None

    def give(self, piece: Any) -> None:
        self.piece = piece
        with suppress(BrokenPipeError, ConnectionResetError):  # it shows when its answer is read
            self.ours.send(piece)

    def end(self, *, now: bool = False) -> int:
        if now:
            self.process.terminate()
        self.ours.close()
        self.process.join(_END_WITHIN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return self.process.exitcode or 0


def _work(pipe: Connection, task: Callable[[Any], Any]) -> None:
    # whoever ends it lets it take away the file that it was writing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(task(pipe.recv()))


def spread(task: Callable[[P], R], pieces: Sequence[P], jobs: int) -> Iterator[tuple[P, R | Died]]:
    """(piece, `task` of it) as they are done, by `jobs` processes; `Died` where its process did.

    What `task` and the pieces are must be importable and picklable. Left early, work that is going on is ended. Raises
    TrainingError where processes die one after the other before any has done anything.
    """
    left = list(reversed(pieces))
    workers: dict[Connection, _Worker] = {}
    deaths, done = 0, False
    try:
        for _ in range(min(jobs, len(left))):
            worker = _Worker(task)
            worker.give(left.pop())
            workers[worker.ours] = worker
        while workers:
            for ready in wait(list(workers)):
                assert isinstance(ready, Connection)
                worker = workers[ready]
                piece = worker.piece
                try:
                    answer: R | Died = ready.recv()
                    done = True
                except (EOFError, ConnectionResetError):
                    del workers[ready]
                    answer = Died(worker.end())
                    deaths += 1
                    if not done and deaths > max(3, jobs):
                        raise TrainingError(
                            f"no process could work ({answer}); try --jobs 1, and free memory"
                        ) from None
                    if left:
                        worker = _Worker(task)
                        workers[worker.ours] = worker
                if worker.ours in workers:
                    if left:
                        worker.give(left.pop())
                    else:
                        del workers[worker.ours]
                        worker.end()
                yield piece, answer
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.end(now=True)
