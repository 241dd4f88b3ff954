"""One call: a peer connection, its worker, its ledger and its data channel. Sessions share nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import reprlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import VisavisError, WeightsError
from engines.generators.names import DEFAULT_GENERATOR
from engines.motion import Motion
from engines.renderer import Renderer
from engines.retarget import Controls
from engines.speech.speech_to_motion import SpeechToMotion, motion_of
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, SystemClock
from streamer.drive.driver import Driver
from streamer.drive.open import open_driver
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.drive.voice import Voice
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.look import AS_IS, Look
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import (
    AUDIO_PREFETCH_PACKETS,
    capture_wall_ms,
    receive_newest,
    with_start_bitrate,
)
from streamer.webrtc.call_sound import CallSound
from streamer.webrtc.media import (
    MOST_DELAY_MS,
    OPUS_MS,
    PTIME_S,
    DelayedAudioTrack,
    EchoTrack,
    Outgoing,
    SlotTrack,
    wanted_delay_ms,
)
from streamer.webrtc.worker import Incoming, Worker

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 30.0
MESH_PERIOD_S = 1 / 10
MESH_UNITS = 4095
MAX_MESSAGE_CHARS = 4096
MAX_ANSWER_CHARS = 600  # holds the list of all emotions


Drive = Literal["webcam", "voice", "demo"]
MOST_TRIM_MS = 300.0


class OfferError(VisavisError):
    """An offer that cannot be answered."""


class MessageError(VisavisError):
    """A page's message that makes no sense; told to the page."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What the page asked for.

    `trim_ms`: the sound that much later (> 0) or earlier than measured. `voice_helps`: the microphone moves the
    mouth while the camera sees no face.
    """

    generator: str = DEFAULT_GENERATOR
    size_px: int = 512
    mode: Literal["avatar", "echo"] = "avatar"
    drive: Drive = "webcam"
    tracker: str = DEFAULT_TRACKER
    look: Look = AS_IS
    trim_ms: float = 0.0
    voice_helps: bool = True


MakeAvatar = Callable[["Session"], Avatar]
# read once: it holds no state, so all calls share it
shared_speech = lru_cache(1)(SpeechToMotion)


class Session:
    """A call from offer to close. All methods run on the event loop."""

    def __init__(
        self,
        enrollment: Enrollment,
        options: CallOptions,
        *,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        on_closed: Callable[[Session], None] = lambda _: None,
        make_avatar: MakeAvatar | None = None,
    ) -> None:
        """Raises OfferError when the voice is to drive and its network does not load."""
        self.name = secrets.token_urlsafe(9)
        self.enrollment = enrollment
        self.options = options
        self.clock = clock or SystemClock()
        self.ledger = Ledger(metrics=metrics)
        self.controls = enrollment.controls or Controls()
        self._make_avatar = make_avatar or build_avatar
        self._avatar: Avatar | None = None
        self._avatar_lock = threading.Lock()  # the avatar is made in the worker's thread
        self._on_closed = on_closed
        # No STUN: it must work with no network at all.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel: RTCDataChannel | None = None
        self._out: Slot[Outgoing] = Slot()
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._dropped = 0
        self._mesh_at_s = 0.0
        self._video_ms: float | None = None  # smoothed time of a picture from arrival to departure
        self._trim_ms = options.trim_ms
        self._page_waits_ms = 0.0
        self.sound = self._open_sound()
        self._closing: asyncio.Task[None] | None = None
        self._unsaid: list[dict[str, object]] = []  # notices from before the data channel was open
        self._wire()

    async def answer(self, sdp: str) -> str:
        """SDP answer for an SDP offer. Raises OfferError for an offer that makes no sense."""
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        except Exception as error:  # aiortc raises whatever the parser stumbled on
            await self.close()
            raise OfferError(f"the offer's SDP cannot be read ({_reason(error)}); reload the page") from error
        kinds = {t.kind for t in self._pc.getTransceivers()}
        if "video" not in kinds:
            await self.close()
            raise OfferError("the offer has no video section; offer at least to receive video")
        try:
            self._send_video()
            answer = await self._pc.createAnswer()
            await self._pc.setLocalDescription(answer)
        except Exception as error:
            await self.close()
            raise OfferError(
                f"the offer cannot be answered ({_reason(error)}); offer VP8 video, Opus audio"
            ) from error
        self._spawn(self._give_up_unless_connected())
        return with_start_bitrate(self._pc.localDescription.sdp)

    @property
    def closed(self) -> bool:
        """Whether the call is over and everything is freed."""
        return self._closing is not None and self._closing.done()

    async def close(self) -> None:
        """End the call and free everything; whoever calls, and however often, returns when that is done."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        # shielded: one caller that is cancelled must not leave the call half closed
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._out.close()
        for task in list(self._tasks):
            task.cancel()
        worker = self._worker
        if worker is not None:
            await self._loop.run_in_executor(None, worker.stop)
        await self._pc.close()
        self.ledger.close()
        self._on_closed(self)

    def _open_sound(self) -> CallSound | None:
        """What hears the call: to drive the avatar, or to help the camera."""
        drive = self.options.drive
        helps = drive == "webcam" and self.options.voice_helps and self.options.mode == "avatar"
        if drive != "voice" and not helps:
            return None
        try:
            return CallSound(Voice(shared_speech()), self.clock)
        except WeightsError as error:
            if drive == "voice":
                raise OfferError(str(error)) from error
            logger.warning("the voice will not help the camera: %s", error)
            return None

    # --- wiring ---------------------------------------------------------------------------------------

    def _wire(self) -> None:
        pc = self._pc

        @pc.on("datachannel")
        def on_channel(channel: RTCDataChannel) -> None:
            self._channel = channel
            while self._unsaid:
                self._say(self._unsaid.pop(0))

            @channel.on("message")
            def on_message(message: object) -> None:
                self._heard(message)

        @pc.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            if track.kind == "video" and self.options.mode == "avatar" and self.options.drive == "webcam":
                self._spawn(self._pump(track))
            elif track.kind == "audio":
                heard = self.sound.put if self.sound is not None else _unheard
                pc.addTrack(DelayedAudioTrack(track, self._audio_delay_ms, heard))

        @pc.on("connectionstatechange")
        async def on_state() -> None:
            logger.info("call %s: %s", self.name, pc.connectionState)
            if pc.connectionState in ("failed", "closed"):
                await self.close()

        _ = (on_channel, on_track, on_state)  # registered by their decorators

    def _send_video(self) -> None:
        transceiver = next(t for t in self._pc.getTransceivers() if t.kind == "video")
        if self.options.mode == "echo":
            source = transceiver.receiver.track
            track: MediaStreamTrack = EchoTrack(
                source, transceiver.receiver, self._sent, lambda n: self._drop(n, "received")
            )
        else:
            track = SlotTrack(self._out, self._sent)
            self._worker = Worker(
                self._prepare,
                self._out,
                self.clock,
                demo=self.options.drive == "demo",
                sound=self.sound if self.options.drive == "voice" else None,
                on_shown=self._shown,
                on_dropped=self._overtaken,
                on_fault=self._fault,
            )
            self._worker.start()
        transceiver.sender.replaceTrack(track)
        # the answer narrows this to what the offer allows
        transceiver.direction = "sendrecv"

    def _prepare(self) -> Avatar:
        """Called by the worker's thread. Controls that the page sent meanwhile are not lost."""
        avatar = self._make_avatar(self)
        with self._avatar_lock:
            self._avatar = avatar
            avatar.controls = self.controls
        if avatar.notice:
            notice: dict[str, object] = {"type": "notice", "level": "error", "text": avatar.notice}
            self._loop.call_soon_threadsafe(self._tell, notice)
        return avatar

    def _set_controls(self, controls: Controls) -> None:
        with self._avatar_lock:
            self.controls = controls
            if self._avatar is not None:
                self._avatar.controls = controls

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_up_unless_connected(self) -> None:
        await asyncio.sleep(CONNECT_WITHIN_S)
        if self._pc.connectionState != "connected":
            logger.info("call %s did not connect within %.0f s", self.name, CONNECT_WITHIN_S)
            await self.close()

    async def _pump(self, track: MediaStreamTrack) -> None:
        """Camera frames into the worker's slot, newest first."""
        receiver = next(t.receiver for t in self._pc.getTransceivers() if t.receiver.track is track)
        try:
            while True:
                frame, skipped = await receive_newest(track)
                worker = self._worker
                if worker is None:
                    continue
                pts = int(frame.pts or 0)
                incoming = Incoming(frame, pts, time.monotonic_ns(), capture_wall_ms(receiver, pts))
                skipped += worker.frames.put(incoming)
                if skipped:
                    self._drop(skipped, "decoded")
        except MediaStreamError:
            return  # the camera is gone: the worker goes on with idle life

    # --- per frame ------------------------------------------------------------------------------------

    def _overtaken(self) -> None:
        """Called by the tracking thread: a tracked frame gave way to a newer one before it was drawn."""
        self._loop.call_soon_threadsafe(self._drop, 1, "fitted")

    def _drop(self, count: int, stage: str) -> None:
        self._dropped += count
        self.ledger.dropped(count, stage=stage)

    def _shown(self, shown: Shown) -> None:
        """Called by the worker's drawing thread."""
        points = shown.drive.landmarks_px
        now_s = time.monotonic()
        if points is None or now_s - self._mesh_at_s < MESH_PERIOD_S or self._worker is None:
            return
        self._mesh_at_s = now_s
        size = self._camera_size
        if size is not None:
            text = json.dumps({"type": "mesh", "points": mesh_points(points, *size)}, separators=(",", ":"))
            self._loop.call_soon_threadsafe(self._say_text, text)

    def _fault(self, stage: str, error: BaseException) -> None:
        """Called by the worker's threads."""
        self.ledger.fault(stage, error)
        if stage == "prepared":
            text = f"the avatar could not be prepared ({_reason(error)}); reload the page"
            notice: dict[str, object] = {"type": "notice", "level": "error", "text": text}
            self._loop.call_soon_threadsafe(self._tell, notice)

    @property
    def _camera_size(self) -> tuple[int, int] | None:
        worker = self._worker
        return worker.camera_size_px if worker else None

    def _sent(self, outgoing: Outgoing) -> None:
        self.ledger.frame(
            outgoing.trace, sequence=outgoing.sequence, pts_s=outgoing.pts / 90_000, fresh=outgoing.fresh
        )
        stages = outgoing.trace.stage_ms()
        # a picture of sound shows a moment from before the packet that made it known
        since = "captured" if self.options.drive == "voice" else "received"
        came_ns = outgoing.trace.stamps_ns.get(since)
        sent_ns = outgoing.trace.stamps_ns.get("sent")
        if outgoing.fresh and "received" in outgoing.trace.stamps_ns and came_ns and sent_ns:
            took_ms = (sent_ns - came_ns) / 1e6
            before_ms = took_ms if self._video_ms is None else self._video_ms
            self._video_ms = before_ms + 0.05 * (took_ms - before_ms)
        self._say(
            {
                "type": "frame",
                "pts": outgoing.pts & 0xFFFFFFFF,
                "capture_ms": None if outgoing.capture_ms is None else round(outgoing.capture_ms, 2),
                "stage_ms": {name: round(ms, 2) for name, ms in stages.items()},
                "dropped": self._dropped,
                "face": outgoing.face,
                "state": outgoing.state,
                "generator": None if self._avatar is None else self._avatar.generator_name,
            }
        )

    def _audio_delay_ms(self, current_ms: float) -> float:
        if self.options.mode == "echo":
            return 0.0
        if self._video_ms is None:
            return current_ms
        # a packet leaves when its last sample is there, and is played from its first
        audio_ms = PTIME_S * 1000 + OPUS_MS + self._page_waits_ms
        if self.options.drive != "voice":
            # a camera's frames come past the sound's way here: the browser's encoder and our jitter buffer;
            # the voice is heard behind both
            audio_ms += OPUS_MS + AUDIO_PREFETCH_PACKETS * PTIME_S * 1000
        return wanted_delay_ms(self._video_ms, audio_ms, current_ms, self._trim_ms)

    # --- data channel ---------------------------------------------------------------------------------

    def _tell(self, notice: dict[str, object]) -> None:
        """Say it now, or as soon as the page can hear."""
        if self._channel is None:
            self._unsaid.append(notice)
        else:
            self._say(notice)

    def _say(self, message: dict[str, object]) -> None:
        self._say_text(json.dumps(message, separators=(",", ":")))

    def _say_text(self, text: str) -> None:
        channel = self._channel
        # a slow page must not make messages pile up: skip rather than queue
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < 65_536:
            channel.send(text)

    def _heard(self, message: object) -> None:
        """A command from the page. One that makes no sense is answered by a notice and changes nothing."""
        try:
            self._obey(parsed(message))
        except VisavisError as error:
            self._say({"type": "notice", "level": "error", "text": _reason(error, MAX_ANSWER_CHARS)})

    def _obey(self, data: dict[str, object]) -> None:
        """Raises VisavisError with what is wrong and what would be right."""
        kind = data.get("type")
        if kind == "ping":
            sent = data.get("t")
            if (
                not isinstance(sent, int | float) or not abs(sent) < 1e15
            ):  # no NaN: the page could not read it
                raise MessageError("ping: t is not a number of milliseconds")
            self._say({"type": "pong", "t": sent})
        elif kind == "recalibrate":
            if self._avatar is not None:
                self._avatar.driver.recalibrate()
                self._say({"type": "notice", "level": "info", "text": "look straight ahead for a second"})
        elif kind == "controls":
            given = {name: value for name, value in data.items() if name != "type"}
            self._set_controls(Controls.from_dict(given, self.controls))
        elif kind == "sound":
            self._trim_ms = milliseconds_of("trim_ms", data.get("trim_ms", self._trim_ms), MOST_TRIM_MS)
            waits = data.get("waits_ms", self._page_waits_ms)
            self._page_waits_ms = milliseconds_of("waits_ms", waits, MOST_DELAY_MS)
        else:
            raise MessageError(
                f"there is no message {reprlib.repr(kind)}; send one of: controls, recalibrate, sound, ping"
            )


