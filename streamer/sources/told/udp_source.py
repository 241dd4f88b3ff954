"""`ToldSource`: a phone or another program that tells motion over UDP, as a live source."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

from engines.errors import DriverError
from streamer.clock import Clock, SystemClock
from streamer.drive.told import Told
from streamer.slot import Slot
from streamer.sources.source import Source, SourceInfo, SourceState
from streamer.sources.told.address import ToldAddress
from streamer.sources.told.ifacialmocap import IFacialMocap
from streamer.sources.told.open_see_face import OpenSeeFace
from streamer.sources.told.reading import Dialect
from streamer.sources.told.receiver import Counts, Receiver
from streamer.sources.told.timing import FLOWS_S, Asking
from streamer.sources.told.vmc import Vmc
from streamer.sources.told.vtube_studio import VTubeStudio

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "vts": VTubeStudio,
    "ifacialmocap": IFacialMocap,
    "vmc": Vmc,
    "openseeface": OpenSeeFace,
}
# VTube Studio sends for some seconds after each request; iFacialMocap until the app is left
_KEEP_S: dict[str, float | None] = {"vts": 1.0, "ifacialmocap": None}
_ANSWERS_TO = {"ifacialmocap": 49983}  # the port of ours that it answers to, whichever asked

_LOOK_S = 0.1
_JOIN_S = 3.0
_MOST_BYTES = 65_535
_NOT_UNDERSTOOD = 20  # so many bad datagrams and no good one: it is another program
_WAITS_FOR = {
    "vts": "open VTube Studio on it, switch on “3rd Party PC Clients” in its settings",
    "ifacialmocap": "open iFacialMocap on it",
    "vmc": "let the other program send VMC here",
    "openseeface": "start its facetracker, and look into the camera",
}


class ToldSource(Source):
    """One sender's motion; the newest wins.

    Raises DriverError when the port cannot be had. Who says nothing may still begin: `state` is LOST meanwhile, a
    phone is asked again and again, on another interface where the way to it has changed, and moments come as soon as it
    tells.
    """

    def __init__(
        self, address: ToldAddress, *, clock: Clock | None = None, listen_port: int | None = None
    ) -> None:
        """`listen_port`: where a phone is to answer, other than usual."""
        self._address = address
        self._clock = clock or SystemClock()
        self._dialect = dialect = DIALECTS[address.kind]()
        self._listen_port = listen_port
        self._receiver = Receiver(address, dialect)
        self._slot: Slot[Told] = Slot()
        self._stop = threading.Event()
        self._socket = _bound(address, listen_port)
        self._asking = Asking(_KEEP_S.get(address.kind))
        self._begin_ns = self._clock.now_ns()
        who = address.host if address.is_phone else f"port {self.port}"
        self._info = SourceInfo(
            None, dialect.fps, True, None, has_audio=False, name=f"{address.kind} {who}", tells_motion=True
        )
        self._thread = threading.Thread(target=self._run, name="told", daemon=True)
        self._thread.start()

    @property
    def info(self) -> SourceInfo:
        """Name and usual rate."""
        return self._info

    @property
    def port(self) -> int:
        """Where we listen."""
        return int(self._socket.getsockname()[1])

    @property
    def counts(self) -> Counts:
        """What became of the datagrams so far."""
        return self._receiver.counts

    @property
    def dropped(self) -> int:
        """Moments replaced by newer ones before they were read."""
        return self._slot.dropped

    @property
    def state(self) -> SourceState:
        """LOST while nothing of sense comes."""
        if self._stop.is_set():
            return SourceState.ENDED
        heard_ns = self._receiver.heard_ns
        since_ns = self._begin_ns if heard_ns is None else heard_ns
        silent = self._clock.now_ns() - since_ns > FLOWS_S * 1e9
        return SourceState.LOST if silent else SourceState.READY

    @property
    def notices(self) -> tuple[str, ...]:
        """That nothing comes, or nothing that can be read, with what to do."""
        if self.state is not SourceState.LOST:
            return ()
        where = f"from {self._address.host}" if self._address.is_phone else f"to port {self.port}"
        counts = self.counts
        if not counts.taken and counts.bad >= _NOT_UNDERSTOOD:
            return (f"what comes {where} is not what {self._address.kind} sends; choose the kind that it is",)
        firewall = "and let this computer's firewall pass it"
        return (f"no motion comes {where}: {_WAITS_FOR[self._address.kind]}, {firewall}",)

    def read(self, timeout_s: float | None = None) -> Told | None:
        """The newest untaken moment; None after `timeout_s` without one and after `close`."""
        told = self._slot.take(timeout_s)
        return None if told is None else told.mark("decoded", self._clock.now_ns())

    def close(self) -> None:
        """Let go of the port."""
        self._stop.set()
        self._slot.close()
        self._thread.join(_JOIN_S)
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._ask()
            try:
                datagram, sender = self._socket.recvfrom(_MOST_BYTES)
            except TimeoutError:
                continue
            except OSError:  # such as a port that is told to be unreachable
                self._stop.wait(_LOOK_S)
                continue
            told = self._receiver.take(datagram, _plain(sender[0]), self._clock.now_ns())
            if told is not None:
                self._slot.put(told)

    def _ask(self) -> None:
        if not self._address.is_phone:
            return
        heard_ns = self._receiver.heard_ns
        heard_s = None if heard_ns is None else heard_ns / 1e9
        self._asking, due = self._asking.after(self._clock.now_ns() / 1e9, heard_s)
        if not due:
            return
        if self.state is SourceState.LOST:
            self._follow_the_way()
        request = self._dialect.request(self.port)
        if request is None:
            return
        try:
            self._socket.sendto(request, (self._address.host, self._address.port))
        except OSError:  # no way there now; asked again
            return

    def _follow_the_way(self) -> None:
        """Listen where the phone's answers come now: a computer that wakes up may have another address."""
        try:
            family = self._socket.family
            if _way_to(self._address, family) == self._socket.getsockname()[0]:
                return
            fresh = _bound(self._address, self._listen_port)
        except (OSError, DriverError):  # no way there now; looked for again
            return
        old, self._socket = self._socket, fresh
        old.close()


def _plain(address: str) -> str:
    """An address as `ToldAddress` has it: without the scope that a link's own addresses are given."""
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _bound(address: ToldAddress, listen_port: int | None) -> socket.socket:
    """A socket on the one interface that is wanted: a phone's is the one that leads to it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    host, port = address.host, address.port
    if address.is_phone:
        try:
            host, port = _way_to(address, family), _ANSWERS_TO.get(address.kind, 0)
        except OSError as error:
            raise DriverError(
                f"there is no way to the phone {address.host} ({error.strerror or error}); connect this computer to "
                "the phone's network"
            ) from error
    if listen_port is not None:
        port = listen_port
    wire = socket.socket(family, socket.SOCK_DGRAM)
    try:
        wire.bind((host, port))
    except OSError as error:
        wire.close()
        raise DriverError(
            f"{address.kind} cannot be listened to on {host} port {port} ({error.strerror or error}); close the "
            "program that has this port, or name an address of this computer"
        ) from error
    wire.settimeout(_LOOK_S)
    return wire


def _way_to(address: ToldAddress, family: int) -> str:
    """Our own address towards a phone; nothing is sent. Raises OSError where there is no way."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address.host, address.port))
        return str(probe.getsockname()[0])
