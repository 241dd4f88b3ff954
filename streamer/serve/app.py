"""HTTP around the calls, put together: what is shared, the guard, the error answers, the routes, the page's files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from engines.generators.names import generators_for_calls
from streamer import __version__
from streamer.latency.metrics import Metrics
from streamer.latency.minute import log_each
from streamer.look import AS_IS, Look
from streamer.serve.aside import Aside
from streamer.serve.avatars import avatars
from streamer.serve.call_recording import call_recording
from streamer.serve.calls import CLOSE_WITHIN_S, Calls
from streamer.serve.camera_help import camera_help
from streamer.serve.capacity import Capacity, cores_here
from streamer.serve.change import changes
from streamer.serve.config import ServeSettings
from streamer.serve.emotions import emotions
from streamer.serve.errors import add_error_answers
from streamer.serve.guard import Guard
from streamer.serve.numbers import numbers
from streamer.serve.publish_target import target_of
from streamer.serve.publisher import Publisher
from streamer.serve.reach import reach
from streamer.serve.routes import WEB, router
from streamer.serve.service import Service
from streamer.serve.store import AvatarStore, BackgroundStore
from streamer.serve.uploads import uploads
from streamer.serve.whep import whep
from streamer.serve.whip import whip
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.session import MakeAvatar
from streamer.webrtc.udp_ports import keep_to

logger = logging.getLogger(__name__)


def create_app(
    settings: ServeSettings,
    store: AvatarStore,
    *,
    metrics: Metrics | None = None,
    make_avatar: MakeAvatar | None = None,
    look: Look = AS_IS,
) -> FastAPI:
    """The application. `look` is how calls start; `make_avatar` replaces the tracker and generator in tests."""
    target = target_of(settings)
    aiortc_fixes.apply(offer_loopback=settings.loopback)
    keep_to(settings.ice.ports)
    metrics = metrics or Metrics()
    aside = Aside()
    calls = Calls(
        metrics, settings.max_sessions, Capacity(cores_here()), make_avatar, ice=settings.ice,
        done_beside=lambda: aside.done,
    )  # fmt: skip
    service = Service(
        settings,
        store,
        BackgroundStore(settings.max_uploads),
        calls,
        metrics,
        look,
        generators_for_calls(len(os.sched_getaffinity(0))),
        aside,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        lines = asyncio.create_task(
            log_each(settings.log_every_s, metrics.minute, lambda: len(calls.connected), logger.info)
        )
        publishing = (
            None if target is None else asyncio.create_task(Publisher(target, calls, settings.ice).run())
        )
        yield
        lines.cancel()
        if publishing is not None:
            publishing.cancel()
            await asyncio.wait([publishing], timeout=CLOSE_WITHIN_S)
        await service.aclose()

    app = FastAPI(
        title="visavis",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # where to, Starlette takes from the Host header
    )
    app.state.service = service
    app.add_middleware(Guard, settings=settings)
    add_error_answers(app)
    app.include_router(router)
    app.include_router(uploads)
    app.include_router(numbers)
    app.include_router(call_recording)
    app.include_router(changes)
    app.include_router(avatars)
    app.include_router(emotions)
    app.include_router(camera_help)
    app.include_router(whip)
    app.include_router(whep)
    app.include_router(reach)
    app.mount("/static", StaticFiles(directory=WEB), name="static")
    return app
