"""Who gets what: every route of the server, with and without its token, over a real socket, in raw bytes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from fastapi import FastAPI
from pydantic import ValidationError
from raw import Answer, Running, running, write_certificate
from starlette.routing import BaseRoute

from engines.errors import VisavisError
from streamer.serve.config import ServeSettings, read_settings
from streamer.serve.headers import HEADERS
from streamer.serve.seldom import SELDOM

TOKEN = "an-access-token.0"
CLOSE = "Host: localhost\r\nConnection: close\r\n"
# what anybody may have, and nothing else: a new route is behind the token
OPEN = {"/", "/api/health", "/static/main.js"}
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW")
AUTHORIZATIONS = (
    "", f"Authorization: {TOKEN}\r\n", f"Authorization: Bearer {TOKEN[:-1]}\r\n", f"Authorization: Basic {TOKEN}\r\n",
    f"Authorization: Bearer {TOKEN}x\r\n", f"Authorization: Bearer {TOKEN.upper()}\r\n", "Authorization: Bearer\r\n",
    f"Authorization: Bearer  {TOKEN}\r\n", "Authorization: Bearer \xfc\r\n", f"X-Authorization: Bearer {TOKEN}\r\n",
    f"Cookie: token={TOKEN}\r\n",
)  # fmt: skip
RIGHT = f"Authorization: Bearer {TOKEN}\r\n"
HOSTS = (
    "localhost", "a/x?", "a#", "a/api/health?", "localhost/static/main.js?", "a@b", "[::1", "", "a b", "a:99999999",
    "localhost:8000/?", "evil.example",
)  # fmt: skip
DETOURS = (
    "/{path}", "/.{path}", "{path}/", "{path}//", "{path}?token={token}", "{path}?/api/health", "{path}#/", "{path};a",
    "{path}%00", "{path}%20", "{path}/.", "{path}%2f", "/static/..{path}", "/static/%2e%2e{path}",
    "/api/health/..{path}", "/api/health/%2e%2e{path}", "/static/main.js/../..{path}", "http://localhost{path}",
    "http://localhost/api/health{path}",
    "//localhost{path}", "/%2f{path}", "\\{path}", "/static{path}", "/api/health{path}", "*{path}", "@localhost{path}",
)  # fmt: skip


def every_route(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Those of routers that are included too: newer versions of FastAPI keep them apart."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from every_route(inner.routes)
        else:
            yield route


def paths_of(app: FastAPI) -> list[str]:
    """An address of each route."""
    paths = [str(getattr(route, "path", "")) for route in every_route(app.routes)]
    assert all(paths), "a route of a kind that this test does not know"
    addresses = [
        p.replace("{name}", "red")
        .replace("{avatar}", "red")
        .replace("{session}", "red")
        .replace("/static", "/static/main.js")
        for p in paths
    ]
    assert not [p for p in addresses if "{" in p]
    return [*dict.fromkeys(addresses)]


def add_broken(app: FastAPI) -> None:
    """A route that nobody thought of here, and that fails."""

    @app.get("/new/route")
    async def broken() -> None:  # pyright: ignore[reportUnusedFunction]
        raise RuntimeError("as no route should")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """As the world sees it, though it listens on loopback."""
    with running(host="0.0.0.0", token=TOKEN, change=add_broken) as server:
        yield server


def ask(server: Running, method: str, target: str, more: str = CLOSE) -> Answer:
    answer = server.say(f"{method} {target} HTTP/1.1\r\n{more}\r\n".encode("latin-1"))
    for name, value in HEADERS.items():
        assert answer.headers[name.lower()] == value, (method, target, more, answer.status)
    assert "location" not in answer.headers, "nobody is sent elsewhere"
    assert "access-control-allow-origin" not in answer.headers
    assert TOKEN.encode() not in answer.body
    if answer.status >= 400 and method != "HEAD":
        assert len(answer.sentence) > 12
    return answer


def test_every_route_is_known(server: Running) -> None:
    assert {"/api/avatars", "/api/offer", "/metrics", "/openapi.json", "/new/route", *OPEN} <= set(
        paths_of(server.app)
    )


def test_without_the_token_nothing_but_the_page_answers(server: Running) -> None:
    for path, method, authorization in product(paths_of(server.app), METHODS, AUTHORIZATIONS):
        answer = ask(server, method, path, CLOSE + authorization)
        assert (answer.status == 401) == (path not in OPEN), (path, method, authorization)
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token_every_route_answers(server: Running) -> None:
    for path, method in product(paths_of(server.app), METHODS):
        status = ask(server, method, path, CLOSE + RIGHT).status
        assert status != 401, (path, method)
        assert status < 500 or path == "/new/route", (path, method)


def test_no_host_and_no_detour_goes_round_the_token(server: Running) -> None:
    for path in set(paths_of(server.app)) - OPEN:
        for host in HOSTS:
            status = ask(server, "GET", path, f"Host: {host}\r\nConnection: close\r\n").status
            assert status in (400, 401), (path, host)
        ways = [d.format(path=path, token=TOKEN) for d in DETOURS]
        ways += [
            path.upper(),
            path.replace("/", "/%2e/"),
            path.replace("p", "%70"),
            path.replace("/", "%2f"),
            path[1:],
        ]
        for way, host in product(ways, ("localhost", "a/x?", "a#")):
            answer = ask(server, "GET", way, f"Host: {host}\r\nConnection: close\r\n")
            assert answer.status in (400, 401, 404), (way, host, answer.status)


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, down to DEBUG, by uvicorn too, which keeps it from the root logger."""
    monkeypatch.setattr(SELDOM, "_said_s", None)  # else another test's line is this minute's
    caplog.set_level(logging.DEBUG)
    own = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.access")]
    for logger in own:
        logger.addHandler(caplog.handler)
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        caplog.set_level(logging.DEBUG, name)
    yield caplog
    for logger in own:
        logger.removeHandler(caplog.handler)


