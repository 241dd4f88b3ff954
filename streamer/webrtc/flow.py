"""`Flow`: what comes into a call and what leaves it, counted and timed. Event-loop only."""

from __future__ import annotations

import time
from collections.abc import Callable

import av
from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.clock import Clock
from streamer.latency.ledger import Ledger
from streamer.media_clock import MediaClock, Stream
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ, receive_newest
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.hearing import Hearing
from streamer.webrtc.lip_sync import LipSync
from streamer.webrtc.media import OPUS_MS, PTIME_S, DelayedAudioTrack, Outgoing, start_of
from streamer.webrtc.messages import Message, sound_message
from streamer.webrtc.sender_reports import Reports, capture_wall_ms, rtp_time_of
from streamer.webrtc.work import Tally, Work
from streamer.webrtc.worker import Incoming, Worker

# Browsers, and whoever sends a microphone packet by packet, stamp a report when the packet leaves, that is when its
# last sample is there. Who interleaves by time stamps, as players of files do, sends it with the picture of its first
# sample. No report tells which one it is: a stranger is taken for something between, wrong by 10 ms at the most.
WHOLE_PACKET, STRANGERS_PACKET = 1.0, 0.5


class Flow:
    """Of one call: its sound on the way back, its camera on the way to the worker, and the accounts of both."""

    def __init__(
        self, options: CallOptions, clock: Clock, ledger: Ledger, packet_share: float = WHOLE_PACKET
    ) -> None:
        """`packet_share`: how much of a packet of sound is over when it leaves its sender.

        Raises OfferError when the voice is to drive and its network does not load.
        """
        self._packet_share = packet_share
        self.ledger = ledger
        self.lip_sync = LipSync(options)
        self.hearing = Hearing(options, clock)
        self.tally = Tally()
        self._media_clock = MediaClock(sound=Stream(lead_ns=OPUS_MS * 1e6))
        self._sender: RTCRtpSender | None = None
        self._sound: DelayedAudioTrack | None = None

    @property
    def work(self) -> Work:
        """What the call has done so far."""
        return self.tally.work(self.lip_sync)

    def sound(
        self, track: MediaStreamTrack, receiver: RTCRtpReceiver, broadcast: Broadcast, *, is_sent: bool
    ) -> DelayedAudioTrack:
        """The sound of `track` on its way back: heard as it comes, and told to `broadcast` as it leaves.

        `is_sent`: back to where it came from, and not to watchers alone.
        """
        reports = Reports(receiver)

        def gone(captured_ns: float, given_ns: int) -> None:
            self.lip_sync.left(captured_ns, given_ns, time.monotonic_ns())

        if not is_sent:
            broadcast.on_sound_gone = gone
        self._sound = DelayedAudioTrack(
            track,
            self.lip_sync.delay_ms,
            heard=lambda frame: self._heard(frame, reports),
            left=broadcast.hear,
            gone=gone if is_sent else lambda *_: None,
        )
        return self._sound

    def _heard(self, frame: av.AudioFrame, reports: Reports) -> float | None:
        """A packet has come; when its first sample was captured."""
        start = start_of(frame)
        if start is None:
            self.hearing.put(frame)
            return None
        now_ns = time.monotonic_ns()
        length_ns = 1e9 * frame.samples / frame.sample_rate
        start_ns = 1e9 * start / frame.sample_rate
        report = reports.new(start_ns)
        share = self._packet_share
        if report is not None:
            media_ns, wall_ns = report
            self._media_clock = self._media_clock.reported("sound", media_ns + share * PTIME_S * 1e9, wall_ns)
        self._media_clock = self._media_clock.arrived("sound", start_ns + share * length_ns, now_ns)
        captured_ns = self._media_clock.captured_ns("sound", start_ns)
        if captured_ns is not None:
            self.lip_sync.came(captured_ns, now_ns)
        self.hearing.put(frame, captured_ns)
        return captured_ns

    def _seen(self, pts: int, reports: Reports, now_ns: int) -> float | None:
        """A camera's picture has come; when it was captured."""
        media_ns = 1e9 * pts / VIDEO_CLOCK_HZ
        report = reports.new(media_ns)
        if report is not None:
            self._media_clock = self._media_clock.reported("pictures", *report)
        self._media_clock = self._media_clock.arrived("pictures", media_ns, now_ns)
        return self._media_clock.captured_ns("pictures", media_ns)

    def sends(self, sender: RTCRtpSender) -> None:
        """The sound leaves by `sender`."""
        self._sender = sender

    def sound_message(self) -> Message | None:
        """When the sound that left last was captured; None where none has."""
        newest = None if self._sound is None else self._sound.newest
        rtp_time = None if newest is None or self._sender is None else rtp_time_of(self._sender, newest)
        if newest is None or rtp_time is None:
            return None
        # what is decoded at a time went into the encoder a little before
        return sound_message(rtp_time, newest.captured_ns - OPUS_MS * 1e6)

    async def pump(
        self,
        track: MediaStreamTrack,
        receiver: RTCRtpReceiver,
        drawing: Callable[[], Worker | None],
    ) -> None:
        """Camera frames to who draws, newest first, until the camera is gone; None while nobody is there to draw."""
        reports = Reports(receiver)
        try:
            while True:
                frame, skipped = await receive_newest(track)
                pts, now_ns = int(frame.pts or 0), time.monotonic_ns()
                captured_ns = self._seen(pts, reports, now_ns)
                worker = drawing()
                if worker is None:
                    continue
                incoming = Incoming(frame, pts, now_ns, capture_wall_ms(receiver, pts), captured_ns)
                skipped += worker.offer(incoming)
                if skipped:
                    self.drop(skipped, "decoded")
        except MediaStreamError:
            return  # the worker goes on with idle life

    def hold_ms(self, *, is_watched: bool) -> float:
        """How long a picture waits for its sound; `is_watched`: there is somebody beside the page."""
        return self.lip_sync.hold_ms(time.monotonic_ns(), is_watched=is_watched)

    def drop(self, count: int, stage: str = "received") -> None:
        """Driving frames that did not reach `stage`."""
        self.tally.drop(count, stage)
        self.ledger.dropped(count, stage=stage)

    def drop_sound(self, count: int, stage: str) -> None:
        """Pieces of sound that did not reach `stage`."""
        self.ledger.dropped(count, stage=f"sound {stage}")

    def sent(self, outgoing: Outgoing) -> None:
        """A picture has left."""
        pts_s = outgoing.pts / VIDEO_CLOCK_HZ
        self.ledger.frame(
            outgoing.trace,
            sequence=outgoing.sequence,
            pts_s=pts_s,
            fresh=outgoing.fresh,
            skew_ms=self.lip_sync.skew_ms(outgoing),
        )
        self.lip_sync.sent(outgoing)
        self.tally.sent(outgoing)
