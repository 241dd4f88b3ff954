"""One call: a peer connection, its worker, its ledger and its data channel. Sessions share nothing."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engines.enrollment import Enrollment
from engines.errors import VisavisError, WeightsError
from engines.retarget import Controls
from engines.speech.speech_to_motion import SpeechToMotion
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, SystemClock
from streamer.drive.open import open_driver
from streamer.drive.voice import Voice
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import (
    capture_wall_ms,
    close_peer,
    receive_newest,
    with_start_bitrate,
)
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.call_sound import CallSound
from streamer.webrtc.media import (
    OPUS_MS,
    PTIME_S,
    DelayedAudioTrack,
    EchoTrack,
    Outgoing,
    SlotTrack,
    wanted_delay_ms,
)
from streamer.webrtc.messages import (
    Message,
    Ping,
    Recalibrate,
    SetControls,
    SetSound,
    frame_message,
    mesh_message,
    notice,
    one_line,
    read_command,
    refusal,
    text_of,
)
from streamer.webrtc.reception import watch
from streamer.webrtc.worker import Incoming, Worker

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 30.0
MESH_PERIOD_S = 1 / 10


class OfferError(VisavisError):
    """An offer that cannot be answered."""


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
        self.controls = options.controls_for(enrollment)
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
        self._unsaid: list[Message] = []  # notices from before the data channel was open
        self._wire()

    async def answer(self, sdp: str) -> str:
        """SDP answer for an SDP offer. Raises OfferError for an offer that makes no sense."""
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        except Exception as error:  # aiortc raises whatever the parser stumbled on
            await self.close()
            raise OfferError(
                f"the offer's SDP cannot be read ({one_line(error)}); reload the page"
            ) from error
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
                f"the offer cannot be answered ({one_line(error)}); offer VP8 video, Opus audio"
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
        try:
            self._out.close()
            for task in list(self._tasks):
                task.cancel()
            worker = self._worker
            if worker is not None:
                await self._loop.run_in_executor(None, worker.stop)
        finally:  # whatever an offer was, and whatever broke: the call's place is free again
            try:
                await close_peer(self._pc)
            finally:
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
            is_driver = self.options.mode == "avatar" and self.options.drive == "webcam"
            is_read = track.kind == "audio" or is_driver or self.options.mode == "echo"
            watch(pc, track, self._drop, lambda why: self._tell(notice(why)), is_read=is_read)
            if track.kind == "video" and is_driver:
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
            self._loop.call_soon_threadsafe(self._tell, notice(avatar.notice))
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
        size = self._worker.camera_size_px
        if size is not None:
            # made here: the event loop only sends it
            self._loop.call_soon_threadsafe(self._say_text, text_of(mesh_message(points, size)))

    def _fault(self, stage: str, error: BaseException) -> None:
        """Called by the worker's threads."""
        self.ledger.fault(stage, error)
        if stage == "prepared":
            text = f"the avatar could not be prepared ({one_line(error)}); reload the page"
            self._loop.call_soon_threadsafe(self._tell, notice(text))

    def _sent(self, outgoing: Outgoing) -> None:
        self.ledger.frame(
            outgoing.trace, sequence=outgoing.sequence, pts_s=outgoing.pts / 90_000, fresh=outgoing.fresh
        )
        # a picture of sound shows a moment from before the packet that made it known
        since = "captured" if self.options.drive == "voice" else "received"
        came_ns = outgoing.trace.stamps_ns.get(since)
        sent_ns = outgoing.trace.stamps_ns.get("sent")
        if outgoing.fresh and "received" in outgoing.trace.stamps_ns and came_ns and sent_ns:
            took_ms = (sent_ns - came_ns) / 1e6
            before_ms = took_ms if self._video_ms is None else self._video_ms
            self._video_ms = before_ms + 0.05 * (took_ms - before_ms)
        generator = None if self._avatar is None else self._avatar.generator_name
        self._say(frame_message(outgoing, self._dropped, generator))

    def _audio_delay_ms(self, current_ms: float) -> float:
        if self.options.mode == "echo":
            return 0.0
        if self._video_ms is None:
            return current_ms
        # a packet leaves when its last sample is there, and is played from its first
        audio_ms = PTIME_S * 1000 + OPUS_MS + self._page_waits_ms
        if self.options.drive != "voice":
            # a camera's frames come past the browser's encoder of sound; the voice is heard behind it
            audio_ms += OPUS_MS
        return wanted_delay_ms(self._video_ms, audio_ms, current_ms, self._trim_ms)

    # --- data channel ---------------------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        """Say it now, or as soon as the page can hear."""
        if self._channel is None:
            self._unsaid.append(message)
        else:
            self._say(message)

    def _say(self, message: Message) -> None:
        self._say_text(text_of(message))

    def _say_text(self, text: str) -> None:
        channel = self._channel
        # a slow page must not make messages pile up: skip rather than queue
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < 65_536:
            channel.send(text)

    def _heard(self, message: object) -> None:
        """A command from the page. One that makes no sense is answered by a notice and changes nothing."""
        try:
            self._obey(message)
        except VisavisError as error:
            self._say(refusal(error))

    def _obey(self, message: object) -> None:
        """Raises VisavisError with what is wrong and what would be right."""
        match read_command(message):
            case Ping() as ping:
                self._say(ping.pong())
            case Recalibrate():
                if self._avatar is not None:
                    self._avatar.driver.recalibrate()
                    self._say(notice("look straight ahead for a second", "info"))
            case SetControls(given):
                self._set_controls(Controls.from_dict(given, self.controls))
            case SetSound(trim_ms, waits_ms):
                self._trim_ms = self._trim_ms if trim_ms is None else trim_ms
                self._page_waits_ms = self._page_waits_ms if waits_ms is None else waits_ms


def _unheard(_: object) -> None:
    """Nobody listens."""


def build_avatar(session: Session) -> Avatar:
    """The real thing: a tracker drives the enrolled face, or the voice does. Runs in the worker's thread."""
    options, sound, ledger = session.options, session.sound, session.ledger
    by_voice = options.drive == "voice"
    driver = open_driver(
        None if by_voice else options.tracker,
        lambda error: ledger.fault("tracked", error),
        said=None if by_voice or sound is None else sound.said,
    )
    return Avatar(session.enrollment, driver, options, clock=session.clock, on_fault=ledger.fault)
