"""`Service`: what the routes of one server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from streamer.latency.metrics import Metrics
from streamer.look import Look
from streamer.serve.calls import Calls
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore, BackgroundStore

T = TypeVar("T")


def _one_thread() -> ThreadPoolExecutor:
    # Not the default executor: aiortc encodes there, and an enrollment takes a second. One thread, so that
    # two writers of one avatar's file take turns.
    return ThreadPoolExecutor(1, thread_name_prefix="enroll")


@dataclass(frozen=True, slots=True)
class Service:
    """Settings, stores, calls. `look`: how calls start; `generators`: what a page may choose, first the usual one."""

    settings: ServeSettings
    store: AvatarStore
    backgrounds: BackgroundStore
    calls: Calls
    metrics: Metrics
    look: Look
    generators: Sequence[str]
    _enrolling: ThreadPoolExecutor = field(default_factory=_one_thread)

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work` gives, done while the event loop goes on, after what was asked for before it."""
        return await asyncio.get_running_loop().run_in_executor(self._enrolling, work)

    async def aclose(self) -> None:
        """Hang up every call; what is still to be done aside is left."""
        await self.calls.close_all()
        self._enrolling.shutdown(wait=False, cancel_futures=True)


# not a plain function: FastAPI would call it in a thread
async def service_of(request: Request) -> Service:
    """The service that a request has come to."""
    return cast(Service, request.app.state.service)


Served = Annotated[Service, Depends(service_of)]
