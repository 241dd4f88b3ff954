"""One call: a peer, its worker, its ledger and its talk. Sessions share nothing."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine

from aiortc import RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamTrack

from engines.enrollment import Enrollment
from engines.retarget import Controls
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, SystemClock
from streamer.freed_memory import give_back_freed_memory
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.budget import Budget
from streamer.webrtc.build_avatar import build_avatar
from streamer.webrtc.call_avatar import CallAvatar
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.flow import WHOLE_PACKET, Flow
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.media import DelayedAudioTrack, EchoTrack, Outgoing
from streamer.webrtc.messages import (
    Command,
    Message,
    Recalibrate,
    SetControls,
    SetSound,
    frame_message,
    mesh_message,
    no_room,
    notice,
    one_line,
    text_of,
)
from streamer.webrtc.neutral_news import NeutralNews
from streamer.webrtc.peer import Direction, Peer, PeerEvents
from streamer.webrtc.reception import sound_counts_of, watch
from streamer.webrtc.recorder import Recorder
from streamer.webrtc.talk import Talk
from streamer.webrtc.wish import Wish
from streamer.webrtc.work import Work
from streamer.webrtc.worker import Worker
from streamer.webrtc.workshop import Workshop, shared_workshop

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 8.0
HEARD_WITHIN_S = 4.0  # a browser that has the answer asks at once
LOOK_EVERY_S = 0.5
# nothing is drawn, and the place is free; a living browser is heard twice a second, its page busy or not
QUIET_AFTER_S = 3.0
GONE_AFTER_S = 8.0  # the page has given up 6 s after the last that it heard, and begins a new call by itself
RETRY_AFTER_S = 4  # until a browser that is gone is known to be
REFUSAL_HEARD_S = 1.0
MESH_PERIOD_S = 1 / 10
CHANGES_PER_S, CHANGES_AT_ONCE = 5, 20  # a colour that is being chosen says 4

MakeAvatar = Callable[["Session"], Avatar]


class Session:
    """A call from offer to close. All methods run on the event loop."""

    DIRECTION: Direction = "sendrecv"
    PACKET_SHARE = WHOLE_PACKET
    QUIET_AFTER_S, GONE_AFTER_S = QUIET_AFTER_S, GONE_AFTER_S

    def __init__(
        self,
        enrollment: Enrollment,
        options: CallOptions,
        *,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_connected: Callable[[Session], str | None] = lambda _: None,
        on_closed: Callable[[Session], None] = lambda _: None,
        make_avatar: MakeAvatar | None = None,
        ice: IceSettings = NOTHING,
        workshop: Workshop = shared_workshop,
    ) -> None:
        """`on_connected` may say why the call cannot be after all. `sleep`: how the event loop waits.

        Raises OfferError when the voice is to drive and its network does not load.
        """
        self.name = secrets.token_urlsafe(16)  # who knows it may change the call
        self.clock = clock or SystemClock()
        self.ledger = Ledger(metrics=metrics)
        self._make_avatar = make_avatar or build_avatar
        self._sleep = sleep
        self._on_connected = on_connected
        self._on_closed = on_closed
        self._talk = Talk(self.clock, self._obey, self.end)
        self._peer = Peer(
            self.clock, PeerEvents(self._talk.open, self._track, self._connected, self.end), ice
        )
        self.broadcast = Broadcast(self._sent, self._hold_ms)
        self._worker: Worker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._neutral_news = NeutralNews(options.tracker)
        self._patience = Budget(CHANGES_PER_S, CHANGES_AT_ONCE)
        self._failed, self._mesh_at_s = False, 0.0
        self.recorder = Recorder(self.ledger)
        self._flow = Flow(options, self.clock, self.ledger, self.PACKET_SHARE)
        self.hearing = self._flow.hearing
        self._avatar = CallAvatar(
            Wish(enrollment, options),
            workshop,
            tell=self._tell,
            insist=self._insist,
            sleep=sleep,
            on_fault=self._fault,
        )
        self._closing: asyncio.Task[None] | None = None

    async def answer(self, sdp: str) -> str:
        """SDP answer for an SDP offer. Raises OfferError for an offer that makes no sense."""
        try:
            answer = await self._peer.answer(sdp, self._send_video, self.DIRECTION)
        except BaseException:
            await self.close()
            raise
        self._spawn(self._give_up_unless_connected())
        return answer

    @property
    def enrollment(self) -> Enrollment:
        """Whom it shows."""
        return self._avatar.shown.enrollment

    @property
    def options(self) -> CallOptions:
        """How it is shown."""
        return self._avatar.shown.options

    @property
    def asked(self) -> Wish:
        """What it will show soon: the newest change that was accepted."""
        return self._avatar.asked

    def may_change(self) -> bool:
        """Whether its page has not asked for too many changes lately; this one is counted."""
        return self._patience.take(self.clock.now_ns())

    def change(self, enrollment: Enrollment, options: CallOptions) -> Wish:
        """Go on with another face or look, from as soon as it is made; tracker, size, drive and mode cannot change."""
        self.hearing.help(options.voice_helps)
        if options.trim_ms != self.asked.options.trim_ms:
            self._flow.lip_sync.set(SetSound(options.trim_ms, None))
        return self._avatar.change(enrollment, options)

    @property
    def failed(self) -> bool:
        """Whether its avatar could not be made."""
        return self._failed

    @property
    def connected(self) -> bool:
        """Whether the browser has ever been reached: nothing is drawn before."""
        return self._peer.connected

    @property
    def heard(self) -> bool:
        """Whether anything has come from the browser, though it may not have connected yet."""
        return self._peer.heard

    @property
    def quiet_s(self) -> float:
        """How long nothing has come from the browser."""
        return self._peer.quiet_s

    @property
    def resting(self) -> bool:
        """Whether nothing is drawn for now: the browser is silent, or the avatar could not be made."""
        return self._failed or (self._worker is not None and self._worker.resting)

    @property
    def work(self) -> Work:
        """What it has done so far."""
        return self._flow.work

    @property
    def ending(self) -> bool:
        """Whether the call is over or about to be."""
        return self._closing is not None

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
            self.broadcast.close()
            for task in list(self._tasks):
                task.cancel()
            worker = self._worker
            if worker is not None:
                await worker.stop()
        finally:  # whatever an offer was, and whatever broke: the call's place is free again
            try:
                await self._peer.close()
            finally:
                self._avatar.close()
                self.hearing.close()
                self._worker = None
                self.recorder.forget()
                self.ledger.close()
                self._on_closed(self)
        if worker is not None:
            await self._loop.run_in_executor(None, give_back_freed_memory)

    def end(self, reason: str) -> None:
        """Begin to close; `reason` is for the log."""
        if self._closing is None:
            logger.info("call %s ends: %s", self.name[:4], reason)
            self._closing = asyncio.create_task(self._close())

    # --- the browser comes and goes -------------------------------------------------------------------

    def _track(self, track: MediaStreamTrack) -> None:
        is_driver = self.options.mode == "avatar" and self.options.drive == "webcam"
        is_read = track.kind == "audio" or is_driver or self.options.mode == "echo"
        drop = self._flow.drop if track.kind == "video" else self._flow.drop_sound
        receiver = self._peer.receiver_of(track)
        watch(receiver, drop, lambda why: self._talk.tell(notice(why)), is_read=is_read)
        if track.kind == "video" and is_driver:
            self._spawn(self._flow.pump(track, receiver, self._drawing))
        elif track.kind == "audio":
            self.ledger.sound_s = sound_counts_of(receiver).told
            is_sent = self.DIRECTION == "sendrecv"
            self._hear(self._flow.sound(track, receiver, self.broadcast, is_sent=is_sent))

    def _hear(self, sound: DelayedAudioTrack) -> None:
        self._flow.sends(self._peer.send_back(sound))

    def _send_video(self, transceiver: RTCRtpTransceiver) -> None:
        receiver, send = transceiver.receiver, transceiver.sender.replaceTrack
        if self.options.mode == "echo":
            send(EchoTrack(receiver.track, receiver, self._sent, self._flow.drop))
        else:
            send(self.broadcast.join().pictures)

    def _connected(self) -> None:
        """Only now is there somebody to draw for."""
        if self._closing is not None:
            return
        refusal = self._on_connected(self)
        if refusal is not None:
            self._talk.tell(no_room(refusal, RETRY_AFTER_S))
            self._spawn(self._end_after(REFUSAL_HEARD_S, refusal))
            return
        logger.info("call %s: connected", self.name[:4])
        if self.options.mode == "avatar":
            self._worker = Worker(
                self._prepare,
                self.broadcast,
                self.clock,
                demo=self.options.drive == "demo",
                sound=self.hearing.sound if self.options.drive == "voice" else None,
                on_shown=self._shown,
                on_dropped=self._overtaken,
                on_fault=self._fault,
            )
            self._worker.start()
        self._spawn(self._look_after())

    async def _look_after(self) -> None:
        """Draw while somebody receives, rest while nobody is heard, end when nobody comes back."""
        while True:
            await self._sleep(LOOK_EVERY_S)
            self._talk.repeat()
            said = self._flow.sound_message()
            if said is not None:
                self._talk.say(said)
            quiet_s = self._peer.quiet_s
            if self._worker is not None:
                self._worker.rest(quiet_s > self.QUIET_AFTER_S or not self.broadcast.watched)
            if quiet_s > self.GONE_AFTER_S:
                self.end(f"nothing came for {self.GONE_AFTER_S:.0f} s")

    async def _give_up_unless_connected(self) -> None:
        await self._sleep(HEARD_WITHIN_S)
        if not self.heard:
            self.end(f"nothing came from its browser within {HEARD_WITHIN_S:.0f} s")
        await self._sleep(CONNECT_WITHIN_S - HEARD_WITHIN_S)
        if not self.connected:
            self.end(f"it did not connect within {CONNECT_WITHIN_S:.0f} s")

    async def _end_after(self, seconds: float, reason: str) -> None:
        await self._sleep(seconds)
        self.end(reason)

    def _prepare(self) -> Avatar:
        """Called by the worker's thread."""
        return self._avatar.prepare(lambda: self._make_avatar(self), self._loop)

    def _tell(self, message: Message) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._talk.tell, message)

    def _insist(self, message: Message) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._talk.insist, message)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _drawing(self) -> Worker | None:
        return self._worker

    # --- per frame ------------------------------------------------------------------------------------

    def _overtaken(self) -> None:
        """Called by the tracking thread: a tracked frame gave way to a newer one before it was drawn."""
        self._loop.call_soon_threadsafe(self._flow.drop, 1, "fitted")

    def _shown(self, shown: Shown) -> None:
        """Called by the worker's drawing thread."""
        self.recorder.driven(shown.drive, shown.frame.pts_s)
        avatar = self._avatar.avatar
        if avatar is not None and self.options.drive == "webcam":
            news = self._neutral_news.of(avatar.driver)
            if news is not None:
                self._insist(news)
        points = shown.drive.landmarks_px
        now_s = time.monotonic()
        if points is None or now_s - self._mesh_at_s < MESH_PERIOD_S or self._worker is None:
            return
        self._mesh_at_s = now_s
        size = self._worker.camera_size_px
        if size is not None:  # made here: the event loop only sends it
            self._loop.call_soon_threadsafe(self._talk.say_text, text_of(mesh_message(points, size)))

    def _hold_ms(self) -> float:
        return self._flow.hold_ms(is_watched=self.broadcast.crowded)

    def _fault(self, stage: str, error: BaseException) -> None:
        """Called by the worker's threads."""
        self.ledger.fault(stage, error)
        if stage == "prepared":
            self._failed = True
            self._tell(notice(f"the avatar could not be prepared ({one_line(error)}); reload the page"))

    def _sent(self, outgoing: Outgoing) -> None:
        self._flow.sent(outgoing)
        generator = None if (avatar := self._avatar.avatar) is None else avatar.generator_name
        number = self._avatar.shown.number
        self._talk.say(frame_message(outgoing, self._flow.tally.dropped, generator, number))

    def _obey(self, command: Command) -> None:
        """Raises VisavisError with what is wrong and what would be right."""
        match command:
            case SetControls(given):
                self._avatar.set_controls(Controls.from_dict(given, self._avatar.controls))
            case SetSound() as said:
                self._flow.lip_sync.set(said)
            case Recalibrate():
                if self._avatar.avatar is not None:
                    self._avatar.avatar.driver.recalibrate()
            case _:  # the talk answers it
                return
