"""`MotionSender`: the driver's motion to another program, over UDP."""

from __future__ import annotations

import socket

from streamer.clock import Clock
from streamer.closing import Closing
from streamer.drive.driver import Drive
from streamer.sinks.names import MotionTarget
from streamer.sinks.vmc import datagrams_of


class MotionSender(Closing):
    """Sends each motion once and waits for nothing: who does not listen misses it. Used by one thread."""

    def __init__(self, target: MotionTarget, *, clock: Clock) -> None:
        self._target = (target.host, target.port)
        self._clock = clock
        self._begin_ns = clock.now_ns()
        self.unsent = 0  # datagrams that the network would not take
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, drive: Drive) -> None:
        """Send what drives one picture; never raises."""
        time_s = (self._clock.now_ns() - self._begin_ns) / 1e9
        for datagram in datagrams_of(drive.motion, drive.neutral, time_s, is_there=drive.face):
            try:
                self._socket.sendto(datagram, self._target)
            except OSError:
                self.unsent += 1

    def close(self) -> None:
        """Let go of the socket; what is sent later is lost."""
        self._socket.close()
