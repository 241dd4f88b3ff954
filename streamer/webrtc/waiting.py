"""What waits for a decoder, bounded: the newest sound, and pictures that can still be decoded in time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamer.webrtc.budget import Budget
from streamer.webrtc.encoded_picture import look
from streamer.webrtc.picture_buffer import EncodedPicture
from streamer.webrtc.sound_buffer import EncodedSound
from streamer.webrtc.sound_filler import LONGEST_FILL_S

MOST_SOUND_MS = 200.0
MOST_PICTURES_MS = 150.0
MOST_PICTURES = 30
MOST_PIXELS = 1920 * 1200  # the largest of usual cameras; 1080p in whole macroblocks is less
MOST_FPS = 60
MOST_PIXELS_PER_S = MOST_PIXELS * 30
LEEWAY = 1.1  # a camera's clock is not ours
SHORTEST_SOUND_S = 0.0025  # Opus' shortest frame
MOST_MISORDER_MS = 1000.0
WITHOUT_KEY_S = 2.0  # a sender that gives no key frame for so long is decoded as it comes
KEY_EVERY_MS = 500.0


class Allowance:
    """What a decoder may be given, in seconds of its time or of its sound: `LEEWAY` a second, and one at once."""

    def __init__(self) -> None:
        self._budget = Budget(LEEWAY, 1.0)
        self._at_ms: float | None = None

    def take(self, arrived_ms: float, cost_s: float) -> bool:
        """Whether it may be given what costs so much; it is then counted."""
        # a picture's last packet may come before that of the one before it, and must not earn twice;
        # what lies further back is a clock that was set
        if self._at_ms is None or not 0 < self._at_ms - arrived_ms < MOST_MISORDER_MS:
            self._at_ms = arrived_ms
        return self._budget.take(round(self._at_ms * 1e6), cost_s)


class SoundWaiting:
    """Encoded sound, the oldest of which goes when more than `MOST_SOUND_MS` lies between it and the newest.

    More of it than `seconds` gives does not even wait.
    """

    def __init__(self, clock_hz: int, seconds: Allowance) -> None:
        self._clock_hz = clock_hz
        self._most = MOST_SOUND_MS * clock_hz / 1000
        self._seconds = seconds
        self._waiting: deque[EncodedSound] = deque()
        self._time: int | None = None  # of the last that came

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sound: EncodedSound) -> int:
        """How many were dropped: this one, or older ones."""
        step_s = 0.0 if self._time is None else (sound.time - self._time) / self._clock_hz
        # a gap is filled, and that is sound as well; a longer one is left as it is
        cost_s = max(SHORTEST_SOUND_S, min(step_s, LONGEST_FILL_S))
        self._time = sound.time
        if not self._seconds.take(sound.released_ms, cost_s):
            return 1
        self._waiting.append(sound)
        dropped = 0
        while sound.time - self._waiting[0].time > self._most:
            self._waiting.popleft()
            dropped += 1
        return dropped

    def take(self) -> EncodedSound | None:
        """The oldest."""
        return self._waiting.popleft() if self._waiting else None


@dataclass(frozen=True, slots=True)
class Refused:
    """A size that is not decoded."""

    width_px: int
    height_px: int


def refused(width_px: int, height_px: int) -> Refused | None:
    """Whether a picture is too large to be decoded."""
    return Refused(width_px, height_px) if width_px * height_px > MOST_PIXELS else None


class PicturesWaiting:
    """Encoded pictures on their way to the decoder.

    A picture needs those before it, up to a key frame; so whatever is left out, pictures are dropped until the next
    key frame, which `wants_key` asks for. Left out is what waits longer than `MOST_PICTURES_MS`, what follows a loss,
    what is larger than `MOST_PIXELS`, and more a second than `MOST_FPS` or `MOST_PIXELS_PER_S`, by `seconds`.
    """

    def __init__(self, codec: str, clock_hz: int, seconds: Allowance) -> None:
        self._codec = codec
        self._clock_hz = clock_hz
        self._waiting: deque[EncodedPicture] = deque()
        self._size_px = (0, 0)
        self._seconds = seconds
        self._blind_since: int | None = None  # the time from which on a key frame is missing
        self._has_begun = False  # whether a key frame ever came
        self._asked_ms: float | None = None
        self.refused: Refused | None = None  # until a smaller key frame comes
        self.has_failed = False  # the decoder, since a key frame was asked for

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, picture: EncodedPicture) -> int:
        """How many were dropped: this one, or older ones."""
        seen = look(self._codec, picture.data)
        if seen.size_px is not None:
            self._size_px, self.refused = seen.size_px, refused(*seen.size_px)
        if self.refused is not None:
            return 1 + self._drop(picture.time)
        if seen.is_key:
            self._has_begun, self._blind_since = True, None
        elif not picture.follows or not self._has_begun:
            self._go_blind(picture.time)
        if self._is_blind(picture.time):
            return 1
        width, height = self._size_px
        cost_s = max(1 / MOST_FPS, width * height / MOST_PIXELS_PER_S)
        if not self._seconds.take(picture.arrived_ms, cost_s):
            self._go_blind(picture.time)
            return 1
        self._waiting.append(picture)
        # by arrival: pictures that a busy event loop brings all at once are decoded faster than a key frame comes
        waited_ms = picture.arrived_ms - self._waiting[0].arrived_ms
        if waited_ms > MOST_PICTURES_MS or len(self._waiting) > MOST_PICTURES:
            return self._catch_up()
        return 0

    def take(self) -> EncodedPicture | None:
        """The next one for the decoder."""
        return self._waiting.popleft() if self._waiting else None

    def wants_key(self, now_ms: float) -> bool:
        """Whether to ask the sender for a key frame now: while one is missing, at most every `KEY_EVERY_MS`."""
        if (self._blind_since is None and not self.has_failed) or self.refused is not None:
            return False
        if self._asked_ms is not None and abs(now_ms - self._asked_ms) < KEY_EVERY_MS:
            return False
        self._asked_ms, self.has_failed = now_ms, False
        return True

    def _go_blind(self, time: int) -> None:
        self._blind_since = time if self._blind_since is None else self._blind_since

    def _is_blind(self, time: int) -> bool:
        if self._blind_since is None:
            return False
        if self._has_begun and time - self._blind_since >= WITHOUT_KEY_S * self._clock_hz:
            self._blind_since = None
        return self._blind_since is not None

    def _catch_up(self) -> int:
        """Drop what lags: up to the newest key frame that waits, else everything."""
        newest = next(
            (k for k in reversed(range(len(self._waiting))) if self._is_key(self._waiting[k])), None
        )
        if newest:
            for _ in range(newest):
                self._waiting.popleft()
            return newest
        return self._drop(self._waiting[-1].time)

    def _is_key(self, picture: EncodedPicture) -> bool:
        return look(self._codec, picture.data).is_key

    def _drop(self, time: int) -> int:
        dropped = len(self._waiting)
        self._waiting.clear()
        self._go_blind(time)
        return dropped
