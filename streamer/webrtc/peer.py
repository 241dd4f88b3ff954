"""`Peer`: one peer connection from offer to close. It knows whether the other end is there, and nothing of avatars."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import aioice.ice
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

from engines.errors import VisavisError
from streamer.clock import Clock
from streamer.webrtc.aiortc_fixes import close_peer, with_start_bitrate
from streamer.webrtc.budget import Budget
from streamer.webrtc.ice import NOTHING, IceServer, IceSettings, UdpPorts
from streamer.webrtc.messages import one_line
from streamer.webrtc.offer_sdp import MAX_CANDIDATES, IceLogin, OfferError, UnfitOfferError, login_of
from streamer.webrtc.peer_bounds import PeerBounds, with_bounded_messages
from streamer.webrtc.sdp_fragment import Fragment, FragmentError
from streamer.webrtc.sending import with_fec

logger = logging.getLogger(__name__)

Direction = Literal["sendrecv", "recvonly"]
TRICKLES_PER_S, TRICKLES_AT_ONCE = (
    5,
    40,
)  # requests; a browser sends one for each of its candidates at the most
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


def reachable(sdp: str, ports: UdpPorts | None, addresses: Callable[[], Sequence[str]] | None = None) -> str:
    """`sdp` if it names an address at least: a peer without one is waited for in vain.

    Raises UnreachableError where the computer has none to give (`addresses`: those it has), else OfferError: then it is
    what was offered that nothing can be sent to.
    """
    if "a=candidate:" in sdp:
        return sdp
    if ports is not None:
        raise UnreachableError(
            f"all UDP ports of {ports} are taken by other calls; hang one up, or start the server with a wider "
            "--udp-ports"
        )
    if (addresses or host_addresses)():
        raise OfferError("the offer's sections belong to no connection that can be made; reload the page")
    raise UnreachableError(
        "this computer has no network address that a call could come to; connect it to one"
    )


def host_addresses() -> list[str]:
    """Those of this computer that calls can come to."""
    return aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)


class Peer:
    """All methods run on the event loop."""

    def __init__(
        self, clock: Clock, events: PeerEvents, ice: IceSettings = NOTHING, *, offers: bool = False
    ) -> None:
        """`offers`: it calls others, and is not called."""
        self.connected = False
        self.tag = secrets.token_hex(8)  # of the ICE session, which lasts as long as the connection
        self.login: IceLogin | None = None  # the other end's, once its offer was read
        self._clock = clock
        self._trickles = Budget(TRICKLES_PER_S, TRICKLES_AT_ONCE)
        self._candidates = 0  # that came after the offer
        self._events = events
        self._bounds = PeerBounds(clock, events.ended)
        self._ports = ice.ports
        # no STUN by default: it must work with no network at all
        configuration = configuration_of(ice.servers(time.time(), "visavis"))
        if offers:
            configuration.bundlePolicy = RTCBundlePolicy.MAX_BUNDLE
        self._pc = RTCPeerConnection(configuration)
        self._bounds.guard(self._pc)
        self._pc.on("datachannel", events.channel)
        self._pc.on("track", events.track)
        self._pc.on("connectionstatechange", self._changed)

    async def answer(
        self, sdp: str, send: Callable[[RTCRtpTransceiver], None], direction: Direction = "sendrecv"
    ) -> str:
        """SDP answer for an SDP offer; `send` gives the video section what it is to send, unless we only receive.

        Raises OfferError for an offer that makes no sense.
        """
        self.login = login_of(sdp)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        except OperationError as error:  # no codec in common
            raise UnfitOfferError("the offer has none of our codecs; offer VP8 or H264, and Opus") from error
        except Exception as error:  # aiortc raises whatever the parser stumbled on
            raise OfferError(
                f"the offer's SDP cannot be read ({one_line(error)}); reload the page"
            ) from error
        video = next((t for t in self._pc.getTransceivers() if t.kind == "video"), None)
        if video is None and direction == "sendrecv":
            raise UnfitOfferError("the offer has no video section; offer at least to receive video")
        try:
            self._bounds.install(self._pc)
            if video is not None and direction == "sendrecv":
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
            with_fec(with_start_bitrate(reachable(self._pc.localDescription.sdp, self._ports)))
        )

    def sender_of(self, kind: str) -> RTCRtpSender | None:
        """What is to send sound or pictures, where the offer has a section for it; asked before it is answered."""
        transceiver = next((t for t in self._pc.getTransceivers() if t.kind == kind), None)
        if transceiver is None:
            return None
        transceiver.direction = "sendrecv"
        return transceiver.sender

    async def offer(self, tracks: Sequence[MediaStreamTrack]) -> str:
        """An SDP offer to send `tracks`, with all candidates. Raises UnreachableError where there is none."""
        for track in tracks:
            self._pc.addTransceiver(track, "sendonly")
        self._bounds.install(self._pc)
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return with_fec(reachable(self._pc.localDescription.sdp, self._ports))

    async def accept(self, sdp: str) -> None:
        """Take the answer to the offer. Raises OfferError for one that makes no sense."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))
        except Exception as error:  # aiortc raises whatever the parser stumbled on
            raise OfferError(f"the answer's SDP cannot be read ({one_line(error)})") from error

    def may_trickle(self) -> bool:
        """Whether candidates have not come too often lately; this time is counted."""
        return self._trickles.take(self._clock.now_ns())

    async def trickle(self, fragment: Fragment) -> None:
        """Take candidates that came after the offer; those for a section that is bundled go to what it is bundled in.

        Raises FragmentError for more than a call may have in all, TimeoutError where names are not found in time.
        """
        self._candidates += fragment.count
        if self._candidates > MAX_CANDIDATES:
            raise FragmentError(
                f"a call has at most {MAX_CANDIDATES} candidates; it goes on with those it has"
            )
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._take(fragment)

    async def _take(self, fragment: Fragment) -> None:
        heads = [t for t in self._pc.getTransceivers() if not t._bundled]  # pyright: ignore[reportPrivateUsage]
        for section in fragment.sections:
            for head in [t for t in heads if t.mid == section.mid] or heads[:1]:
                transport = head.receiver.transport.transport
                # at once: each host name is asked for in the network for up to 1 s
                candidates = [candidate_from_sdp(line) for line in section.candidates]
                await asyncio.gather(*(transport.addRemoteCandidate(c) for c in candidates))
                if section.is_last:
                    await transport.addRemoteCandidate(None)

    def send_back(self, track: MediaStreamTrack) -> RTCRtpSender:
        """Send `track` in the section of its kind; by what it leaves."""
        return self._pc.addTrack(track)

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
