"""Which calls are drawn together, and when; and the thread that does it, with a batch that draws nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.device.batch import Batch
from engines.device.drawing import Drawing
from engines.device.schedule import Schedule
from engines.device.together import Together
from engines.errors import EngineError

U8 = NDArray[np.uint8]
WAIT_NS = 4000


def schedule(calls: int = 3, most: int = 8) -> Schedule[int, str]:
    made: Schedule[int, str] = Schedule(most, WAIT_NS)
    for call in range(calls):
        made.enter(call)
    return made


def test_nothing_is_due_while_nothing_waits() -> None:
    s = schedule()
    assert s.due_ns() is None
    assert s.take(10**9) == {}


def test_a_call_alone_never_waits() -> None:
    s = schedule(1)
    s.ask(0, "a", 100)
    assert s.due_ns() == 100
    assert s.take(100) == {0: "a"}
    assert s.due_ns() is None


def test_frames_wait_for_the_other_calls_and_no_longer_than_they_may() -> None:
    s = schedule(3)
    s.ask(0, "a", 100)
    s.ask(1, "b", 300)
    assert s.due_ns() == 100 + WAIT_NS
    assert s.take(99 + WAIT_NS) == {}
    assert s.take(100 + WAIT_NS) == {0: "a", 1: "b"}


def test_once_every_call_has_a_frame_nobody_waits() -> None:
    s = schedule(3)
    for call, time_ns in ((2, 50), (0, 60), (1, 70)):
        s.ask(call, f"{call}", time_ns)
    assert s.due_ns() == 50
    assert list(s.take(70)) == [2, 0, 1]


def test_no_more_are_drawn_than_there_is_room_for_and_the_first_come_first() -> None:
    s = schedule(5, most=2)
    for call in (4, 1, 3):
        s.ask(call, f"{call}", call * 10)
    assert s.take(100) == {1: "1", 3: "3"}
    assert s.due_ns() == 40 + WAIT_NS
    assert s.take(40 + WAIT_NS) == {4: "4"}


def test_the_newest_frame_of_a_call_is_drawn_in_the_place_of_its_first() -> None:
    s = schedule(2)
    assert s.ask(0, "old", 10) is None
    assert s.ask(0, "new", 3000) == "old"
    assert s.due_ns() == 10 + WAIT_NS
    assert s.take(10 + WAIT_NS) == {0: "new"}


def test_nobody_waits_for_a_call_that_has_left() -> None:
    s = schedule(2)
    s.ask(0, "a", 10)
    assert s.leave(1) is None
    assert s.due_ns() == 10
    s.enter(1)
    s.ask(1, "b", 20)
    assert s.leave(1) == "b"
    assert s.take(20) == {0: "a"}


@given(
    most=st.integers(1, 4),
    asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), min_size=1, max_size=40),
)
def test_every_frame_is_drawn_or_replaced_and_none_waits_too_long(
    most: int, asked: list[tuple[int, int]]
) -> None:
    s: Schedule[int, int] = Schedule(most, WAIT_NS)
    for call in range(6):
        s.enter(call)
    now_ns, seen, since = 0, [], dict[int, int]()
    for number, (call, later_ns) in enumerate(asked):
        then_ns = now_ns + later_ns
        while (due_ns := s.due_ns()) is not None and due_ns <= then_ns:
            now_ns = max(now_ns, due_ns)
            taken = s.take(now_ns)
            assert 0 < len(taken) <= most
            for drawn in taken:
                # all who have waited as long as they may go at once, as many at a time as there is room for
                assert now_ns <= since.pop(drawn) + WAIT_NS
            seen += taken.values()
        now_ns = then_ns
        older = s.ask(call, number, now_ns)
        since.setdefault(call, now_ns)
        seen += [] if older is None else [older]
    while (due_ns := s.due_ns()) is not None:
        seen += s.take(max(now_ns, due_ns)).values()
    assert sorted(seen) == list(range(len(asked)))


# --- the thread --------------------------------------------------------------------------------------


class FakeBatch:
    """Draws a frame as itself; remembers who was drawn with whom."""

    def __init__(self, room: int = 8, fails_in: str = "") -> None:
        self.room, self.fails_in = room, fails_in
        self.drawn: list[list[int]] = []
        self.rows: list[Drawing] = []
        self.left: list[int] = []
        self.threads: set[int] = set()

    def _enter(self, phase: str) -> None:
        self.threads.add(threading.get_ident())
        if self.fails_in == phase:
            raise RuntimeError(f"no {phase} today")

    def enter(self, drawing: Drawing) -> int:
        self._enter("enter")
        if len(self.rows) == self.room:
            raise EngineError("no room")
        self.rows.append(drawing)
        return len(self.rows) - 1

    def leave(self, row: int) -> None:
        self.left.append(row)

    def record(self) -> None:
        self._enter("record")

    def draw(self, frames: Mapping[int, U8]) -> dict[int, U8 | None]:
        self._enter("draw")
        self.drawn.append(sorted(frames))
        return {row: None if frame[0] == 255 else frame for row, frame in frames.items()}


def frame(number: int) -> U8:
    return np.full(4, number, np.uint8)


def together(batch: FakeBatch, wait_ns: int = 10**12) -> Together:
    return Together(lambda: cast(Batch, batch), most=8, wait_ns=wait_ns)


NOBODY: Any = None


def test_calls_are_drawn_at_once_in_one_thread() -> None:
    batch = FakeBatch()
    them = together(batch)
    numbers: list[int] = []
    for _ in range(3):
        number, entered = them.enter(NOBODY)
        entered.result(10)
        numbers.append(number)
    with ThreadPoolExecutor(3) as pool:
        for turn in range(3):
            # nobody is drawn before all have asked: the wait is longer than any test
            found = list(pool.map(lambda n: them.draw(n, frame(n)), numbers))
            assert [int(f[0]) for f in found if f is not None] == numbers
            assert len(batch.drawn) == turn + 1
    assert batch.drawn == [[0, 1, 2]] * 3
    assert len(batch.threads) == 1
    assert threading.get_ident() not in batch.threads


def test_a_frame_for_the_cpu_is_none() -> None:
    them = together(FakeBatch())
    number, entered = them.enter(NOBODY)
    entered.result(10)
    assert them.draw(number, frame(255)) is None


def test_who_finds_no_room_is_told_and_the_others_go_on() -> None:
    batch = FakeBatch(room=1)
    them = together(batch)
    number, entered = them.enter(NOBODY)
    entered.result(10)
    _, second = them.enter(NOBODY)
    with pytest.raises(EngineError, match="no room"):
        second.result(10)
    assert not them.broken
    assert them.draw(number, frame(3)) is not None


@pytest.mark.parametrize("phase", ["enter", "record"])
def test_who_cannot_enter_is_told_why(phase: str) -> None:
    them = together(FakeBatch(fails_in=phase))
    _, entered = them.enter(NOBODY)
    with pytest.raises(EngineError, match=f"no {phase} today"):
        entered.result(10)
    assert them.broken
    with pytest.raises(EngineError, match=f"no {phase} today"):
        them.enter(NOBODY)


def test_a_fault_while_drawing_is_told_to_all_who_wait_and_to_all_who_ask_later() -> None:
    batch = FakeBatch()
    them = together(batch)
    numbers: list[int] = []
    for _ in range(2):
        number, entered = them.enter(NOBODY)
        entered.result(10)
        numbers.append(number)
    batch.fails_in = "draw"
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(them.draw, n, frame(n)) for n in numbers]
        for future in futures:
            with pytest.raises(EngineError, match="no draw today"):
                future.result(10)
    with pytest.raises(EngineError, match="no draw today"):
        them.draw(numbers[0], frame(0))


def test_the_thread_ends_with_the_last_call_and_begins_anew_with_the_next() -> None:
    batches = [FakeBatch(), FakeBatch()]
    made = iter(batches)
    them = Together(lambda: cast(Batch, next(made)), most=8, wait_ns=10**12)
    before = set(threading.enumerate())
    number, entered = them.enter(NOBODY)
    entered.result(10)
    (worker,) = set(threading.enumerate()) - before
    them.leave(number)
    worker.join(10)
    assert not worker.is_alive()
    assert batches[0].left == [0]
    again, entered = them.enter(NOBODY)
    entered.result(10)
    assert again != number
    assert them.draw(again, frame(1)) is not None
    assert batches[1].drawn == [[0]]


def test_a_frame_that_waits_while_its_call_leaves_is_given_up() -> None:
    them = together(FakeBatch())
    numbers: list[int] = []
    for _ in range(2):
        number, entered = them.enter(NOBODY)
        entered.result(10)
        numbers.append(number)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(them.draw, numbers[0], frame(0))
        while them.waiting == 0:
            pass
        them.leave(numbers[0])
        with pytest.raises(EngineError, match="has ended"):
            waiting.result(10)
