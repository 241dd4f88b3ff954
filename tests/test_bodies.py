"""What comes with a request: no longer than its route takes, in memory, read once, and never a reason to fail."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace
from typing import Any, BinaryIO

import httpx
import pytest
from calls import RED, Painter, plain_enrollment
from fakes import AT_LAST_S
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from raw import Running, answer_of, running
from starlette.types import Message, Receive, Scope, Send
from test_server import error_of, serving, sessions_of

from streamer.serve import uploads
from streamer.serve.app import create_app
from streamer.serve.bodies import CONTROLS_BYTES, FORM, FORM_BYTES, JSON, OFFER_BYTES, bodies, body_of
from streamer.serve.config import ServeSettings
from streamer.serve.errors import answer_of as answer_of_sentence
from streamer.serve.guard import Guard
from streamer.serve.store import AvatarStore
from streamer.serve.upload_places import GRACE_S, MOST_UPLOADS_AT_ONCE, PACE_BYTES_PER_S, UploadPlaces
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS

TABLE = bodies(ServeSettings())
HEAD = "Host: localhost\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def new_app(**settings: Any) -> FastAPI:
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    return create_app(ServeSettings(**settings), store, make_avatar=Painter)  # type: ignore[arg-type]


def test_a_body_is_taken_where_a_route_reads_one_and_nowhere_else() -> None:
    paths: dict[str, dict[str, Any]] = new_app().openapi()["paths"]
    reading = {
        (verb.upper(), path): {*operation["requestBody"]["content"]}
        for path, verbs in paths.items()
        for verb, operation in verbs.items()
        if "requestBody" in operation
    }
    assert reading == {address: {body.media_type} for address, body in TABLE.items()}
    assert body_of("PUT", "/api/avatars/a/b/controls", TABLE) is None
    assert body_of("GET", "/api/offer", TABLE) is None


def test_what_is_too_long_is_refused_at_its_head(server: Running) -> None:
    for (method, template), body in TABLE.items():
        path = template.replace("{name}", "red")
        for length in (body.limit_bytes + 1, 10**9, 10**19):
            head = f"{method} {path} HTTP/1.1\r\n{HEAD}Content-Type: {body.media_type}\r\n"
            answer = server.say(f"{head}Content-Length: {length}\r\n\r\n".encode())  # and not a byte of it
            assert (answer.status, answer.sentence) == (413, body.too_large)
        for more in (
            "",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        ):
            head = f"{method} {path} HTTP/1.1\r\n{HEAD}Content-Type: {body.media_type}\r\n{more}\r\n"
            answer = server.say(head.encode())
            assert answer.status == 411, (path, more)
            assert "Content-Length" in answer.sentence
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            JSON if body.media_type == FORM else FORM,
            "x",
        ):
            head = f"{method} {path} HTTP/1.1\r\n{HEAD}Content-Type: {kind}\r\nContent-Length: 9\r\n\r\n"
            answer = server.say(head.encode())
            assert answer.status == 415, (path, kind)
            assert body.media_type in answer.sentence


def test_addresses_that_take_nothing_are_sent_nothing(server: Running) -> None:
    addresses = (
        ("GET", "/"), ("GET", "/api/avatars"), ("GET", "/metrics"), ("DELETE", "/api/avatars/red"),
        ("POST", "/api/none"), ("GET", "/static/main.js"), ("GET", "/api/offer"), ("PATCH", "/api/offer"),
        ("GET", "/api/avatars/red/picture"),
    )  # fmt: skip
    for (method, path), more in product(
        addresses, ("Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n")
    ):
        answer = server.say(f"{method} {path} HTTP/1.1\r\n{HEAD}{more}\r\n".encode())
        assert answer.status == 413, (method, path, more)
        assert "without a body" in answer.sentence
    assert server.say(f"GET /api/health HTTP/1.1\r\n{HEAD}Content-Length: 0\r\n\r\n".encode()).status == 200


def test_what_is_refused_is_read_to_its_end_and_the_connection_goes_on(server: Running) -> None:
    """Else a browser that is still sending sees a broken connection, and not the sentence."""
    with server.connect() as client:
        size = OFFER_BYTES + 1
        head = f"POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nContent-Length: {size}\r\n\r\n"
        client.sendall(head.encode() + bytes(size))
        assert answer_of(client).status == 413
        client.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer_of(client).status == 200


def test_the_limit_is_the_limit(client: TestClient) -> None:
    for length, status in ((OFFER_BYTES, 422), (OFFER_BYTES + 1, 413)):
        text = '{"type": 7}'.ljust(length)
        answer = client.post("/api/offer", content=text, headers={"content-type": JSON})
        assert answer.status_code == status
    for length, status in ((CONTROLS_BYTES, 200), (CONTROLS_BYTES + 1, 413)):
        answer = client.put(
            "/api/avatars/red/controls", content="{}".ljust(length), headers={"content-type": JSON}
        )
        assert answer.status_code == status
    longest = ("a=x\r\n" * MAX_SDP_CHARS)[
        :MAX_SDP_CHARS
    ]  # nothing but line ends, which JSON writes as four characters
    assert client.post("/api/offer", json={"sdp": longest, "type": "offer"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "limit"), [("/api/offer", OFFER_BYTES), ("/api/backgrounds", 100_000 + FORM_BYTES)]
)
def test_a_length_that_lies_ends_where_the_limit_is(path: str, limit: int) -> None:
    """Whatever counts for the server before us: it is counted again while it is read."""
    taken: list[int] = []

    async def ask() -> list[Message]:
        answers: list[Message] = []

        async def receive() -> Message:
            taken.append(1 << 14)
            return {"type": "http.request", "body": bytes(1 << 14), "more_body": True}

        async def send(message: Message) -> None:
            answers.append(message)

        kind = JSON if path == "/api/offer" else f"{FORM}; boundary=b"
        await new_app(max_photo_mb=0.1)(scope_of("POST", path, kind, 9), receive, send)
        return answers

    answers = asyncio.run(asyncio.wait_for(ask(), AT_LAST_S))
    if path == "/api/offer":
        assert answers[0]["status"] == 413
        assert sum(taken) <= limit + (1 << 14)
    assert 400 <= answers[0]["status"] < 500
    assert sum(taken) <= limit + (1 << 14)


def scope_of(method: str, path: str, kind: str, length: int) -> Scope:
    headers = {"host": "localhost", "content-type": kind, "content-length": str(length)}
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "state": {},
        "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 9),
        "headers": [(n.encode(), v.encode()) for n, v in headers.items()],
    }  # fmt: skip


# --- JSON


def evil_json() -> dict[str, bytes]:
    nested = {
        f"{what} {depth}": (what * depth).encode() for what in ("[", '{"a":') for depth in (900, 3000, 40_000)
    }
    closed = {f"closed {depth}": b'{"type":' + b"[" * depth + b"]" * depth + b"}" for depth in (900, 7000)}
    numbers = (
        "1e999",
        "-1e999",
        "9" * 4000,
        "9" * 5000,
        "-" + "1" * 4299,
        "1e-999999",
        "NaN",
        "-Infinity",
        "0" * 99,
        "1.",
    )
    named = {
        f"{field} {number[:9]} {len(number)}": json.dumps({"type": "offer", "sdp": "v=0", field: 0})
        .replace(": 0", f": {number}")
        .encode()
        for field in ("size", "trim_ms", "head", "sdp", "voice_helps")
        for number in numbers
    }
    odd = {
        "twice": b'{"type":"offer","type":"offer","sdp":"v=0"}', "twice inside": b'{"head":{"a":1,"a":2}}',
        "byte order mark": b"\xef\xbb\xbf{}", "utf-16": "{}".encode("utf-16"), "utf-32": "{}".encode("utf-32"),
        "latin-1": b'{"sdp":"\xfc"}', "surrogate": b'{"type":"offer","sdp":"v=0","avatar":"\\ud800"}',
        "surrogate name": b'{"\\ud800":1}', "surrogate preset": b'{"preset":"\\udfff"}', "NUL": b'{"preset":"\\u0000"}',
        "surrogate generator": b'{"type":"offer","sdp":"v=0","generator":"\\ud800\\n"}',
        "surrogate background": b'{"type":"offer","sdp":"v=0","background":"#\\ud800"}',
        "surrogate sdp": b'{"type":"offer","sdp":"v=0\\r\\no=\\ud800"}', "line ends": b'{"preset":"a\\r\\nb"}',
        "bare": b"7", "null": b"null", "text": b'"text"', "two": b"{}{}", "empty": b"", "spaces": b"   ",
        "comment": b"{}//", "single quotes": b"{'a':1}", "comma": b'{"a":1,}',
        "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        "__proto__": b'{"__proto__":{"head":1}}', "list of lists": b'[["head",1]]', "dunder": b'{"__class__":"x"}',
        "many names": json.dumps({f"n{k}": k for k in range(900)}).encode(),
    }  # fmt: skip
    return nested | closed | named | odd


@pytest.mark.parametrize("body", evil_json().values(), ids=evil_json())
def test_json_of_any_kind_is_refused_in_one_sentence(client: TestClient, body: bytes) -> None:
    headers = {"content-type": JSON}
    for answer in (
        client.post("/api/offer", content=body, headers=headers),
        client.put("/api/avatars/red/controls", content=body, headers=headers),
    ):
        assert 400 <= answer.status_code < 500 or answer.json()["kept"] == "memory", answer.text
        if answer.status_code >= 400:
            assert len(error_of(answer)) < 500
    assert sessions_of(client) == 0


def test_json_says_each_thing_once(client: TestClient) -> None:
    for text in ('{"head": 0.5, "head": 0.5}', '{"head": 0.5, "h\\u0065ad": 1}'):
        answer = client.put("/api/avatars/red/controls", content=text, headers={"content-type": JSON})
        assert answer.status_code == 400
        assert "twice" in error_of(answer)
    answer = client.put("/api/avatars/red/controls", content="[" * 1500, headers={"content-type": JSON})
    assert "nested" in error_of(answer)


def test_a_long_number_is_not_read(client: TestClient) -> None:
    for number in ("9" * 4000, "0." + "1" * 4000, "1e" + "0" * 4000):
        answer = client.put(
            "/api/avatars/red/controls", content=f'{{"head": {number}}}', headers={"content-type": JSON}
        )
        assert answer.status_code == 400
        assert "characters" in error_of(answer)


def test_json_of_many_things_is_not_made(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("it was made")

    stand_in = SimpleNamespace(loads=must_not, JSONDecodeError=json.JSONDecodeError)
    monkeypatch.setattr("streamer.serve.requests.json", stand_in)
    for item in ("{},", "[],", "1,", '"a":1,'):
        for path, method in (("/api/offer", "POST"), ("/api/avatars/red/controls", "PUT")):
            answer = client.request(method, path, content=item * 2100, headers={"content-type": JSON})
            assert answer.status_code == 400
            assert "far more" in error_of(answer)


def test_a_sentence_is_one_line_that_can_be_sent() -> None:
    answer = answer_of_sentence("no \udc80\n of\r\nthat name", 400)
    assert json.loads(bytes(answer.body)) == {"error": r"no \udc80 of that name"}


# --- forms


def form(parts: list[bytes], boundary: bytes = b"b") -> bytes:
    return (
        b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    )


def part(name: str, value: bytes, more: str = "") -> bytes:
    return (
        f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode("utf-8", "surrogateescape")
        + value
    )


PHOTO = part("photo", b"x", '; filename="me.jpg"')
CONSENT = part("consent", b"Ada")
GOOD = [PHOTO, CONSENT]
FORMS: dict[str, tuple[str, bytes]] = {
    "two files": ("b", form([PHOTO, PHOTO, CONSENT])),
    "1000 files": ("b", form([PHOTO] * 1000)),
    "1000 fields": ("b", form([*GOOD, *[part(f"f{k}", b"x") for k in range(1000)]])),
    "long field": ("b", form([PHOTO, part("consent", b"x" * 50_000)])),
    "long name": ("b", form([*GOOD, part("n" * 30_000, b"x")])),
    "photo as text": ("b", form([part("photo", b"x"), CONSENT])),
    "consent as file": ("b", form([part("consent", b"x", '; filename="c"')])),
    "many headers": ("b", form([b"X-A: b\r\n" * 5000 + PHOTO, CONSENT])),
    "long header": ("b", form([b"X-A: " + b"b" * 50_000 + b"\r\n" + PHOTO, CONSENT])),
    "headers without end": ("b", b"--b\r\n" + b"X-A: b\r\n" * 5000),
    "no boundary": ("", form(GOOD)),
    "another boundary": ("c", form(GOOD)),
    "long boundary": ("b" * 5000, form(GOOD, b"b" * 5000)),
    "empty": ("b", b""),
    "no end": ("b", form(GOOD)[:-6]),
    "only the end": ("b", b"--b--\r\n"),
    "preamble": ("b", b"\r\n" * 20_000 + form(GOOD)),
    "nearly boundaries": (
        "b",
        form([part("photo", b"\r\n--" * 10_000, '; filename="me.jpg"'), part("consent", b" ")]),
    ),
    "no name": ("b", form([b"Content-Disposition: form-data\r\n\r\nx"])),
    "no disposition": ("b", form([b"Content-Type: text/plain\r\n\r\nx"])),
    "json": ("b", b'{"photo": 1}'),
    "bare line ends": ("b", form(GOOD).replace(b"\r\n", b"\n")),
    "charset": ("b; charset=utf-7", form([PHOTO, part("consent", b"\xff\xfe ")])),
    "charset that is none": ("b; charset=\\x00", form([PHOTO, part("consent", b" ")])),
    "surrogates": ("b", form([part("photo", b"x", '; filename="\udcff\udcfe.jpg"'), part("consent", b" ")])),
}


@pytest.mark.parametrize(("boundary", "body"), FORMS.values(), ids=FORMS)
def test_forms_of_any_kind_are_refused_in_one_sentence(
    client: TestClient, boundary: str, body: bytes
) -> None:
    kind = f"{FORM}; boundary={boundary}" if boundary else FORM
    for path in ("/api/avatars", "/api/backgrounds"):
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, answer.text
        assert len(error_of(answer)) < 500


# --- memory, and how many at once


async def test_an_upload_never_lies_on_the_disk_and_is_forgotten_with_its_client() -> None:
    app = new_app()
    before, open_before = spooled(), temporary_files()
    head = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    chunks = [head, *[bytes(1 << 16)] * 160]  # 10 MB, and then the client is gone
    seen: list[set[str]] = []

    async def receive() -> Message:
        if chunks:
            return {"type": "http.request", "body": chunks.pop(0), "more_body": True}
        seen.append(temporary_files() - open_before)
        assert spooled() == before + 1
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        pass

    await app(scope_of("POST", "/api/backgrounds", f"{FORM}; boundary=b", 20 << 20), receive, send)
    assert seen == [set()]
    assert spooled() == before


def spooled() -> int:
    gc.collect()
    return sum(type(o) is SpooledTemporaryFile for o in gc.get_objects())


def temporary_files() -> set[str]:
    """Files that are open and have no name, which is how the body of a request lies on a disk."""
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.add(os.readlink(entry))  # noqa: PTH115  # a socket's is no path
    return {name for name in found if name.startswith("/") and name.endswith("(deleted)")}


async def test_so_many_uploads_at_once_and_then_503() -> None:
    there, leave = asyncio.Semaphore(0), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        there.release()
        await leave.wait()
        raise RuntimeError("however it ends")

    guard = Guard(app, ServeSettings())
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answers.append(message)

    def upload(path: str) -> asyncio.Task[None]:
        return asyncio.ensure_future(guard(scope_of("POST", path, FORM, 9), receive, send))

    up = [upload("/api/avatars" if k % 2 else "/api/backgrounds") for k in range(MOST_UPLOADS_AT_ONCE)]
    for _ in up:
        await there.acquire()
    await upload("/api/avatars")
    assert answers[0]["status"] == 503
    assert (b"retry-after", b"5") in answers[0]["headers"]
    other = asyncio.ensure_future(guard(scope_of("POST", "/api/offer", JSON, 9), receive, send))
    await there.acquire()  # a call may begin
    leave.set()
    await asyncio.gather(other, *up, return_exceptions=True)
    again = upload("/api/avatars")
    await there.acquire()
    await asyncio.gather(again, return_exceptions=True)


class Arriving:
    """Pictures on their way to one server, in a time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.app = new_app()
        guard = next(m for m in self.app.user_middleware if m.cls is Guard)
        guard.kwargs["places"] = UploadPlaces(lambda: self.now_s)
        self.lines: list[asyncio.Queue[bytes]] = []
        self.answers: list[asyncio.Future[int]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> int:
        """One more; its number."""
        line: asyncio.Queue[bytes] = asyncio.Queue()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            return {"type": "http.request", "body": await line.get(), "more_body": True}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.set_result(message["status"])

        scope = scope_of("POST", "/api/backgrounds", f"{FORM}; boundary=b", 50 << 20)
        self.tasks.append(asyncio.ensure_future(self.app(scope, receive, send)))
        self.lines.append(line)
        self.answers.append(answer)
        await self.send(len(self.lines) - 1, part("picture", b"", '; filename="a"').join((b"--b\r\n", b"")))
        return len(self.lines) - 1

    async def send(self, number: int, data: bytes) -> None:
        self.lines[number].put_nowait(data)
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_the_slowest_picture_makes_room_for_the_next() -> None:
    arriving = Arriving()
    try:
        for _ in range(MOST_UPLOADS_AT_ONCE):
            await arriving.begin()
        for _ in range(int(GRACE_S) + 1):
            arriving.now_s += 1
            for number in range(MOST_UPLOADS_AT_ONCE):
                # one stays under the pace more than another, and two keep it
                share = (0.9, 0.1, 2.0, 0.5, 1.1)[number]
                await arriving.send(number, bytes(int(share * PACE_BYTES_PER_S)))
        for slow in (1, 3, 0):
            late = await arriving.begin()
            assert await asyncio.wait_for(arriving.answers[slow], AT_LAST_S) == 503
            assert not arriving.answers[late].done()
        assert await asyncio.wait_for(arriving.answers[await arriving.begin()], AT_LAST_S) == 503
        assert [answer.done() for answer in arriving.answers] == [
            True, True, False, True, False, False, False, False, True
        ]  # fmt: skip
    finally:
        await arriving.close()


async def test_nobody_is_judged_before_it_had_time() -> None:
    arriving = Arriving()
    try:
        for _ in range(MOST_UPLOADS_AT_ONCE):
            await arriving.begin()
        arriving.now_s += GRACE_S - 0.1
        assert await asyncio.wait_for(arriving.answers[await arriving.begin()], AT_LAST_S) == 503
        arriving.now_s += 0.2
        late = await arriving.begin()
        assert not arriving.answers[late].done()
        assert sum(answer.done() for answer in arriving.answers) == 2
    finally:
        await arriving.close()


def test_a_picture_that_is_not_sent_whole_is_no_failure(server: Running) -> None:
    with server.connect() as client:
        head = f"POST /api/avatars HTTP/1.1\r\n{HEAD}Content-Type: {FORM}; boundary=b\r\nContent-Length: 9999\r\n\r\n"
        client.sendall(head.encode() + form(GOOD))
    assert server.say(f"GET /api/health HTTP/1.1\r\n{HEAD}\r\n".encode()).status == 200


def test_a_picture_of_the_largest_size_is_read_whole(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    def look(file: BinaryIO, **_: object) -> None:
        heard.append(len(file.read()))
        raise HTTPException(418, "enough was seen of it")

    monkeypatch.setattr(uploads, "open_photo_apart", look)
    size = ServeSettings().max_photo_bytes
    sent: httpx.Response = client.post("/api/backgrounds", files={"picture": ("a.png", bytes(size))})
    assert sent.status_code == 418
    assert heard == [size]
    assert client.post("/api/backgrounds", files={"picture": ("a.png", bytes(size + 1))}).status_code == 413
