"""Pictures that clients send: decoded in a process of their own, and given up when their client goes."""

from __future__ import annotations

import io
import json
import select
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import BinaryIO

import httpx
import pytest
import uvicorn
from bombs import BOMBS
from calls import RED, Painter, plain_enrollment
from fakes import AT_LAST_S, encoded, picture
from fastapi.testclient import TestClient

from calibration import photo as photo_module
from calibration.photo import Photo
from calibration.photo_apart import Cancelled
from streamer.serve import uploads
from streamer.serve.app import create_app
from streamer.serve.aside import WAITING
from streamer.serve.config import ServeSettings
from streamer.serve.listener import listen
from streamer.serve.store import AvatarStore

URL = "http://127.0.0.1:8000"
SENT = {
    "/api/avatars": ("photo", {"consent": "Ada"}),
    "/api/backgrounds": ("picture", {}),
}


@pytest.fixture
def client() -> Generator[TestClient]:
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    app = create_app(ServeSettings(), store, make_avatar=Painter)  # type: ignore[arg-type]
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as made:
        yield made


def send(client: httpx.Client, path: str, data: bytes) -> httpx.Response:
    field, form = SENT[path]
    return client.post(path, files={field: ("me.png", data)}, data=form)


@pytest.mark.parametrize("path", SENT)
def test_nothing_is_decoded_in_the_server(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object) -> None:
        raise AssertionError("decoded in the server's own process")

    monkeypatch.setattr(photo_module, "_decode", must_not)
    monkeypatch.setattr("PIL.Image.open", must_not)
    answer = send(client, path, encoded(picture(0, 200, 160), "PNG"))
    if path == "/api/backgrounds":
        assert answer.status_code == 201
    else:  # it was opened; nobody is in it
        assert answer.status_code == 400
        assert "no face found" in answer.json()["error"]


@pytest.mark.parametrize("path", SENT)
@pytest.mark.parametrize("name", ["jpeg_of_many_scans", "jpeg_2000", "postscript", "half_a_jpeg", "wide_gif"])
def test_a_bomb_is_one_sentence(client: TestClient, path: str, name: str) -> None:
    answer = send(client, path, BOMBS[name]())
    assert answer.status_code == 400
    sentence = answer.json()["error"]
    assert sentence.startswith(
        "the photo" if path == "/api/avatars" else "no background: the background picture"
    )
    assert "; " in sentence


class HeldPhoto:
    """In place of the child process: never ends by itself."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, file: BinaryIO, *, cancelled: threading.Event) -> Photo:
        self.begun.release()
        cancelled.wait(AT_LAST_S)
        self.ended.release()
        raise Cancelled


@contextmanager
def really_served() -> Generator[int]:
    """A port of this computer with a server that has connections."""
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    app = create_app(ServeSettings(), store, make_avatar=Painter)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def begin(port: int, path: str) -> socket.socket:
    """A connection that has sent a whole picture and waits for the answer."""
    field, form = SENT[path]
    request = httpx.Request(
        "POST", f"http://127.0.0.1:{port}{path}", files={field: ("me.png", b"picture")}, data=form
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection(("127.0.0.1", port), AT_LAST_S)
    connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    return connection


@pytest.mark.parametrize("path", SENT)
def test_when_the_client_goes_its_picture_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldPhoto()
    monkeypatch.setattr(uploads, "open_photo_apart", held)
    with really_served() as port:
        first, second, third = (begin(port, path) for _ in range(3))
        assert held.begun.acquire(timeout=AT_LAST_S)
        second.close()  # it waits
        first.close()
        assert held.ended.acquire(timeout=AT_LAST_S)
        assert held.begun.acquire(timeout=AT_LAST_S), "the next one's turn"
        third.close()
        assert held.ended.acquire(timeout=AT_LAST_S)


def test_beyond_the_queue_there_is_503_and_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldPhoto()
    monkeypatch.setattr(uploads, "open_photo_apart", held)
    with really_served() as port:
        sent = [begin(port, "/api/backgrounds") for _ in range(WAITING + 2)]
        assert held.begun.acquire(timeout=AT_LAST_S)
        answers, _, _ = select.select(sent, [], [], AT_LAST_S)
        answer = HTTPResponse(answers[0])
        answer.begin()
        assert answer.status == 503
        assert int(answer.getheader("Retry-After", "0")) > 0
        assert json.loads(answer.read())["error"].endswith("in a moment")
        for connection in sent:
            connection.close()


def test_an_upload_leaves_the_photo_and_its_error_apart(client: TestClient) -> None:
    answer = send(client, "/api/avatars", io.BytesIO(b"%PDF-1.4").getvalue())
    assert answer.status_code == 400
    assert "is a PDF" in answer.json()["error"]
