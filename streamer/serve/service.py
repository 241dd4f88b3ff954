"""`Service`: what the routes of one server share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from engines.generators.kept import KeptGenerators
from streamer.latency.metrics import Metrics
from streamer.look import Look
from streamer.serve.aside import Aside
from streamer.serve.calls import Calls
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore, BackgroundStore
from streamer.webrtc.reach_peer import ReachPeer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """Settings, stores, calls. `look`: how calls start; `generators`: what a page may choose, first the usual one.

    `still_generators`: those that have drawn pictures asked for by HTTP; only in the thread of `work`. `tests`:
    connections that pages are testing.
    """

    settings: ServeSettings
    store: AvatarStore
    backgrounds: BackgroundStore
    calls: Calls
    metrics: Metrics
    look: Look
    generators: Sequence[str]
    work: Aside
    still_generators: KeptGenerators = field(default_factory=KeptGenerators)
    tests: set[ReachPeer] = field(default_factory=set[ReachPeer])

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work`, which must be short, gives: done while the event loop goes on, after what came before it."""
        return await self.work.run(lambda _: work(), always=True)

    async def aclose(self) -> None:
        """Hang up every call; what is still to be done aside is left."""
        for peer in list(self.tests):
            await peer.close()
        await self.calls.close_all()
        self.work.close()


# not a plain function: FastAPI would call it in a thread
async def service_of(request: Request) -> Service:
    """The service that a request has come to."""
    return cast(Service, request.app.state.service)


Served = Annotated[Service, Depends(service_of)]
