"""`Source`: where what drives comes from: pictures (a video file, a camera) or sound (a file, a microphone)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum

from streamer.closing import Closing
from streamer.frame import Moment


class SourceState(Enum):
    """What a source can still give."""

    READY = "ready"  # moments are coming
    LOST = "lost"  # a live source's device is away; the source keeps trying and may become READY again
    ENDED = "ended"  # there will never be another one


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source delivers.

    `size_px`: the displayed (width, height) of its pictures (rotation and pixel aspect applied), None where there
    are none; `fps`: the average rate of its moments; `duration_s` is None where there is no end (a camera, a looped
    file) or it is unknown; `name` is for people; `tells_motion`: others track the face, and their motion comes.
    """

    size_px: tuple[int, int] | None
    fps: float
    is_live: bool
    duration_s: float | None
    has_audio: bool
    name: str
    tells_motion: bool = False


class Source(Closing):
    """A stream of moments; a constructed source is open, and raises DriverError when that fails.

    The loop over any source:

        with source:
            while source.state is not SourceState.ENDED:
                moment = source.read(timeout_s=0.1)
                if moment is None:
                    ...  # nothing new: idle motion while `state` is LOST, else just go on

    Sources of pictures read `Frame`s, sources of sound `Heard` moments, those that tell motion `Told` ones.

    A file's `read` waits for the next moment and its None means ENDED, so `while moment := source.read()`
    does for files. A live source never ends by itself and never raises after it was opened: when its
    device goes away `state` is LOST and `read` gives None after `timeout_s`, and moments come again when
    the device is back. One thread reads; `close` may come from any thread and ends a waiting `read`.
    """

    @property
    @abstractmethod
    def info(self) -> SourceInfo:
        """What this source delivers."""

    @property
    @abstractmethod
    def state(self) -> SourceState:
        """READY, LOST or ENDED; ENDED after `close`."""

    @property
    def notices(self) -> tuple[str, ...]:
        """For the user, a sentence for each thing that went wrong without ending the work."""
        return ()

    @property
    def notice(self) -> str | None:
        """All of `notices` in one line; None without any."""
        return "; ".join(self.notices) or None

    @abstractmethod
    def read(self, timeout_s: float | None = None) -> Moment | None:
        """The next moment of a file, the newest unread one of a live source; None when there is none.

        Moments have `pts_s` from 0, strictly increasing, and `captured` and `decoded` stamped.
        `timeout_s` limits the wait of live sources (None: until a moment or `close`); files ignore it.
        Raises DriverError naming the fix when a file breaks before its first one.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or device; `read` then gives None. Idempotent."""