def milliseconds_of(name: str, value: object, most_ms: float) -> float:
    """A number of the page's "sound" message. Raises MessageError for anything beyond ± `most_ms`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most_ms:
        raise MessageError(f"sound: {name} must be a number from {-most_ms:g} to {most_ms:g}")
    return float(value)


def _unheard(_: object) -> None:
    """Nobody listens."""


def said_in(sound: CallSound) -> Callable[[Motion], Motion | None]:
    """For a `Driver`: hears what has come, and gives what is being said now; None while nobody speaks."""

    def said(rest: Motion) -> Motion | None:
        sound.read(0.0)
        newest_s = sound.voice.answered_s
        spoken = None if newest_s is None else sound.voice.at(newest_s)
        return motion_of(spoken, rest) if spoken is not None and sound.is_fresh else None

    return said


def _reason(error: BaseException, limit: int = 200) -> str:
    """One line of at most `limit` characters, never empty."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def parsed(message: object) -> dict[str, object]:
    """A page's message as an object. Raises MessageError when it is none."""
    if not isinstance(message, str) or len(message) > MAX_MESSAGE_CHARS:
        raise MessageError(f"a message was no text of at most {MAX_MESSAGE_CHARS} characters; send less")
    try:
        data: object = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise MessageError("a message was not JSON; send an object with a type") from error
    if not isinstance(data, dict):
        raise MessageError("a message was no JSON object; send an object with a type")
    return cast(dict[str, object], data)


