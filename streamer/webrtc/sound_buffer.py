"""`SoundBuffer`: sound packets as the network brings them → packets in order, each with its time, hardly later."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.webrtc.rtp_order import RtpTime, Sequence

LATER_PACKETS = 2  # a missing packet is given up once so many later ones are here …
WAIT_MS = 40.0  # … or when the first of them has waited this long, as before a pause


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """As it came: RTP's `sequence` (16 bit), `rtp_time` (32 bit) and `source` (SSRC), and when."""

    sequence: int
    rtp_time: int
    arrived_ms: float
    data: bytes
    source: int = 0
    payload_type: int = 0


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """One packet in its turn: `time` in ticks of the RTP clock since the first one, wrapping no more.

    `released_ms`: when its turn came, by the clock of the arrivals.
    """

    time: int
    data: bytes
    released_ms: float
    payload_type: int = 0


class SoundBuffer:
    """Holds nothing that is in its turn. A gap shows as a step in time; whoever decodes fills it.

    No clock of its own: packets bring their arrival, and `pass_time` may tell that `due_ms` has come.
    """

    def __init__(self, clock_hz: int) -> None:
        self.clock_hz = clock_hz
        self._sequence = Sequence()
        self._time = RtpTime(clock_hz)
        self._next: int | None = None  # the place whose turn it is
        self._waiting: dict[int, SoundPacket] = {}
        self.lost = 0  # packets given up
        self.late = 0  # packets that came twice, or after they were given up, or astray

    @property
    def rtp_origin(self) -> int:
        """The RTP time at which `time` is 0."""
        return self._time.origin

    def add(self, packet: SoundPacket) -> list[EncodedSound]:
        """What can go on, now that this packet is here."""
        place = self._sequence.place(packet.sequence, packet.rtp_time, packet.source)
        if self._next is None and place is not None:
            self._next = place
        if place is None or self._next is None or place < self._next or place in self._waiting:
            self.late += 1
            return []
        self._waiting[place] = packet
        return self._release(packet.arrived_ms)

    @property
    def due_ms(self) -> float | None:
        """When what waits is given up for, by the clock of the arrivals; None while nothing waits."""
        if not self._waiting:
            return None
        return min(p.arrived_ms for p in self._waiting.values()) + WAIT_MS

    def pass_time(self, now_ms: float) -> list[EncodedSound]:
        """What can go on because of the time alone."""
        return self._release(now_ms)

    def _release(self, now_ms: float) -> list[EncodedSound]:
        released: list[EncodedSound] = []
        while self._waiting and self._next is not None:
            packet = self._waiting.pop(self._next, None)
            if packet is not None:
                time = self._time.at(packet.rtp_time, packet.arrived_ms)
                released.append(EncodedSound(time, packet.data, now_ms, packet.payload_type))
                self._next += 1
            elif self._is_given_up(now_ms):
                first = min(self._waiting)
                self.lost += first - self._next
                self._next = first
            else:
                break
        return released

    def _is_given_up(self, now_ms: float) -> bool:
        due_ms = self.due_ms
        return len(self._waiting) >= LATER_PACKETS or (due_ms is not None and now_ms >= due_ms)
