"""`Listener`: the server's socket, before anything slow is imported, and how many it lets in."""

from __future__ import annotations

import contextlib
import errno
import socket
from http import HTTPStatus

from engines.errors import VisavisError
from streamer.serve.connections import Connections
from streamer.serve.headers import raw_answer

FULL = raw_answer(
    HTTPStatus.SERVICE_UNAVAILABLE, "the server is busy; try again in a moment", "Retry-After: 5"
)


class Accepted(socket.socket):
    """A client's socket, which tells when it is closed."""

    def __init__(self, connections: Connections, plain: socket.socket) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._connections = connections

    def cut(self) -> None:
        """End it under whoever reads it, who then closes it."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self._connections.forget(self.fileno())
        super().close()


class Listener(socket.socket):
    """Lets in as many as `connections` has room for, and says 503 to others: before TLS, and before HTTP."""

    def __init__(self, family: socket.AddressFamily, connections: Connections) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self.connections = connections

    def accept(self) -> tuple[socket.socket, object]:
        """The next client. Raises ConnectionAbortedError for one that there is no room for: asyncio goes on."""
        plain, address = super().accept()
        accepted = Accepted(self.connections, plain)
        if self.connections.admit(accepted.fileno(), accepted.cut):
            return accepted, address
        with accepted, contextlib.suppress(OSError):
            accepted.setblocking(False)
            accepted.send(FULL)
        raise ConnectionAbortedError


def listen(host: str, port: int, connections: Connections | None = None) -> Listener:
    """A bound, listening socket; raises VisavisError when the port is taken or the host not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = Listener(family, Connections() if connections is None else connections)
    except OSError as error:  # no IPv6 here
        raise VisavisError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --host"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # now, not when the imports are done: two servers that start at once must not share a port
    except (OSError, UnicodeError) as error:  # a name that none can have
        listener.close()
        # a name that is unknown, an address of another computer
        by_host = isinstance(error, (UnicodeError, socket.gaierror)) or error.errno == errno.EADDRNOTAVAIL
        option = "--host" if by_host else "--port"
        reason = "no such name" if isinstance(error, UnicodeError) else error.strerror
        raise VisavisError(
            f"cannot listen on {host:.80}:{port} ({reason}); choose another with {option}"
        ) from error
    return listener
