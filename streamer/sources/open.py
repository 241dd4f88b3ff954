"""`open_source`: a source by its name. A new one stands here and in `names`, and can be chosen everywhere."""

from __future__ import annotations

from pathlib import Path

from streamer.sources.names import SOURCE_NAMES, source_named
from streamer.sources.source import Source
from streamer.sources.told.address import is_told, told_address


def open_source(spec: str, *, loop: bool = False) -> Source:
    """`webcam`, `webcam:N`, `mic`, `mic:N`, or a file of sound or video, played at its own pace; open.

    Or one who tells motion: `vts://PHONE`, `vmc://:PORT` and the like. A video whose face lies is turned upright.

    Raises DriverError naming the fix.
    """
    # Each kind brings its own heavy or optional library: load the one that is wanted.
    spec = source_named(spec)
    kind, _, index = spec.partition(":")
    if kind in SOURCE_NAMES:
        if kind == "mic":
            from streamer.sources.microphone import MicrophoneSource

            return MicrophoneSource(int(index) if index else None)
        from streamer.sources.webcam import WebcamSource

        return WebcamSource(int(index or 0))
    if is_told(spec):
        from streamer.sources.told.udp_source import ToldSource

        return ToldSource(told_address(spec))
    from streamer.sources.tracks import is_sound_alone

    path = Path(spec)
    if is_sound_alone(path):
        from streamer.sources.sound import SoundFileSource

        return SoundFileSource(path, loop=loop)
    from streamer.sources.orientation import upright_turn
    from streamer.sources.video import VideoSource

    return VideoSource(path, loop=loop, realtime=True, quarter_turns=upright_turn(path))
