"""Putting the server together: avatars, application, uvicorn on a socket that is already bound."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from fastapi import FastAPI

from engines.enrollment import (
    Enrollment,
    head_model_of,
    load_enrollment,
    renamed,
    save_enrollment,
    with_head_model_found,
)
from engines.errors import EnrollmentError, ModelError
from engines.generators.names import FALLBACK_GENERATOR
from engines.head.open import open_head_model
from engines.model_files import cache_folder
from engines.renderer import Renderer
from engines.retarget import Controls
from streamer.drive.demo import DEMO_PHOTO
from streamer.kept import MOST_KEPT, KeptError
from streamer.look import AS_IS, Look
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.listener import Listener
from streamer.serve.protocol import WatchedProtocol
from streamer.serve.seldom import SELDOM
from streamer.serve.store import AvatarStore
from streamer.tuning import tune_for_small_pictures

logger = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 64  # asyncio accepts them in one go, in which no call gets its turn
DEMO_CONSENT = "public domain portrait (NASA, Eileen Collins)"


def demo_avatar() -> Enrollment:
    """The demo face, enrolled at the first start and kept in the cache."""
    from calibration.enroll import enroll

    path = cache_folder().parent / "avatars" / "demo.avatar"
    try:
        kept = load_enrollment(path)
        head_model_of(kept)
        return kept
    except (EnrollmentError, ModelError):
        enrollment = enroll(DEMO_PHOTO, name="demo", consent=DEMO_CONSENT)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_enrollment(enrollment, path)
        except (OSError, EnrollmentError):
            pass  # a read-only home: enroll again next time
        return enrollment


def with_controls(enrollment: Enrollment, controls: Mapping[str, object]) -> Enrollment:
    """`enrollment` that starts with `controls` over those saved with it. Raises ControlsError."""
    if not controls:
        return enrollment
    return replace(enrollment, controls=Controls.from_dict(controls, enrollment.controls))


def add_kept(
    store: AvatarStore, settings: ServeSettings, given: Sequence[Path], controls: Mapping[str, object]
) -> None:
    """List the avatars that are kept on this computer; what cannot be had is left out and said.

    Nothing is added where others can connect: they are for this computer. Those `given` are there already.
    """
    if settings.kept is None:
        return
    there = {os.path.realpath(path) for path in given}  # resolve() raises for links in a circle
    try:
        files = settings.kept.files()
    except KeptError as error:
        logger.warning("%s", error)
        return
    for path in files[MOST_KEPT:]:
        logger.warning(
            "%s is left out: %d kept avatars are the most; delete some or move it", path, MOST_KEPT
        )
    for path in files[:MOST_KEPT]:
        if os.path.realpath(path) in there:
            continue
        try:
            enrollment = with_head_model_found(load_enrollment(path), settings.head_model)
        except (EnrollmentError, ModelError) as error:
            logger.warning("a kept avatar is left out: %s; or `visavis avatars delete %s`", error, path.stem)
            continue
        store.add_public(with_controls(renamed(enrollment, path.stem), controls), path, kept=True)


def measure_drawing_ms(enrollment: Enrollment, pictures: int = 8) -> float:
    """Processor time of one picture of 512 px by the fallback generator: the least of `pictures`."""
    renderer = Renderer(enrollment, generator=FALLBACK_GENERATOR, size_px=512)
    times_s: list[float] = []
    for _ in range(pictures):
        before_s = time.process_time()
        renderer.render(enrollment.motion)
        times_s.append(time.process_time() - before_s)
    return 1000 * min(times_s)


def serve_forever(
    settings: ServeSettings,
    avatars: Sequence[Path],
    listener: Listener,
    on_ready: Callable[[str], None],
    controls: Mapping[str, object] | None = None,
    look: Look = AS_IS,
) -> None:
    """Serve until SIGTERM (exit code 0) or Ctrl-C; `look` is how calls start.

    `controls` come before those saved with the avatars.

    Raises EnrollmentError for an avatar that does not load, ModelError for a head model that does not open,
    ControlsError for controls that are none.
    """
    # uvicorn raises the signal again once it has shut down; being told to end is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tune_for_small_pictures()
    open_head_model(settings.head_model)  # told now, and not at the first upload
    store = AvatarStore(settings.max_uploads)
    for path in avatars:
        enrollment = with_head_model_found(load_enrollment(path), settings.head_model)
        store.add_public(with_controls(enrollment, controls or {}), path)
    if not avatars:
        store.add_public(with_controls(demo_avatar(), controls or {}))
    add_kept(store, settings, avatars, controls or {})
    app = create_app(settings, store, look=look)
    if settings.max_sessions is None:  # else nobody asks what a call costs
        app.state.service.calls.capacity.calibrate(measure_drawing_ms(store.public()[0][1].enrollment))
    server = Server(app, listener, settings, on_ready=lambda: on_ready(_url(settings, listener)))
    # what is there now stays: a full collection that looks at all of it is a gap of 40 ms and more in a call
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])


class Server(uvicorn.Server):
    """uvicorn on `listener`, whose connections it watches; says when it is ready."""

    def __init__(
        self,
        app: FastAPI,
        listener: Listener,
        settings: ServeSettings,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        protocol = partial(WatchedProtocol, listener.connections)
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=60,  # `Connections` ends them sooner, and all others too
                ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
                ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
                server_header=False,
                proxy_headers=False,
                workers=1,  # else uvicorn reads a variable of the environment for it
                loop="asyncio",  # it accepts through the listener, and uvloop does not
                http=cast(type[asyncio.Protocol], protocol),
                ws="none",
                backlog=ACCEPTED_AT_ONCE,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(SELDOM)  # once, however many servers there are
        self._connections = listener.connections
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second; once a second the connections are swept."""
        if counter % 10 == 0:
            self._connections.sweep()
        return await super().on_tick(counter)


def _url(settings: ServeSettings, listener: socket.socket) -> str:
    scheme = "https" if settings.tls_cert else "http"
    # of "every address" and "this computer" one that opens
    host = {"::": "::1", "0.0.0.0": "localhost", "127.0.0.1": "localhost"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{host}:{listener.getsockname()[1]}"
    return f"{url}/?token=…" if settings.token else url
