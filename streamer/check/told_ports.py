"""Whether the ports are free where phones and other programs tell motion, for `visavis doctor`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal

from streamer.sources.told.address import TOLD_CHOICES, TOLD_PORTS

# where we listen; VTube Studio's phone answers to any port
_LISTENED = {kind: port for kind, port in TOLD_PORTS.items() if kind != "vts"}


def told_ports(is_free: Callable[[int], bool] | None = None) -> tuple[Literal["ok", "warn"], str, str]:
    """(status, detail, fix): who may tell motion, and which of their ports other programs have."""
    free = is_free or _is_free
    taken = [f"{port} ({kind})" for kind, port in _LISTENED.items() if not free(port)]
    if not taken:
        return "ok", f"--from {TOLD_CHOICES}: docs/drivers.md", ""
    fix = "close the program that has it, or let the sender send to another: --from vmc://:PORT"
    return "warn", f"--from {TOLD_CHOICES}; another program has UDP port {', '.join(taken)}", fix


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
