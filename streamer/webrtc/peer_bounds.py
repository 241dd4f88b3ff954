"""`PeerBounds`: what one peer's packets may cost, and that none of them breaks more than its own call.

aiortc and aioice take whatever comes: queues without an end, a retransmission for each number that a NACK names, a
message's fragments for ever, an `assert` for what a browser does not send. Here each has a bound that a browser
stays far under. Like `aiortc_fixes`, it reaches into them, on one call's own objects; what another version does
not have is left out with a warning.
"""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aiortc; tests/test_peer_bounds.py checks that what it reaches for is there)

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.rtp import RtcpRtpfbPacket

from streamer.clock import Clock
from streamer.webrtc.budget import Budget
from streamer.webrtc.gate import Gate, is_answer, is_stun

logger = logging.getLogger(__name__)

MEDIA_PACKETS_PER_S = 2000  # what all receptions together take; a browser is asked for at most 1.5 Mbit/s
DATA_PACKETS_PER_S = 400  # answers to 40 messages a second, and the page's own
STUN_PACKETS_PER_S = 100
RTCP_PACKETS_PER_S = 200
CHUNKS_PER_S = 1000  # of SCTP
RESENT_PACKETS_PER_S = 500
KEY_FRAMES_PER_S = 3
MOST_QUEUED_PACKETS = 1000
MOST_SSRCS = 16
MOST_STREAMS = 64
MOST_CHANNELS = 8
MOST_FRAGMENTS = 256
MOST_GAPS = 1024
RECEIVE_WINDOW_BYTES = 131_072
MAX_MESSAGE_BYTES = 16_384  # 4096 characters of UTF-8