def test_a_failure_that_nobody_foresaw_is_one_sentence(
    server: Running, log: pytest.LogCaptureFixture
) -> None:
    answer = ask(server, "GET", f"/new/route?token={TOKEN}", CLOSE + RIGHT)
    assert answer.status == 500
    assert "log" in answer.sentence
    assert "as no route should" not in answer.sentence
    ask(server, "GET", "/api/health")  # it is logged once it is answered
    assert "as no route should" in log.text
    assert TOKEN not in log.text


def test_only_this_computers_names_are_answered_on_loopback() -> None:
    with running() as server:
        for host in HOSTS[1:]:
            assert (
                ask(server, "GET", "/api/avatars", f"Host: {host}\r\nConnection: close\r\n").status == 400
            ), host
        for host in ("localhost", "LOCALHOST:9", "127.0.0.1", "[::1]", "[::1]:8000", "localhost:"):
            assert (
                ask(server, "GET", "/api/avatars", f"Host: {host}\r\nConnection: close\r\n").status == 200
            ), host


NO_HTTP = [
    b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n: y\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("request_bytes", NO_HTTP, ids=[str(k) for k in range(len(NO_HTTP))])
def test_what_is_no_http_is_refused_with_the_policy_too(server: Running, request_bytes: bytes) -> None:
    answer = server.say(request_bytes)
    assert answer.status in (200, 400, 401)  # long heads may come in one piece
    for name, value in HEADERS.items():
        assert answer.headers[name.lower()] == value
    if answer.status == 400:
        assert "HTTP" in answer.sentence
        assert answer.headers["connection"] == "close"


def test_a_body_that_breaks_off_into_nonsense_leaves_no_traceback(
    server: Running, log: pytest.LogCaptureFixture
) -> None:
    head = f"POST /api/offer HTTP/1.1\r\nHost: localhost\r\n{RIGHT}Content-Type: application/json\r\n"
    for rest in (
        b"Content-Length: 2\r\n\r\n{}\x00 nonsense after it\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n",
        b"Content-Length: 20000\r\n\r\n{",
    ):
        with server.connect() as client:
            client.sendall(head.encode() + rest)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
    assert ask(server, "GET", "/api/health").status == 200
    assert "Traceback" not in log.text
    assert log.text.count("something that is no HTTP came to this port") == 1


def test_the_token_stands_in_no_log(server: Running, log: pytest.LogCaptureFixture) -> None:
    for path, more in product(paths_of(server.app), (CLOSE, CLOSE + RIGHT)):
        for method in METHODS:
            ask(
                server,
                method,
                f"{path}?token={TOKEN}",
                more + f"Referer: http://localhost/?token={TOKEN}\r\n",
            )
    server.say(f"GET /?token={TOKEN} nonsense\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert "something that is no HTTP came to this port" in log.text
    assert TOKEN not in log.text
    assert TOKEN not in repr(ServeSettings(token=TOKEN))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "s3cret",
        "elevenchars",
        "twelve chars",
        "tokentoken\xfctoken",
        "token\ntokentoken",
        "a&b=cdefghijkl",
    ],
)
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError):
        ServeSettings(token=token)
    monkeypatch.setenv("VISAVIS_TOKEN", token)
    with pytest.raises(VisavisError) as refusal:
        read_settings()
    assert "secrets.token_urlsafe()" in str(refusal.value)
    if len(token) > 1:
        assert token not in str(refusal.value)
        assert token not in str(refusal.value.__cause__), "which --debug shows"


def test_variables_that_are_not_ours_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with running(token=TOKEN) as server:
        forwarded = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=127.0.0.1\r\n"
        assert ask(server, "GET", "/api/avatars", CLOSE + forwarded).status == 401
        upgrade = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        for path in ("/api/avatars", "/metrics", "/"):
            assert ask(server, "GET", path, upgrade).status == (200 if path == "/" else 401)


@pytest.mark.parametrize("size", ["inf", "nan", "0", "-1", "1e300"])
def test_a_size_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_MAX_PHOTO_MB", size)
    with pytest.raises(VisavisError, match="VISAVIS_MAX_PHOTO_MB"):
        read_settings()


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    assert read_settings(tls_cert=cert, tls_key=key).tls_cert == cert
    locked, text = tmp_path / "locked.pem", tmp_path / "text.pem"
    text.write_text("no PEM")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    _, other = write_certificate(tmp_path / "other")
    for bad_cert, bad_key, named in (
        (tmp_path / "none.pem", key, "none.pem"),
        (cert, tmp_path, "--tls-key"),
        (text, key, "text.pem"),
        (cert, text, "text.pem"),
        (cert, locked, "password"),
        (cert, other, "no certificate and its key"),
    ):
        with pytest.raises(VisavisError, match=named):
            read_settings(tls_cert=bad_cert, tls_key=bad_key)


def test_a_token_that_is_made_as_told_is_taken() -> None:
    for token in ("d2Vha25lc3MtdG9rZW4_-x", "twelve.chars", "QUJDREVGR0g+/A=="):
        assert ServeSettings(token=token).token == token
