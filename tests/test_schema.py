"""The server as its own schema describes it: whatever is sent, it answers as documented, and a call beside goes on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, cast

import httpx
import numpy as np
import pytest
import requests
import schemathesis
from calls import Camera, Client, plain_enrollment
from fakes import AT_LAST_S
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from raw import Running, running
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from engines.picture.background import Background
from engines.retarget import Controls
from streamer.serve import emotions, reach, uploads
from streamer.serve.service import Service

pytestmark = pytest.mark.slow

TOKEN = "an-access-token.0"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = (
    "GET /", "GET /api/health", "GET /metrics", "GET /metrics.json", "GET /api/avatars", "GET /api/camera",
    "GET /api/avatars/{name}/picture", "POST /api/avatars", "POST /api/backgrounds",
    "PUT /api/avatars/{name}/controls", "DELETE /api/avatars/{name}", "POST /api/offer",
    "POST /api/calls/{session}/recording", "GET /api/calls/{session}/recording",
    "GET /api/calls/{session}/recording/trace", "DELETE /api/calls/{session}/recording",
    "PATCH /api/calls/{session}", "PATCH /api/avatars/{name}", "POST /api/avatars/file", "GET /api/avatars/{name}/file",
    "POST /api/avatars/{name}/keep", "POST /api/avatars/{name}/emotions",
    "POST /whip/{avatar}", "OPTIONS /whip/{avatar}", "PATCH /whip/{avatar}/{session}",
    "DELETE /whip/{avatar}/{session}", "OPTIONS /whip/{avatar}/{session}",
    "POST /whep/{avatar}", "OPTIONS /whep/{avatar}", "PATCH /whep/{avatar}/{session}",
    "DELETE /whep/{avatar}/{session}", "OPTIONS /whep/{avatar}/{session}",
    "GET /api/ice", "POST /api/connection-test",
)  # fmt: skip
WANTED = {  # what has to come up among the answers
    "DELETE /api/calls/{session}/recording": {204},
    "POST /api/avatars": {201, 422},
    "POST /api/backgrounds": {201, 422},
    "POST /api/avatars/file": {201, 422},
    "GET /api/avatars/{name}/file": {404, 409},
    "POST /api/avatars/{name}/keep": {404, 409, 422},
    "POST /api/avatars/{name}/emotions": {200, 400, 404, 422},
    "PATCH /api/avatars/{name}": {404, 409, 422},
    "PUT /api/avatars/{name}/controls": {200, 400},
    "DELETE /api/avatars/{name}": {404},
    "POST /api/offer": {200, 400, 422},
    "POST /api/connection-test": {400, 422},
    "PATCH /api/calls/{session}": {200, 404, 422},
    "POST /whip/{avatar}": {201, 404, 422},
    "POST /whep/{avatar}": {201, 404, 422},
    **{f"PATCH /{way}/{{avatar}}/{{session}}": {404} for way in ("whip", "whep")},
    **{f"DELETE /{way}/{{avatar}}/{{session}}": {404} for way in ("whip", "whep")},
    **{f"OPTIONS /{way}/{{avatar}}": {204} for way in ("whip", "whep")},
    **{f"OPTIONS /{way}/{{avatar}}/{{session}}": {204} for way in ("whip", "whep")},
}
EXAMPLES, SOAK_EXAMPLES = 20, 1000
NAMES = st.sampled_from([field.name for field in fields(Controls)])
CONTROLS = st.dictionaries(
    NAMES,
    st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.text()),
    max_size=2,
)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(_: object, value: object) -> bytes:
    """What is not JSON."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


class Victim:
    """A call that goes on in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/offer"
        self._client: Client | None = None
        self._leave = threading.Event()
        self.name = ""
        self.sdp = ""
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call()), name="victim")
        self._thread.start()
        assert self._up.wait(AT_LAST_S)

    @property
    def frames(self) -> int:
        """How many pictures have come."""
        return len(self._client.frames) if self._client is not None else 0

    def more(self, count: int) -> None:
        """Wait for `count` more."""
        wanted, waited = self.frames + count, threading.Event()
        for _ in range(int(AT_LAST_S / 0.02)):
            if self.frames >= wanted:
                return
            waited.wait(0.02)
        pytest.fail(f"{self.frames} pictures of {wanted}: the call does not go on")

    def close(self) -> None:
        self._leave.set()
        self._thread.join(AT_LAST_S)
        assert not self._thread.is_alive()

    async def _call(self) -> None:
        client = self._client = Client(Camera())
        self.sdp = await client.offer()
        async with httpx.AsyncClient() as http:
            body = {"sdp": self.sdp, "type": "offer", "size": 64}
            answer = await http.post(self._url, json=body, headers={"authorization": f"Bearer {TOKEN}"})
        self.name = answer.json()["session"]
        await client.accept(answer.json()["sdp"])
        self._up.set()
        while not self._leave.is_set():
            await asyncio.sleep(0.02)
        await client.close()


@contextmanager
def fuzzed() -> Generator[tuple[Running, Victim, requests.Session]]:
    with running(token=TOKEN, max_sessions=4) as server, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        victim = Victim(server.port)
        try:
            victim.more(3)
            yield server, victim, session
        finally:
            victim.close()


@pytest.fixture(scope="module")
def fuzz() -> Iterator[tuple[Running, Victim, requests.Session]]:
    with fuzzed() as parts:
        yield parts


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not looked at: what is sent around them is the matter here."""
    monkeypatch.setattr(uploads, "open_photo_apart", lambda *_, **__: None)
    monkeypatch.setattr(uploads, "enroll_photo", lambda *_, **__: plain_enrollment())
    monkeypatch.setattr(uploads, "open_avatar_apart", lambda *_, **__: plain_enrollment())
    monkeypatch.setattr(emotions, "drawn", lambda *_: {"happy": np.zeros((64, 64, 3), np.uint8)})
    monkeypatch.setattr(uploads, "as_background", lambda _: Background("colour", colour=(1, 2, 3)))
    # those of the last seconds are still up: how many may be is tested in test_reach
    monkeypatch.setattr(reach, "MOST_TESTS", 10_000)


