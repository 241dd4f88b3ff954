"""Work spread over processes: all of it is done, and a process that dies costs what it was at."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from engines.files import whole_file
from scripts.generators.workers import Died, spread
from scripts.training.errors import TrainingError


def square(number: int) -> int:
    """A piece of work; 3 kills its process, 4 ends it."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        os._exit(7)
    return number * number


def die(number: int) -> int:
    """Nothing can be worked on."""
    os._exit(number)


def write_for_ever(path: Path) -> None:
    """Begin a file; the first one is told of at once."""
    if path.name == "told":
        return
    with whole_file(path) as part:
        part.write_bytes(b"half")
        path.with_name("begun").touch()
        time.sleep(1000)


def test_all_is_done_and_a_death_costs_its_piece() -> None:
    found = dict(spread(square, list(range(9)), 2))
    assert {n: a for n, a in found.items() if not isinstance(a, Died)} == {
        n: n * n for n in range(9) if n not in (3, 4)
    }
    assert str(found[3]) == "its process was killed by SIGKILL"
    assert str(found[4]) == "its process ended with status 7"


def test_nothing_to_do_needs_no_process() -> None:
    assert list(spread(square, [], 4)) == []


def test_processes_that_all_die_are_not_started_for_ever() -> None:
    with pytest.raises(TrainingError, match=r"no process could work \(its process ended with status 5\)"):
        list(spread(die, [5] * 50, 1))


def test_left_early_nothing_half_written_stays(tmp_path: Path) -> None:
    work = spread(write_for_ever, [tmp_path / "a", tmp_path / "told"], 2)
    next(work)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    work.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert [p.name for p in tmp_path.iterdir()] == ["begun"]
