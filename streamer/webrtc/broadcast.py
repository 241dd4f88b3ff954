"""`Broadcast`: one call's pictures and sound, given to all who watch it, each as fast as it takes them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from streamer.slot import Slot
from streamer.webrtc.media import MediaTime, Outgoing, SlotTrack

MOST_PIECES = 10  # of 20 ms that wait for one watcher, as much as waits for a decoder


class SoundTrack(MediaStreamTrack):
    """The sound of a broadcast for one watcher: what is not taken in time goes, the oldest first.

    `gone` and `newest`: as a `DelayedAudioTrack`'s.
    """

    kind = "audio"

    def __init__(self, gone: Callable[[float, int], None] = lambda *_: None) -> None:
        super().__init__()
        self.newest: MediaTime | None = None
        self._gone = gone
        self._given_ns: int | None = None
        self._pieces: deque[tuple[av.AudioFrame, float | None, int]] = deque(maxlen=MOST_PIECES)
        self._come = asyncio.Event()

    def put(self, piece: av.AudioFrame, captured_ns: float | None = None) -> None:
        """A piece of sound, and when its first sample was captured; waits for nothing."""
        self._pieces.append((piece, captured_ns, time.monotonic_ns()))
        self._come.set()

    async def recv(self) -> av.AudioFrame:
        if self.newest is not None and self._given_ns is not None:
            self._gone(self.newest.captured_ns, self._given_ns)
        while not self._pieces:
            if self.readyState == "ended":
                raise MediaStreamError
            self._come.clear()
            await self._come.wait()
        piece, captured_ns, given_ns = self._pieces.popleft()
        self._given_ns = None
        if captured_ns is not None:
            self.newest = MediaTime(int(piece.pts or 0), piece.sample_rate, captured_ns)
            self._given_ns = given_ns
        return piece

    def stop(self) -> None:
        """Nothing more comes."""
        super().stop()
        self._come.set()


class Watching:
    """One who watches: tracks to send, of pictures and of sound. Event-loop only."""

    def __init__(
        self,
        sent: Callable[[Watching, Outgoing], None],
        sound_gone: Callable[[Watching, float, int], None],
        hold_ms: Callable[[], float],
    ) -> None:
        self.slot: Slot[Outgoing] = Slot()
        self.pictures = SlotTrack(self.slot, lambda outgoing: sent(self, outgoing), hold_ms)
        self.sound = SoundTrack(lambda captured_ns, given_ns: sound_gone(self, captured_ns, given_ns))

    def close(self) -> None:
        """End both."""
        self.slot.close()
        self.sound.stop()


class Broadcast:
    """Latest frame wins for each watcher by itself, so a slow one holds up nobody.

    `put` may be called from any thread, all else on the event loop. Who joined first and is still there leads: what it
    sends is what the call's latency is measured by (`sent`, `on_sound_gone`). `hold_ms`: how long each picture waits
    for its sound.
    """

    def __init__(self, sent: Callable[[Outgoing], None], hold_ms: Callable[[], float] = lambda: 0.0) -> None:
        self.has_pictures = False  # whether there has been one
        self.has_sound = False
        self._sent = sent
        self._hold_ms = hold_ms
        self.on_sound_gone: Callable[[float, int], None] = lambda *_: (
            None
        )  # as a `DelayedAudioTrack`'s `gone`
        self._watching: tuple[Watching, ...] = ()  # replaced, never changed: `put` reads it in another thread
        self._is_closed = False

    @property
    def watched(self) -> bool:
        """Whether there is anybody to draw for."""
        return bool(self._watching)

    @property
    def crowded(self) -> bool:
        """Whether more than one watches, so that the call costs more than others of its kind."""
        return len(self._watching) > 1

    def join(self) -> Watching:
        """One more who watches, from the next picture on."""
        watching = Watching(self._has_sent, self._sound_has_gone, self._hold_ms)
        if self._is_closed:
            watching.close()
        else:
            self._watching = (*self._watching, watching)
        return watching

    def leave(self, watching: Watching) -> None:
        """Watch no more."""
        self._watching = tuple(w for w in self._watching if w is not watching)
        watching.close()

    def put(self, outgoing: Outgoing) -> None:
        """The newest picture, for everybody. Each gets a frame of its own, for encoders write times into them."""
        self.has_pictures = True
        watching = self._watching
        # made before the first is given away: whoever has it changes it
        others = twins_of(outgoing.frame, len(watching) - 1)
        frames = [outgoing.frame, *others]
        for one, frame in zip(watching, frames, strict=False):
            one.slot.put(replace(outgoing, frame=frame))

    def hear(self, piece: av.AudioFrame, captured_ns: float | None = None) -> None:
        """A piece of sound that leaves now: for those who watch beside the page, which sends it itself."""
        self.has_sound = True
        for watching in self._watching:
            if watching.sound.readyState == "live":
                watching.sound.put(copy_of(piece), captured_ns)

    def close(self) -> None:
        """The end, for everybody."""
        self._is_closed = True
        for watching in self._watching:
            watching.close()
        self._watching = ()

    def _sound_has_gone(self, watching: Watching, captured_ns: float, given_ns: int) -> None:
        if self._watching and self._watching[0] is watching:
            self.on_sound_gone(captured_ns, given_ns)

    def _has_sent(self, watching: Watching, outgoing: Outgoing) -> None:
        if self._watching and self._watching[0] is watching:
            self._sent(outgoing)


def twins_of(frame: av.VideoFrame, count: int) -> list[av.VideoFrame]:
    """`count` frames that show the same; their pixels are copied once for all of them."""
    if count < 1:
        return []
    pixels: NDArray[Any] = frame.to_ndarray()
    twins: list[av.VideoFrame] = []
    for _ in range(count):
        twin = av.VideoFrame.from_numpy_buffer(pixels, format=frame.format.name)
        twin.pts, twin.time_base = frame.pts, frame.time_base
        twins.append(twin)
    return twins


def copy_of(piece: av.AudioFrame) -> av.AudioFrame:
    """The same sound at the same time."""
    samples: Any = piece.to_ndarray()
    copied = av.AudioFrame.from_ndarray(samples, format=piece.format.name, layout=piece.layout.name)
    copied.sample_rate, copied.pts, copied.time_base = piece.sample_rate, piece.pts, piece.time_base
    return copied
