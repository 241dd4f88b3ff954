"""`open_source`: a source by its name. A new one stands here and in `names`, and can be chosen everywhere."""

from __future__ import annotations

from pathlib import Path

from engines.errors import DriverError
from streamer.sources.source import Source


def open_source(spec: str, *, loop: bool = False) -> Source:
    """`webcam`, `webcam:N`, `mic`, `mic:N`, or a file of sound or video, played at its own pace; open.

    A video whose face lies is turned upright.

    Raises DriverError naming the fix.
    """
    # Each kind brings its own heavy or optional library: load the one that is wanted.
    kind, _, index = spec.partition(":")
    if kind in ("webcam", "mic"):
        if index and not index.isdigit():
            what = "camera" if kind == "webcam" else "microphone"
            raise DriverError(f"{spec!r} is no {what}; write {kind}:N with a number from `visavis devices`")
        if kind == "mic":
            from streamer.sources.microphone import MicrophoneSource

            return MicrophoneSource(int(index) if index else None)
        from streamer.sources.webcam import WebcamSource

        return WebcamSource(int(index or 0))
    from streamer.sources.tracks import is_sound_alone

    path = Path(spec)
    if is_sound_alone(path):
        from streamer.sources.sound import SoundFileSource

        return SoundFileSource(path, loop=loop)
    from streamer.sources.orientation import upright_turn
    from streamer.sources.video import VideoSource

    return VideoSource(path, loop=loop, realtime=True, quarter_turns=upright_turn(path))
