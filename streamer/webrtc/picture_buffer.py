"""`PictureBuffer`: video packets as the network brings them → whole pictures in order, each as soon as it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from streamer.webrtc.rtp_order import RtpTime, Sequence

WAIT_MS = 200.0  # for a packet to be sent again; then the picture is given up, and a key frame is needed
ASK_AGAIN_MS = 50.0
MOST_WAITING = 512  # packets; and as many missing
MOST_ASKED = 100  # at once


@dataclass(frozen=True, slots=True)
class PicturePacket:
    """As it came; `begins` where its codec tells whether a picture begins with it. `marker`: one ends."""

    sequence: int
    rtp_time: int
    marker: bool
    arrived_ms: float
    data: bytes
    begins: bool | None = None
    source: int = 0
    payload_type: int = 0


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A whole picture: `time` in ticks since the first one. `follows`: nothing was lost between it and the last."""

    time: int
    data: bytes
    arrived_ms: float
    follows: bool = True
    payload_type: int = 0


class PictureBuffer:
    """Releases a picture when its last packet is here (RTP marker bit, RFC 3550 § 5.1; RFC 7741 § 4.1).

    No clock of its own: packets bring their arrival. A packet that is missing for `WAIT_MS`, or while `MOST_WAITING`
    others wait, is given up together with its picture; where more than `MOST_WAITING` are missing, everything is.
    """

    def __init__(self, clock_hz: int) -> None:
        self.clock_hz = clock_hz
        self._sequence = Sequence()
        self._time = RtpTime(clock_hz)
        self._next: int | None = None  # the place of the first packet of the next picture
        self._upto = 0  # the first place from there on whose packet is not here, or not looked at
        self._waiting: dict[int, PicturePacket] = {}
        self._missing: dict[int, float] = {}  # place → since when, in ms
        self._unasked: dict[int, None] = {}  # the missing places nobody asked for yet …
        self._asked_ms: dict[int, float] = {}  # … and the others: when, the longest ago first
        self._follows = False
        self._is_torso = False  # the picture at `_next` has lost its beginning
        self._is_cut = False  # what comes next does not follow what was before
        self.lost = 0  # packets given up

    @property
    def rtp_origin(self) -> int:
        """The RTP time at which `time` is 0."""
        return self._time.origin

    def add(self, packet: PicturePacket) -> list[EncodedPicture]:
        """The pictures that are whole now that this packet is here."""
        restarts = self._sequence.restarts
        newest = self._sequence.newest
        place = self._sequence.place(packet.sequence, packet.rtp_time, packet.source)
        if place is None:
            return []
        if self._sequence.restarts != restarts:
            self.clear()
        gap = range(0) if self._next is None or newest is None else range(newest + 1, place)
        if len(self._missing) + len(gap) > MOST_WAITING:
            self.lost += len(self._missing) + len(gap)
            self.clear()
        if self._next is None:
            self._next = self._upto = place
            self._is_torso = packet.begins is not True if self._is_cut else packet.begins is False
            self._is_cut = False
            gap = range(0)
        if place < self._next or place in self._waiting:
            return []
        self._waiting[place] = packet
        self._forget(place)
        self._missing |= dict.fromkeys(gap, packet.arrived_ms)
        self._unasked |= dict.fromkeys(gap)
        pictures = self._whole_ones()
        while self._gives_up(packet.arrived_ms):
            pictures += self._whole_ones()
        return pictures

    def clear(self) -> None:
        """Forget what waits and begin anew with the next packet; time goes on."""
        self._next = None
        self._waiting.clear()
        for places in (self._missing, self._unasked, self._asked_ms):
            places.clear()
        self._follows = False
        self._is_cut = True

    def wanted(self, now_ms: float) -> list[int]:
        """Sequence numbers to ask for now (RFC 4585 § 6.2.1): what is missing, again every `ASK_AGAIN_MS`.

        At most `MOST_ASKED`; the others are for the next call.
        """
        wanted = list(islice(self._unasked, MOST_ASKED))
        for k, asked_ms in self._asked_ms.items():
            if len(wanted) == MOST_ASKED or abs(now_ms - asked_ms) < ASK_AGAIN_MS:
                break
            wanted.append(k)
        for k in wanted:
            self._unasked.pop(k, None)
            self._asked_ms.pop(k, None)  # to the end of the order
            self._asked_ms[k] = now_ms
        return [self._sequence.number_at(k) for k in sorted(wanted)]

    def _forget(self, place: int) -> None:
        if self._missing.pop(place, None) is not None:
            self._unasked.pop(place, None)
            self._asked_ms.pop(place, None)

    def _whole_ones(self) -> list[EncodedPicture]:
        pictures: list[EncodedPicture] = []
        while (packet := self._waiting.get(self._upto)) is not None:
            assert self._next is not None
            first = self._waiting[self._next]
            if packet.rtp_time == first.rtp_time:
                self._upto += 1
                if not packet.marker:
                    continue
            # else a sender without marker bits: the next picture's packet also ends this one
            parts = [self._waiting.pop(k) for k in range(self._next, self._upto)]
            self._next = self._upto
            data = b"".join(p.data for p in parts)
            if data and not self._is_torso:  # without data it was padding
                pictures.append(self._picture(parts[-1], data))
            self._is_torso = False
        return pictures

    def _picture(self, last: PicturePacket, data: bytes) -> EncodedPicture:
        follows, self._follows = self._follows, True
        time = self._time.at(last.rtp_time, last.arrived_ms)
        return EncodedPicture(time, data, last.arrived_ms, follows, last.payload_type)

    def _gives_up(self, now_ms: float) -> bool:
        """Drop the picture at `_next` once its gap has lasted or its packets are too many: whether that was so."""
        assert self._next is not None
        is_long = len(self._waiting) > MOST_WAITING
        has_gap = len(self._waiting) > self._upto - self._next
        since_ms = self._missing.get(self._upto)  # none where it was missing before `clear`
        has_lasted = has_gap and (since_ms is None or abs(now_ms - since_ms) >= WAIT_MS)
        if not has_lasted and not is_long:
            return False
        for k in range(self._next, self._upto):
            del self._waiting[k]
        first = self._upto
        while self._waiting and first not in self._waiting:
            self._forget(first)
            first += 1
        self.lost += first - self._upto
        self._next = self._upto = first
        self._is_torso = first not in self._waiting or self._waiting[first].begins is not True
        self._follows = False
        return True
