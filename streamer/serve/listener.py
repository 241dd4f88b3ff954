"""`listen`: the server's socket, before anything slow is imported."""

from __future__ import annotations

import socket

from engines.errors import VisavisError


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; raises VisavisError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # now, not when the imports are done: two servers that start at once must not share a port
    except OSError as error:
        listener.close()
        raise VisavisError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port"
        ) from error
    return listener
