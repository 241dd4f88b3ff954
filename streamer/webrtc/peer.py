"""`Peer`: one peer connection from offer to close. It knows whether the browser is there, and nothing of avatars."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack

from engines.errors import VisavisError
from streamer.clock import Clock
from streamer.webrtc.aiortc_fixes import close_peer, with_start_bitrate
from streamer.webrtc.ice import NOTHING, IceServer, IceSettings, UdpPorts
from streamer.webrtc.messages import one_line
from streamer.webrtc.offer_sdp import OfferError
from streamer.webrtc.peer_bounds import PeerBounds, with_bounded_messages

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0  # a host name of a candidate (RFC 8828 § 3.1) is asked for in the network for up to 1 s


@dataclass(frozen=True, slots=True)
class PeerEvents:
    """What is told of a peer, on the event loop. `ended` is told a reason; it may come more than once."""

    channel: Callable[[RTCDataChannel], None]
    track: Callable[[MediaStreamTrack], None]
    connected: Callable[[], None]
    ended: Callable[[str], None]


class UnreachableError(VisavisError):
    """A call for which this computer has no port left; another may end soon."""


def configuration_of(servers: Sequence[IceServer]) -> RTCConfiguration:
    """As aiortc takes them: of several STUN and of several TURN servers it asks the first."""
    return RTCConfiguration(
        iceServers=[RTCIceServer(list(s.urls), s.username, s.credential) for s in servers]
    )


def reachable(sdp: str, ports: UdpPorts | None) -> str:
    """`sdp` if it names an address at least. Raises UnreachableError: a peer without one is waited for in vain."""
    if "a=candidate:" in sdp:
        return sdp
    if ports is None:
        raise UnreachableError(
            "this computer has no network address that a call could come to; connect it to one"
        )
    raise UnreachableError(
        f"all UDP ports of {ports} are taken by other calls; hang one up, or start the server with a wider --udp-ports"
    )


class Peer:
    """All methods run on the event loop."""

    def __init__(self, clock: Clock, events: PeerEvents, ice: IceSettings = NOTHING) -> None:
        self.connected = False
        self._clock = clock
        self._events = events
        self._bounds = PeerBounds(clock, events.ended)
        self._ports = ice.ports
        # none by default: it must work with no network at all
        self._pc = RTCPeerConnection(configuration_of(ice.servers(time.time(), "visavis")))
        self._bounds.guard(self._pc)
        self._pc.on("datachannel", events.channel)
        self._pc.on("track", events.track)
        self._pc.on("connectionstatechange", self._changed)

    async def answer(self, sdp: str, send: Callable[[RTCRtpTransceiver], None]) -> str:
        """SDP answer for an SDP offer; `send` gives the video section what it is to send.

        Raises OfferError for an offer that makes no sense.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        except Exception as error:  # aiortc raises whatever the parser stumbled on
            raise OfferError(
                f"the offer's SDP cannot be read ({one_line(error)}); reload the page"
            ) from error
        video = next((t for t in self._pc.getTransceivers() if t.kind == "video"), None)
        if video is None:
            raise OfferError("the offer has no video section; offer at least to receive video")
        try:
            self._bounds.install(self._pc)
            send(video)
            # the answer narrows this to what the offer allows
            video.direction = "sendrecv"
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._pc.setLocalDescription(await self._pc.createAnswer())
        except Exception as error:
            raise OfferError(
                f"the offer cannot be answered ({one_line(error)}); offer VP8 video, Opus audio"
            ) from error
        return with_bounded_messages(
            with_start_bitrate(reachable(self._pc.localDescription.sdp, self._ports))
        )

    def send_back(self, track: MediaStreamTrack) -> None:
        """Send `track` in the section of its kind."""
        self._pc.addTrack(track)

    def receiver_of(self, track: MediaStreamTrack) -> RTCRtpReceiver:
        """What receives `track`."""
        return next(t.receiver for t in self._pc.getTransceivers() if t.receiver.track is track)

    @property
    def heard(self) -> bool:
        """Whether anything has come from the browser."""
        return self._bounds.heard_ns is not None

    @property
    def quiet_s(self) -> float:
        """How long nothing at all has come from the browser, which says something each second; 0 before it did."""
        heard_ns = self._bounds.heard_ns
        return 0.0 if heard_ns is None else (self._clock.now_ns() - heard_ns) / 1e9

    async def close(self) -> None:
        """Free everything. Never raises, and ends."""
        await close_peer(self._pc)

    def _changed(self) -> None:
        state = self._pc.connectionState
        if state == "connected" and not self.connected:
            self.connected = True
            self._events.connected()
        elif state in ("failed", "closed"):
            self._events.ended(f"its connection {'failed' if state == 'failed' else 'was closed'}")
