"""`Aside`: one piece of work at a time, a short queue, and nothing for clients that have gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable

import pytest
from fakes import AT_LAST_S
from fastapi import HTTPException
from starlette.requests import Request
from starlette.types import Message

from streamer.serve.aside import NICE, Aside, unless_gone


@pytest.fixture
async def aside() -> AsyncGenerator[Aside]:
    made = Aside(waiting=2)
    yield made
    made.close()


class Held:
    """Work that begins, and ends when it is let go or is not wanted any more."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.unwanted = threading.Event(), threading.Event(), False

    def __call__(self, unwanted: threading.Event) -> str:
        self.begun.set()
        while not self.let_go.wait(0.01):
            if unwanted.is_set():
                self.unwanted = True
                break
        return "done"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, AT_LAST_S)


async def settle() -> None:
    """Every task gets as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_work_is_done_in_order(aside: Aside) -> None:
    done: list[int] = []

    def note(number: int) -> Callable[[threading.Event], int]:
        def work(_: threading.Event) -> int:
            done.append(number)
            return number

        return work

    assert await asyncio.gather(*[aside.run(note(k)) for k in range(3)]) == [0, 1, 2]
    assert done == [0, 1, 2]


async def test_an_error_comes_back_and_frees_its_place(aside: Aside) -> None:
    def fail(_: threading.Event) -> None:
        raise ValueError("no")

    for _ in range(10):
        with pytest.raises(ValueError, match="no"):
            await aside.run(fail)


async def test_beyond_the_queue_there_is_503(aside: Aside) -> None:
    first = Held()
    running = [asyncio.create_task(aside.run(first))]
    await first.has_begun()
    waiting = [asyncio.create_task(aside.run(lambda _: "later")) for _ in range(2)]
    await settle()
    with pytest.raises(HTTPException) as caught:
        await aside.run(lambda _: "too much")
    assert caught.value.status_code == 503
    assert caught.value.headers is not None
    assert int(caught.value.headers["Retry-After"]) > 0
    short = asyncio.create_task(aside.run(lambda _: "short", always=True))
    first.let_go.set()
    assert await asyncio.gather(*running, *waiting, short) == ["done", "later", "later", "short"]
    assert await aside.run(lambda _: "again") == "again"


async def test_what_is_cancelled_while_it_waits_never_begins(aside: Aside) -> None:
    first, second = Held(), Held()
    running = asyncio.create_task(aside.run(first))
    await first.has_begun()
    for _ in range(9):  # each frees its place in the queue
        waiting = asyncio.create_task(aside.run(second))
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    first.let_go.set()
    assert await running == "done"
    assert await aside.run(lambda _: "next") == "next"
    assert not second.begun.is_set()


async def test_what_is_cancelled_while_it_runs_is_told_so(aside: Aside) -> None:
    first = Held()
    running = asyncio.create_task(aside.run(first))
    await first.has_begun()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await aside.run(lambda _: "next") == "next"
    assert first.unwanted


async def test_its_thread_gives_way_to_the_calls(aside: Aside) -> None:
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    its = await aside.run(lambda _: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert its == max(own, NICE)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


class Client:
    """What a request hears from its client once its body is read."""

    def __init__(self) -> None:
        self.goes = asyncio.Event()

    async def receive(self) -> Message:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)


async def test_work_goes_on_while_the_client_is_there(aside: Aside) -> None:
    before = asyncio.all_tasks()
    assert await unless_gone(Client().request, aside.run(lambda _: 7)) == 7
    assert asyncio.all_tasks() == before

    def fail(_: threading.Event) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unless_gone(Client().request, aside.run(fail))
    assert asyncio.all_tasks() == before


async def test_when_the_client_goes_its_work_ends(aside: Aside) -> None:
    running, waiting, one, other = Held(), Held(), Client(), Client()
    tasks = [
        asyncio.create_task(unless_gone(client.request, aside.run(work)))
        for client, work in ((one, running), (other, waiting))
    ]
    await running.has_begun()
    other.goes.set()
    one.goes.set()
    for task in tasks:
        with pytest.raises(HTTPException) as caught:
            await task
        assert caught.value.status_code == 499
    assert await aside.run(lambda _: "next") == "next"
    assert running.unwanted
    assert not waiting.begun.is_set()


async def test_it_tells_what_was_done_and_whether_there_is_work() -> None:
    aside, go_on = Aside(), threading.Event()
    assert aside.done == 0
    working = asyncio.ensure_future(aside.run(lambda _: go_on.wait()))
    await asyncio.sleep(0)
    assert aside.done is None
    go_on.set()
    await working
    assert aside.done == 1
    aside.close()
