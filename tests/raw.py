"""A real server on loopback, spoken to in raw bytes."""

from __future__ import annotations

import datetime
import json
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calls import GREEN, RED, Painter, plain_enrollment
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fakes import AT_LAST_S
from fastapi import FastAPI

from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.connections import Connections
from streamer.serve.listener import listen
from streamer.serve.start import Server
from streamer.serve.store import AvatarStore


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `headers`' names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """The one sentence of a refusal."""
        said = json.loads(self.body)
        assert set(said) - {"what"} == {"error"}
        assert said["error"]
        assert "\n" not in said["error"]
        return said["error"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs in this process."""

    app: FastAPI
    connections: Connections
    port: int
    run: Callable[[Callable[[], object]], None]  # in its event loop, later

    def connect(self) -> socket.socket:
        """A client of it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=AT_LAST_S)

    def say(self, request: bytes) -> Answer:
        """The answer to one request; a HEAD's has no body."""
        with self.connect() as client:
            client.sendall(request)
            return answer_of(client, head=request.startswith(b"HEAD"))


def answer_of(client: socket.socket, *, head: bool = False) -> Answer:
    """Read one answer from `client`."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = client.recv(1 << 16)
        assert more, f"closed after {received!r}"
        received += more
    first, _, body = received.partition(b"\r\n\r\n")
    status, *lines = first.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while not head and len(body) < int(headers.get("content-length", "0")):
        more = client.recv(1 << 16)
        assert more, "closed within the body"
        body += more
    return Answer(int(status.split()[1]), headers, body)


@contextmanager
def running(
    connections: Connections | None = None,
    change: Callable[[FastAPI], object] = lambda _: None,
    **settings: Any,
) -> Generator[Running]:
    """`visavis serve` of two avatars that only paint, in a thread."""
    store = AvatarStore()
    store.add_public(plain_enrollment(RED, "red"))
    store.add_public(plain_enrollment(GREEN, "green"))
    wanted = ServeSettings(**settings)
    app = create_app(wanted, store, make_avatar=Painter)  # type: ignore[arg-type]
    change(app)
    listener = listen("127.0.0.1", 0, connections)
    port = listener.getsockname()[1]
    ready = threading.Event()
    server = Server(app, listener, wanted, on_ready=ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="raw-server")
    thread.start()
    try:
        assert ready.wait(AT_LAST_S)
        loop = server.servers[0].get_loop()
        yield Running(app, listener.connections, port, lambda work: void(loop.call_soon_threadsafe(work)))
    finally:
        server.should_exit = True
        thread.join(AT_LAST_S)
        assert not thread.is_alive()


def void(_: object) -> None:
    """Nothing of it."""


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost's own, and its key, in `folder`."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    unlocked = serialization.NoEncryption()
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked)
    )
    return cert_file, key_file
