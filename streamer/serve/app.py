"""HTTP around the calls: the page, enrollment, offers, health and metrics. Nothing here touches a frame."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Body, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from calibration.enroll import enroll
from engines.enrollment import Enrollment
from engines.errors import VisavisError, no_such
from engines.generators.names import GENERATOR_NAMES, generators_for_calls
from engines.presets import preset_names
from engines.renderer import Aspect
from engines.retarget import Controls
from streamer import __version__
from streamer.drive.trackers.names import DEFAULT_TRACKER, TRACKER_NAMES
from streamer.latency.metrics import Metrics
from streamer.look import AS_IS, Look, read_background, read_picture, require_opaque
from streamer.serve.config import ServeSettings
from streamer.serve.store import (
    BACKGROUND_PREFIX,
    AvatarStore,
    BackgroundStore,
    StoreError,
    picture_of,
    write_controls,
)
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.session import MOST_TRIM_MS, CallOptions, Drive, MakeAvatar, OfferError, Session

logger = logging.getLogger(__name__)

WEB = Path(__file__).parents[1] / "web"
CLOSE_WITHIN_S = 2.0
FORM_BYTES = 1 << 20  # what a form may hold besides its photo
_POLICY = (
    "default-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob: mediastream:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


class Offer(BaseModel):
    """`POST /api/offer`."""

    sdp: str = Field(max_length=200_000)
    type: Literal["offer"]
    avatar: str | None = None
    generator: str | None = None
    size: int = Field(512, ge=64, le=1024)
    mode: Literal["avatar", "echo"] = "avatar"
    drive: Drive = "webcam"
    tracker: str | None = None
    trim_ms: float = Field(0.0, ge=-MOST_TRIM_MS, le=MOST_TRIM_MS)
    voice_helps: bool = True
    background: str | None = Field(None, max_length=64)
    aspect: Aspect | None = None


class Calls:
    """The calls that are up."""

    def __init__(self, metrics: Metrics, limit: int, make_avatar: MakeAvatar | None) -> None:
        self.sessions: set[Session] = set()
        self._metrics = metrics
        self._limit = limit
        self._make_avatar = make_avatar

    def open(self, enrollment: Enrollment, options: CallOptions) -> Session:
        """A new session; raises HTTPException 503 when there are too many."""
        if len(self.sessions) >= self._limit:
            raise HTTPException(
                503,
                f"{self._limit} calls are up already; hang one up or start the server with a higher "
                "VISAVIS_MAX_SESSIONS",
                headers={"Retry-After": "10"},
            )
        session = Session(
            enrollment, options, metrics=self._metrics, on_closed=self._forget, make_avatar=self._make_avatar
        )
        self.sessions.add(session)
        self._metrics.session_opened()
        return session

    def _forget(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.discard(session)
            self._metrics.session_closed()

    async def close_all(self) -> None:
        """Hang up everything within `CLOSE_WITHIN_S`."""
        closing = [asyncio.create_task(s.close()) for s in list(self.sessions)]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()


def look_of(body: Offer, usual: Look, pictures: BackgroundStore) -> Look:
    """What an offer asks for; what it leaves out is as the server was started.

    Raises BackgroundError, or HTTPException 410 for a picture that the server does not have any more.
    """
    aspect = body.aspect or usual.aspect
    text = body.background
    if text is None:
        return Look(usual.background, aspect)
    if text.startswith(BACKGROUND_PREFIX):
        picture = pictures.get(text)
        if picture is None:
            raise HTTPException(410, "the background picture is gone; choose it again")
        return Look(picture, aspect)
    # never a path: what a request says does not reach the disk
    if text not in ("keep", "blur", "transparent") and not text.startswith("#"):
        raise HTTPException(400, f"there is no background {text!r}; choose keep, blur, a colour or a picture")
    background = read_background(text)
    require_opaque(background, "a video call")
    return Look(background, aspect)


def _too_large(settings: ServeSettings) -> str:
    return f"the picture is larger than {settings.max_photo_mb:g} MB; send a smaller one"


def create_app(
    settings: ServeSettings,
    store: AvatarStore,
    *,
    metrics: Metrics | None = None,
    make_avatar: MakeAvatar | None = None,
    look: Look = AS_IS,
) -> FastAPI:
    """The application. `look` is how calls start; `make_avatar` replaces the tracker and generator in tests."""
    aiortc_fixes.apply(offer_loopback=settings.loopback)
    metrics = metrics or Metrics()
    cores = len(os.sched_getaffinity(0))
    calls = Calls(metrics, settings.max_sessions, make_avatar)
    backgrounds = BackgroundStore(settings.max_uploads)
    # Not the default executor: aiortc encodes there, and an enrollment takes a second. One thread, so that
    # two writers of one avatar's file take turns.
    enrolling = ThreadPoolExecutor(1, thread_name_prefix="enroll")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await calls.close_all()
        enrolling.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(title="visavis", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.calls = calls
    if settings.loopback:
        # a page elsewhere must not reach us through a name that it points at this computer (DNS rebinding)
        hosts = ["localhost", "127.0.0.1", "[::1]", settings.host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        protected = request.url.path.startswith("/api/") or request.url.path == "/metrics"
        if settings.token and protected and request.url.path != "/api/health":
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {settings.token}".encode()):
                return JSONResponse(
                    {"error": "this server wants a token; open the page with ?token=… in its address"}, 401
                )
        if request.method in ("POST", "PUT"):
            # before the body is read: what is too large must not be spooled to the disk first
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                return JSONResponse({"error": "say how long the request is (Content-Length)"}, 411)
            if float(length) > settings.max_photo_mb * 1e6 + FORM_BYTES:
                return JSONResponse({"error": _too_large(settings)}, 413)
        # another site's page may not talk to us with the visitor's browser
        origin = request.headers.get("origin")
        if (
            origin
            and request.method not in ("GET", "HEAD")
            and origin.split("://")[-1] != request.headers.get("host")
        ):
            return JSONResponse({"error": "requests from other sites are refused"}, 403)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    @app.exception_handler(
        StarletteHTTPException
    )  # also what the router raises, for a path that is not there
    async def http_error(_: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse({"error": f"{where or 'the request'}: {first['msg']}"}, 422)

    @app.exception_handler(VisavisError)
    async def refused(_: Request, error: VisavisError) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(StoreError)
    async def not_stored(_: Request, error: StoreError) -> Response:
        return JSONResponse({"error": str(error)}, 409)

    _registered(guard, http_error, invalid, refused, not_stored)

    @app.get("/")
    async def page() -> Response:
        return FileResponse(WEB / "index.html")

    @app.get("/api/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "version": __version__, "sessions": len(calls.sessions)}

    @app.get("/metrics")
    async def prometheus() -> Response:
        body, content_type = metrics.render()
        return Response(body, media_type=content_type)

    @app.get("/api/avatars")
    async def avatars() -> dict[str, object]:
        public = store.public()
        return {
            "avatars": [{"name": n, "title": e.title} for n, e in public],
            "generators": generators_for_calls(cores),
            "trackers": list(TRACKER_NAMES),
            "emotions": list(preset_names()),
            "default": public[0][0] if public else None,
            "look": {"background": look.background.mode, "aspect": look.aspect},
        }

    @app.get("/api/avatars/{name}/picture")
    async def picture(name: str) -> Response:
        entry = store.get(name)
        if entry is None:
            raise HTTPException(404, f"there is no avatar {name!r}; GET /api/avatars lists them")
        return Response(picture_of(entry.enrollment), media_type="image/jpeg")

    @app.post("/api/avatars", status_code=201)
    async def upload(
        photo: Annotated[UploadFile, File()], consent: Annotated[str, Form(max_length=200)]
    ) -> dict[str, object]:
        if not consent.strip():
            raise HTTPException(422, "say whose face this is and that they agreed (field: consent)")
        limit = int(settings.max_photo_mb * 1e6)
        data = await photo.read(limit + 1)
        if len(data) > limit:
            raise HTTPException(413, _too_large(settings))
        loop = asyncio.get_running_loop()
        enrollment = await loop.run_in_executor(
            enrolling, lambda: enroll(data, consent=consent.strip(), head_model=settings.head_model)
        )
        title = Path(photo.filename or "photo").stem[:40] or "photo"
        name = store.add_upload(enrollment, title)
        logger.info("a photo was enrolled, consent recorded")
        return {"name": name, "title": title, "notices": list(enrollment.notices)}

    @app.post("/api/backgrounds", status_code=201)
    async def upload_background(picture: Annotated[UploadFile, File()]) -> dict[str, object]:
        limit = int(settings.max_photo_mb * 1e6)
        data = await picture.read(limit + 1)
        if len(data) > limit:
            raise HTTPException(413, _too_large(settings))
        loop = asyncio.get_running_loop()
        background = await loop.run_in_executor(enrolling, read_picture, data)
        return {"name": backgrounds.add(background)}

    @app.put("/api/avatars/{name}/controls")
    async def keep_controls(name: str, body: Annotated[dict[str, object], Body()]) -> dict[str, object]:
        entry = store.get(name)
        if entry is None:
            raise HTTPException(404, f"there is no avatar {name!r}; GET /api/avatars lists them")
        controls = Controls.from_dict(body)
        loop = asyncio.get_running_loop()
        in_file = await loop.run_in_executor(enrolling, write_controls, entry, controls)
        if not store.set_controls(name, controls):
            raise HTTPException(404, f"the avatar {name!r} is gone; enroll the photo again")
        return {"controls": controls.to_dict(), "kept": "file" if in_file else "memory"}

    @app.delete("/api/avatars/{name}", status_code=204)
    async def delete(name: str) -> Response:
        if not store.remove_upload(name):
            raise HTTPException(404, "there is no upload of that name")
        return Response(status_code=204)

    @app.post("/api/offer")
    async def offer(body: Offer) -> dict[str, object]:
        public = store.public()
        name = body.avatar or (public[0][0] if public else "")
        entry = store.get(name)
        if entry is None:
            raise HTTPException(
                404, f"there is no avatar {name!r}; GET /api/avatars lists them, or enroll a photo"
            )
        generator = body.generator or generators_for_calls(cores)[0]
        if generator not in GENERATOR_NAMES:
            raise HTTPException(400, no_such("generator", generator, GENERATOR_NAMES))
        tracker = body.tracker or DEFAULT_TRACKER
        if tracker not in TRACKER_NAMES:
            raise HTTPException(400, no_such("tracker", tracker, TRACKER_NAMES))
        wanted = look_of(body, look, backgrounds)
        options = CallOptions(
            generator, body.size & ~1, body.mode, body.drive, tracker, wanted, body.trim_ms, body.voice_helps
        )
        try:
            session = calls.open(entry.enrollment, options)
            sdp = await session.answer(body.sdp)
        except OfferError as error:
            raise HTTPException(400, str(error)) from error
        saved = entry.enrollment.controls
        return {
            "sdp": sdp,
            "type": "answer",
            "session": session.name,
            "controls": saved.to_dict() if saved else None,
        }

    app.mount("/static", StaticFiles(directory=WEB), name="static")
    _registered(
        page, health, prometheus, avatars, picture, upload, upload_background, keep_controls, delete, offer
    )
    return app


def _registered(*_: object) -> None:
    """Names the handlers that only their decorators use, for the type checker."""
