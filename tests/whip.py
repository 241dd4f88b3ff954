"""WHIP and WHEP clients of this process, on aiortc and httpx."""

from __future__ import annotations

import asyncio
import re
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from calls import HEIGHT_PX, WIDTH_PX, Camera, Received, colour_in, number_in
from fakes import AT_LAST_S

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
LOUD = 0.1


class Tone(MediaStreamTrack):
    """A microphone that hears 440 Hz."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pts = 0
        self._start_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        now_s = asyncio.get_running_loop().time()
        self._start_s = self._start_s or now_s
        await asyncio.sleep(self._start_s + self._pts / 48_000 - now_s)
        wave = 9000 * np.sin(2 * np.pi * 440 * (self._pts + np.arange(960)) / 48_000)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._pts, Fraction(1, 48_000)
        self._pts += 960
        return frame


class OneWayClient:
    """A sender (`camera`, `sound`) or, with neither, a player."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        camera: Camera | None = None,
        *,
        sound: MediaStreamTrack | None = None,
        trickles: bool = False,
        only: str | None = None,
    ) -> None:
        """`trickles`: the offer has no candidates. `only`: a codec of video."""
        self.http = http
        self.camera = camera
        self.frames: list[Received] = []
        self.sizes: set[tuple[int, int]] = set()
        self.heard = 0
        self.loud = 0
        self.location = ""
        self.tag = ""
        self.answer: httpx.Response | None = None
        self._trickles = trickles
        policy = RTCBundlePolicy.MAX_BUNDLE
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=policy))
        self._readers: list[asyncio.Task[None]] = []
        if camera is not None:
            self.pc.addTransceiver(camera, "sendonly")
        if sound is not None:
            self.pc.addTransceiver(sound, "sendonly")
        if camera is None and sound is None:
            self.pc.addTransceiver("video", "recvonly")
            self.pc.addTransceiver("audio", "recvonly")
        if only is not None:
            from aiortc.codecs import get_capabilities

            wanted = [c for c in get_capabilities("video").codecs if c.name.upper() == only]
            for transceiver in self.pc.getTransceivers():
                if transceiver.kind == "video":
                    transceiver.setCodecPreferences(wanted)
        self.pc.on("track", lambda track: self._readers.append(asyncio.ensure_future(self._read(track))))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def offer(self) -> str:
        """SDP, without candidates where they are trickled."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        sdp = self.pc.localDescription.sdp
        if self._trickles:
            sdp = re.sub(r"a=(candidate|end-of-candidates)[^\r]*\r\n", "", sdp)
        return sdp

    async def post(self, url: str, sdp: str | None = None) -> httpx.Response:
        """The answer to the offer; taken where it is 201."""
        sdp = sdp or await self.offer()
        self.answer = await self.http.post(url, content=sdp.encode(), headers={"Content-Type": SDP})
        if self.answer.status_code == 201:
            self.location, self.tag = self.answer.headers["location"], self.answer.headers["etag"]
            await self.pc.setRemoteDescription(RTCSessionDescription(sdp=self.answer.text, type="answer"))
        return self.answer

    def fragment(self) -> str:
        """All candidates of the offer, as a fragment."""
        lines = self.pc.localDescription.sdp.splitlines()
        said = [
            line for line in lines
            if line.startswith(("m=", "a=mid:", "a=ice-", "a=candidate", "a=end-of-candidates"))
        ]  # fmt: skip
        first = [k for k, line in enumerate(said) if line.startswith("m=")]
        return "\r\n".join(said[: first[1] if len(first) > 1 else None]) + "\r\n"

    async def patch(self, text: str, **headers: str) -> httpx.Response:
        sent = {"Content-Type": FRAGMENT, "If-Match": self.tag} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.http.patch(self.location, content=text.encode(), headers=sent)

    async def delete(self) -> httpx.Response:
        return await self.http.delete(self.location)

    async def close(self) -> None:
        await asyncio.wait_for(self.pc.close(), AT_LAST_S)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame: Any = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    self.heard += 1
                    self.loud += bool(np.abs(frame.to_ndarray()).mean() / 32768 > LOUD)
                    continue
                image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                self.sizes.add((image.shape[1], image.shape[0]))
                whole = image.shape[:2] == (HEIGHT_PX, WIDTH_PX)
                self.frames.append(
                    Received(
                        asyncio.get_running_loop().time(),
                        int(frame.pts or 0),
                        number_in(image) if whole else -1,
                        colour_in(image) if whole else (0, 0, 0),
                    )
                )
        except MediaStreamError:
            return
