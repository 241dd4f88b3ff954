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
from streamer.webrtc.ice_links import IceServer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """Settings, stores, calls. `look`: how calls start; `generators`: what a page may choose, first the usual one.

    `ice_servers`: those that WHIP and WHEP tell in their answers. `still_generators`: those that have drawn pictures
    asked for by HTTP; only in the thread of `work`.
    """

    settings: ServeSettings
    store: AvatarStore
    backgrounds: BackgroundStore
    calls: Calls
    metrics: Metrics
    look: Look
    generators: Sequence[str]
    work: Aside
    ice_servers: Sequence[IceServer] = ()
    still_generators: KeptGenerators = field(default_factory=KeptGenerators)

    async def aside(self, work: Callable[[], T]) -> T:
        """What `work`, which must be short, gives: done while the event loop goes on, after what came before it."""
        return await self.work.run(lambda _: work(), always=True)

    async def aclose(self) -> None:
        """Hang up every call; what is still to be done aside is left."""
        await self.calls.close_all()
        self.work.close()


# not a plain function: FastAPI would call it in a thread
async def service_of(request: Request) -> Service:
    """The service that a request has come to."""
    return cast(Service, request.app.state.service)


Served = Annotated[Service, Depends(service_of)]
