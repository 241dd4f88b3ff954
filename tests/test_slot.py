"""The slot: latest wins, nothing blocks the producer, nothing leaks from the consumer."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

from fakes import AT_LAST_S

from streamer.slot import Slot


def test_newest_wins_and_drops_are_counted() -> None:
    slot: Slot[int] = Slot()
    assert slot.put(1) is False
    assert slot.put(2) is True
    assert slot.put(3) is True
    assert slot.take(0) == 3
    assert slot.take(0) is None
    assert slot.dropped == 2
    assert slot.put(4) is False


def test_falsy_values_are_values() -> None:
    slot: Slot[int] = Slot()
    slot.put(0)
    assert slot.put(0) is True
    assert slot.take(0) == 0


def test_take_waits_for_another_thread_and_gives_up_after_its_time() -> None:
    slot: Slot[str] = Slot()
    begin = time.monotonic()
    assert slot.take(0.05) is None
    assert time.monotonic() - begin >= 0.045
    threading.Timer(0.05, slot.put, ["here"]).start()
    assert slot.take(AT_LAST_S) == "here"


def test_close_wakes_a_waiting_thread_and_discards() -> None:
    slot: Slot[int] = Slot()
    threading.Timer(0.05, slot.close).start()
    assert slot.take(None) is None
    assert slot.closed
    assert slot.put(1) is False
    assert slot.take(None) is None
    unread: Slot[int] = Slot()
    unread.put(1)
    unread.close()
    unread.close()
    assert unread.take(0) is None


def test_values_pass_in_order_and_none_twice_between_threads() -> None:
    slot: Slot[int] = Slot()
    total = 20_000
    taken: list[int] = []

    def consume() -> None:
        while (value := slot.take(5)) is not None:
            taken.append(value)
            if value == total:
                return

    thread = threading.Thread(target=consume)
    thread.start()
    for value in range(1, total + 1):
        slot.put(value)
    thread.join(AT_LAST_S)
    assert not thread.is_alive()
    assert taken == sorted(set(taken))
    assert taken[-1] == total
    assert len(taken) + slot.dropped == total


def test_the_producer_keeps_nothing_that_was_taken() -> None:
    class Big:
        pass

    slot: Slot[Big] = Slot()
    value = Big()
    watch = weakref.ref(value)
    slot.put(value)
    del value
    slot.take(0)
    gc.collect()
    assert watch() is None


async def test_a_task_gets_the_newest_value_of_a_thread() -> None:
    slot: Slot[int] = Slot()
    before = set(threading.enumerate())

    def produce() -> None:
        for value in range(1, 501):
            slot.put(value)
            time.sleep(0.0002)

    thread = threading.Thread(target=produce)
    thread.start()
    got: list[int] = []
    while (value := await slot.get(AT_LAST_S)) is not None:
        got.append(value)
        assert set(threading.enumerate()) <= {*before, thread}, "get() must not use an executor thread"
        if value == 500:
            break
    thread.join()
    assert got[-1] == 500
    assert got == sorted(set(got))
    assert len(got) + slot.dropped == 500


async def test_get_times_out_and_ends_at_close() -> None:
    slot: Slot[int] = Slot()
    assert await slot.get(0.02) is None
    assert await slot.get(0) is None
    slot.put(7)
    assert await slot.get(0) == 7
    threading.Timer(0.03, slot.close).start()
    assert await slot.get(None) is None


async def test_a_cancelled_get_leaves_no_waiter_and_loses_no_value() -> None:
    slot: Slot[int] = Slot()
    for _ in range(50):
        task = asyncio.create_task(slot.get(None))
        await asyncio.sleep(0)
        assert len(slot._waiters) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(slot._waiters) == 0
    # Cancelled after the value came but before the task ran: the next reader has it.
    task = asyncio.create_task(slot.get(None))
    await asyncio.sleep(0)
    slot.put(42)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await slot.get(AT_LAST_S) == 42


async def test_of_two_waiting_tasks_one_gets_each_value() -> None:
    slot: Slot[int] = Slot()
    tasks = [asyncio.create_task(slot.get(AT_LAST_S)) for _ in range(2)]
    await asyncio.sleep(0)
    slot.put(1)
    while not any(t.done() for t in tasks):
        await asyncio.sleep(0.001)
    slot.put(2)
    assert sorted(await asyncio.gather(*tasks), key=str) == [1, 2]
    assert len(slot._waiters) == 0


def test_a_waiter_whose_loop_died_does_not_break_the_producer() -> None:
    slot: Slot[int] = Slot()
    loop = asyncio.new_event_loop()
    task = loop.create_task(slot.get(None))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert slot.put(1) is False
    assert slot.take(0) == 1
    task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue] abandoned on purpose
