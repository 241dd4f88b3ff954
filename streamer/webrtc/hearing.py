"""`Hearing`: what of a call's sound is listened to, to drive the avatar or to help the camera."""

from __future__ import annotations

import logging
from functools import lru_cache

import av

from engines.errors import WeightsError
from engines.motion import Motion
from engines.speech.speech_to_motion import SpeechToMotion
from streamer.clock import Clock
from streamer.drive.voice import Voice
from streamer.drive.voice_helps import Said
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.call_sound import CallSound
from streamer.webrtc.offer_sdp import OfferError

logger = logging.getLogger(__name__)

# read once: it holds no state, so all calls share it
shared_speech = lru_cache(1)(SpeechToMotion)


class Hearing:
    """Event-loop only, but for `said`."""

    def __init__(self, options: CallOptions, clock: Clock) -> None:
        """Raises OfferError when the voice is to drive and its network does not load."""
        self._clock = clock
        self._may_help = options.drive == "webcam" and options.mode == "avatar"
        self.sound: CallSound | None = None
        if options.drive == "voice":
            try:
                self.sound = self._open()
            except WeightsError as error:
                raise OfferError(str(error)) from error
        self.help(options.voice_helps)

    def help(self, wanted: bool) -> None:
        """Whether the voice moves the mouth while the camera sees no face; without effect where it drives."""
        if not self._may_help or wanted == (self.sound is not None):
            return
        if self.sound is not None:
            self.sound.close()
            self.sound = None
            return
        try:
            self.sound = self._open()
        except WeightsError as error:
            logger.warning("the voice will not help the camera: %s", error)

    def put(self, frame: av.AudioFrame, captured_ns: float | None = None) -> None:
        """A decoded packet of the call, now, and when its first sample was captured; waits for nothing."""
        if self.sound is not None:
            self.sound.put(frame, captured_ns)

    def said(self, rest: Motion) -> Said | None:
        """For a `Driver`, in the tracking thread: what is being said now; None while nobody speaks or listens."""
        sound = self.sound
        return None if sound is None else sound.said(rest)

    def close(self) -> None:
        """End a waiting `read`."""
        if self.sound is not None:
            self.sound.close()

    def _open(self) -> CallSound:
        return CallSound(Voice(shared_speech()), self._clock)