class PeerBounds:
    """The bounds of one peer. Event-loop only.

    `on_abuse` is told, with a reason, when a peer does what no browser does: the call is to end.
    """

    def __init__(self, clock: Clock, on_abuse: Callable[[str], None]) -> None:
        self.heard_ns: int | None = (
            None  # when the peer's last packet of any kind came; None before the first
        )
        self.dropped = 0  # packets of the peer's
        self.strange = 0  # packets that are not the peer's, or nothing at all: never read, and not heard
        self._clock = clock
        self._on_abuse = on_abuse
        self._media = Budget(MEDIA_PACKETS_PER_S, MEDIA_PACKETS_PER_S)
        self._data = Budget(DATA_PACKETS_PER_S, DATA_PACKETS_PER_S)
        self._stun = Budget(STUN_PACKETS_PER_S, 2 * STUN_PACKETS_PER_S)
        self._answers = Budget(STUN_PACKETS_PER_S, 2 * STUN_PACKETS_PER_S)
        self._rtcp = Budget(RTCP_PACKETS_PER_S, RTCP_PACKETS_PER_S)
        self._chunks = Budget(CHUNKS_PER_S, CHUNKS_PER_S)
        self._resent = Budget(RESENT_PACKETS_PER_S, RESENT_PACKETS_PER_S)
        self._key_frames = Budget(KEY_FRAMES_PER_S, KEY_FRAMES_PER_S)
        self._ssrcs: set[bytes] = set()

    def guard(self, peer: RTCPeerConnection) -> None:
        """Before the offer is read: what fails while `peer` connects ends the call, and nothing else."""
        try:
            self._guard_connecting(peer)
        except AttributeError as error:
            logger.warning("this aiortc is another one: a call runs without a guard (%s)", error)

    def install(self, peer: RTCPeerConnection) -> None:
        """Bound what `peer` has after the offer was read and before anything is gathered."""
        try:
            pieces = [part for t in peer.getTransceivers() for part in (t.sender, t.receiver)]
            # one that is in no bundle has none (the answer will fail)
            transports: set[Any] = {piece.transport for piece in pieces}
            if peer.sctp is not None:
                transports.add(peer.sctp.transport)
                self._bound_channels(peer.sctp)
            for transport in transports:
                if transport is not None:
                    self._bound_packets(transport.transport._connection)
                    self._guard_media(transport)
            for transceiver in peer.getTransceivers():
                self._bound_feedback(transceiver.sender)
        except AttributeError as error:
            logger.warning("this aiortc is another one: a call runs without bounds (%s)", error)

    def _guard_connecting(self, peer: Any) -> None:
        connect = peer._RTCPeerConnection__connect

        async def guarded() -> None:
            try:
                await connect()
            except Exception as error:  # aiortc raises whatever it stumbles on
                self._on_abuse(f"its connection could not be made ({type(error).__name__})")

        peer._RTCPeerConnection__connect = guarded

    def _bound_packets(self, connection: Any) -> None:
        """Whoever finds the port may send to it: what is a stranger's costs the peer nothing, and is not heard."""
        received, asked, queue = connection.data_received, connection.request_received, connection._queue
        gate = Gate(connection)

        def admits(protocol: Any, data: bytes, address: tuple[Any, ...]) -> bool:
            if not gate.admits(protocol, data, address):
                self.strange += 1
                return False
            # only who got our check knows its number
            return not (is_stun(data) and is_answer(data)) or self._hear(self._answers)

        def data_received(data: bytes, component: int) -> None:
            if not data or data[0] < 20:  # a check that cannot be read
                self.strange += 1
                return
            # RFC 7983 § 7: what a first byte says
            if self._hear(self._data if data[0] < 64 else self._media):
                if queue.qsize() < MOST_QUEUED_PACKETS:
                    received(data, component)
                else:
                    self.dropped += 1

        def request_received(message: Any, address: tuple[Any, ...], *more: Any) -> None:
            if not gate.authentic(message):
                self.strange += 1
                return
            if not self._hear(self._stun):
                return
            if not gate.has_room(address):
                self.dropped += 1
                return
            try:
                asked(message, address, *more)
            except (
                AssertionError,
                KeyError,
                ValueError,
            ) as error:  # a check that lacks what RFC 8445 asks for
                logger.info("a connectivity check made no sense (%s)", type(error).__name__)

        connection.data_received, connection.request_received = data_received, request_received
        connection.visavis_admits = admits

    def _hear(self, budget: Budget) -> bool:
        """Something of the peer's has come; whether it may be read."""
        now_ns = self.heard_ns = self._clock.now_ns()
        if budget.take(now_ns):
            return True
        self.dropped += 1
        return False

    def _guard_media(self, transport: Any) -> None:
        rtp, rtcp = transport._handle_rtp_data, transport._handle_rtcp_data

        async def handle_rtp(data: bytes, arrival_time_ms: int) -> None:
            ssrc = data[8:12]
            if ssrc not in self._ssrcs:
                if len(self._ssrcs) >= MOST_SSRCS:
                    self.dropped += 1
                    return
                self._ssrcs.add(ssrc)
            await self._spared(lambda: rtp(data, arrival_time_ms=arrival_time_ms))

        async def handle_rtcp(data: bytes) -> None:
            if self._rtcp.take(self._clock.now_ns()):
                await self._spared(lambda: rtcp(data))
            else:
                self.dropped += 1

        transport._handle_rtp_data, transport._handle_rtcp_data = handle_rtp, handle_rtcp

    async def _spared(self, handle: Callable[[], Awaitable[None]]) -> None:
        """A packet that makes no sense is dropped; aiortc would end the call with a traceback."""
        try:
            await handle()
        except ConnectionError:
            raise
        except Exception as error:
            self.dropped += 1
            logger.info("a media packet made no sense (%s)", type(error).__name__)

    def _bound_feedback(self, sender: RTCRtpSender) -> None:
        """One NACK of 1400 bytes could ask for 6000 packets, and one PLI a frame for nothing but key frames."""
        target: Any = sender
        handle, resend, key_frame = target._handle_rtcp_packet, target._retransmit, target._send_keyframe

        async def handle_rtcp_packet(packet: Any) -> None:
            if isinstance(packet, RtcpRtpfbPacket):
                packet.lost = list(dict.fromkeys(packet.lost))
            await handle(packet)

        async def retransmit(sequence_number: int) -> None:
            if self._resent.take(self._clock.now_ns()):
                await resend(sequence_number)

        def send_key_frame() -> None:
            if self._key_frames.take(self._clock.now_ns()):
                key_frame()

        target._handle_rtcp_packet, target._retransmit = handle_rtcp_packet, retransmit
        target._send_keyframe = send_key_frame

    def _bound_channels(self, sctp: Any) -> None:
        # each call's own: a peer that keeps to RFC 9260 never sends more than this ahead
        sctp._advertised_rwnd = RECEIVE_WINDOW_BYTES
        sctp._inbound_streams_max = MOST_STREAMS
        handle, receive = sctp._handle_data, sctp._receive_chunk

        async def handle_data(data: bytes) -> None:
            try:
                await handle(data)
            except ConnectionError:
                raise
            except Exception as error:
                self._on_abuse(f"its data channel sent what makes no sense ({type(error).__name__})")
            too_much = _too_much_of(sctp)
            if too_much:
                self._on_abuse(f"its data channel has {too_much}")

        async def receive_chunk(chunk: Any) -> None:
            # dropped, not refused: to a browser it is a lost packet, and it slows down
            if self._chunks.take(self._clock.now_ns()):
                await receive(chunk)
            else:
                self.dropped += 1

        sctp._handle_data, sctp._receive_chunk = handle_data, receive_chunk


def _too_much_of(sctp: Any) -> str | None:
    """What of an association is beyond its bounds."""
    if len(sctp._inbound_streams) > MOST_STREAMS:
        return f"more than {MOST_STREAMS} streams"
    if len(sctp._data_channels) > MOST_CHANNELS:
        return f"more than {MOST_CHANNELS} channels"
    if len(sctp._sack_misordered) > MOST_GAPS:
        return f"left out the first of {MOST_GAPS} packets"
    if sum(len(stream.reassembly) for stream in sctp._inbound_streams.values()) > MOST_FRAGMENTS:
        return f"more than {MOST_FRAGMENTS} pieces of unfinished messages"
    if sctp._advertised_rwnd < -MAX_MESSAGE_BYTES:
        return f"more than {RECEIVE_WINDOW_BYTES} bytes of unfinished messages"
    return None


def with_bounded_messages(sdp: str) -> str:
    """An answer that says how long a message may be (RFC 8841 § 6): the browser then refuses to send a longer one."""
    lines = sdp.split("\r\n")
    said = "a=max-message-size:"
    return "\r\n".join(f"{said}{MAX_MESSAGE_BYTES}" if line.startswith(said) else line for line in lines)
