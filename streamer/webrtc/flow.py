"""`Flow`: what comes into a call and what leaves it, counted and timed. Event-loop only."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiortc import RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.clock import Clock
from streamer.latency.ledger import Ledger
from streamer.slot import Slot
from streamer.webrtc.aiortc_fixes import VIDEO_CLOCK_HZ, capture_wall_ms, receive_newest
from streamer.webrtc.broadcast import Broadcast
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.hearing import Hearing
from streamer.webrtc.lip_sync import LipSync
from streamer.webrtc.media import DelayedAudioTrack, Outgoing
from streamer.webrtc.work import Tally, Work
from streamer.webrtc.worker import Incoming


class Flow:
    """Of one call: its sound on the way back, its camera on the way to the worker, and the accounts of both."""

    def __init__(self, options: CallOptions, clock: Clock, ledger: Ledger) -> None:
        """Raises OfferError when the voice is to drive and its network does not load."""
        self.ledger = ledger
        self.lip_sync = LipSync(options)
        self.hearing = Hearing(options, clock)
        self.tally = Tally()

    @property
    def work(self) -> Work:
        """What the call has done so far."""
        return self.tally.work(self.lip_sync)

    def sound(self, track: MediaStreamTrack, broadcast: Broadcast) -> DelayedAudioTrack:
        """The sound of `track` on its way back: heard as it comes, and told to `broadcast` as it leaves."""
        return DelayedAudioTrack(track, self.lip_sync.delay_ms, self.hearing.put, broadcast.hear)

    async def pump(
        self,
        track: MediaStreamTrack,
        receiver: RTCRtpReceiver,
        slot: Callable[[], Slot[Incoming] | None],
    ) -> None:
        """Camera frames into `slot`, newest first, until the camera is gone; None while nobody is there to draw."""
        try:
            while True:
                frame, skipped = await receive_newest(track)
                frames = slot()
                if frames is None:
                    continue
                pts = int(frame.pts or 0)
                incoming = Incoming(frame, pts, time.monotonic_ns(), capture_wall_ms(receiver, pts))
                skipped += frames.put(incoming)
                if skipped:
                    self.drop(skipped, "decoded")
        except MediaStreamError:
            return  # the worker goes on with idle life

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
        self.ledger.frame(outgoing.trace, sequence=outgoing.sequence, pts_s=pts_s, fresh=outgoing.fresh)
        self.lip_sync.sent(outgoing)
        self.tally.sent(outgoing)