def test_every_operation_is_tried(fuzz: tuple[Running, Victim, requests.Session]) -> None:
    paths = fuzz[0].app.openapi()["paths"]
    assert sorted(f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs) == sorted(
        OPERATIONS
    )


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_is_answered_as_documented(
    fuzz: tuple[Running, Victim, requests.Session], operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    attack(fuzz, operation, EXAMPLES, caplog)


@pytest.mark.soak
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_for_minutes_is_answered_as_documented(
    fuzz: tuple[Running, Victim, requests.Session], operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    attack(fuzz, operation, SOAK_EXAMPLES, caplog)


def attack(
    parts: tuple[Running, Victim, requests.Session],
    operation: str,
    examples: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`examples` requests to `operation`, sensible ones and others; what they were answered is checked.

    What is drawn hangs on the constants of all modules: where it did not go far enough, more is sent.
    """
    server, victim, session = parts
    caplog.set_level(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).addHandler(caplog.handler)
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    verb, path = operation.split()
    case_of = st.one_of([schema[path][verb].as_strategy(generation_mode=mode) for mode in MODES])
    sdps = st.one_of(st.none(), st.just(victim.sdp), mutated(victim.sdp))
    answered: set[int] = set()

    def send(case: Any, sdp: str | None, controls: dict[str, object], existing: bool) -> None:
        if existing and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = "red"
            if verb == "PUT":
                case.body = controls
        if existing and "avatar" in (case.path_parameters or {}):
            case.path_parameters["avatar"] = "red"
            if verb == "POST":
                case.body = sdp or case.body
                case.query = {"drive": "demo"} if "whep" in path else {}
        if existing and "session" in (case.path_parameters or {}):
            case.path_parameters["session"] = victim.name
            if isinstance(case.body, dict):
                changes = cast(dict[str, object], case.body)
                case.body = {k: v for k, v in changes.items() if k not in ("avatar", "generator")}
        if isinstance(case.body, dict) and "sdp" in case.body:
            body = cast(dict[str, object], case.body)
            names = ("avatar", "generator", "tracker", "background") if existing else ()
            case.body = {k: v for k, v in body.items() if k not in names} | ({"sdp": sdp} if sdp else {})
        answer = case.call(base_url=f"http://localhost:{server.port}", session=session)
        answered.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert set(answer.json()) - {"what"} == {"error"}
        assert TOKEN.encode() not in answer.content
        if verb == "POST" and path.startswith(("/api/offer", "/whip/", "/whep/")):
            hang_up_others(server, victim.name)

    wanted = WANTED.get(operation, {200})
    try:
        for count in (examples, 5 * examples, 25 * examples):
            often = settings(
                max_examples=count, deadline=None, database=None, derandomize=examples == EXAMPLES,
                phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            )  # fmt: skip
            often(given(case=case_of, sdp=sdps, controls=CONTROLS, existing=st.booleans())(send))()
            if answered >= wanted:
                break
    finally:
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).removeHandler(caplog.handler)
    assert answered >= wanted, "what was sent went not far enough"
    assert "Traceback" not in caplog.text
    assert TOKEN not in caplog.text
    victim.more(5)


def mutated(sdp: str) -> st.SearchStrategy[str]:
    """`sdp` with one line left out, changed or doubled."""
    lines = sdp.splitlines(keepends=True)

    def change(k: int, how: str) -> str:
        other = {"out": "", "twice": lines[k] * 2, "half": lines[k][: len(lines[k]) // 2] + "\r\n"}[how]
        return "".join([*lines[:k], other, *lines[k + 1 :]])

    return st.builds(change, st.integers(0, len(lines) - 1), st.sampled_from(["out", "twice", "half"]))


def hang_up_others(server: Running, name: str) -> None:
    """End every call but `name`."""
    app: FastAPI = server.app
    service: Service = app.state.service
    done = threading.Event()

    async def hang_up() -> None:
        await asyncio.gather(*(s.close() for s in [*service.calls.sessions] if s.name != name))
        done.set()

    tasks: list[asyncio.Task[None]] = []
    server.run(lambda: tasks.append(asyncio.get_running_loop().create_task(hang_up())))
    assert done.wait(AT_LAST_S)