def build_avatar(session: Session) -> Avatar:
    """The real thing: a tracker drives the enrolled face, or the voice does. Runs in the worker's thread."""
    driver = driver_of(session)
    options = session.options
    renderer = Renderer(
        session.enrollment,
        generator=options.generator,
        size_px=options.size_px,
        background=options.look.background,
        aspect=options.look.aspect,
    )
    return Avatar(
        session.enrollment,
        driver,
        clock=session.clock,
        on_fault=session.ledger.fault,
        renderer=renderer,
    )


def driver_of(session: Session) -> Driver:
    """What the call's options ask for."""

    def on_fault(error: BaseException) -> None:
        session.ledger.fault("tracked", error)

    if session.options.drive == "voice":
        return open_driver(None, on_fault)
    sound = session.sound
    return open_driver(session.options.tracker, on_fault, said=None if sound is None else said_in(sound))


def mesh_points(landmarks_px: NDArray[np.float32], width_px: int, height_px: int) -> list[int]:
    """Landmarks (478, 3) → [x0, y0, x1, y1, …] in 0 … 4095 over the camera picture."""
    scaled = landmarks_px[:, :2] * (MESH_UNITS / width_px, MESH_UNITS / height_px)
    return [int(v) for v in np.clip(np.rint(scaled), 0, MESH_UNITS).ravel()]
