"""Calls without a page, WHIP's and WHEP's: `Ingest` is driven by a sender and watched elsewhere, `DemoPlay` shows."""

from __future__ import annotations

from typing import Any

from aiortc import RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamError

from streamer.webrtc import player
from streamer.webrtc.flow import STRANGERS_PACKET
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.media import DelayedAudioTrack
from streamer.webrtc.peer import Direction, Peer
from streamer.webrtc.player import Player
from streamer.webrtc.session import QUIET_AFTER_S, Session


class OneWay(Session):
    """A call whose media go one way."""

    @property
    def peer(self) -> Peer:
        """Its connection."""
        return self._peer


class Ingest(OneWay):
    """A sender's camera or microphone drives; `players` watch. While nobody does, nothing is tracked or drawn."""

    DIRECTION: Direction = "recvonly"
    PACKET_SHARE = STRANGERS_PACKET

    def __init__(self, *arguments: Any, stream: str, **options: Any) -> None:
        """As a `Session`; `stream`: under which name it is found."""
        super().__init__(*arguments, **options)
        self.stream = stream
        self.players: tuple[Player, ...] = ()

    @property
    def resting(self) -> bool:
        """Whether its sender is silent: one that nobody watches keeps its place."""
        return self._failed or self._peer.quiet_s > QUIET_AFTER_S

    def new_player(self, ice: IceSettings = NOTHING) -> Player:
        """One more who watches. It ends with this call."""
        made = Player(self.broadcast, self.clock, ice, sleep=self._sleep, on_closed=self._left)
        self.players = (*self.players, made)
        return made

    def _left(self, gone: Player) -> None:
        self.players = tuple(p for p in self.players if p is not gone)

    def _send_video(self, transceiver: RTCRtpTransceiver) -> None:
        """Nothing goes back."""

    def _hear(self, sound: DelayedAudioTrack) -> None:
        """No sender of ours pulls it, so this does; who watches is given it on the way."""
        self._spawn(self._pull(sound))

    async def _pull(self, sound: DelayedAudioTrack) -> None:
        try:
            while True:
                await sound.recv()
        except MediaStreamError:
            return  # the sender has no microphone any more

    async def _close(self) -> None:
        for one in self.players:
            one.end("its sender has gone")
        await super()._close()


class DemoPlay(OneWay):
    """The demo for a player, who only receives and so is heard more seldom than a page."""

    QUIET_AFTER_S = GONE_AFTER_S = player.GONE_AFTER_S
