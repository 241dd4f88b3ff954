"""`audio_of`: the audio of a file, on the same clock as its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from engines.errors import DriverError
from streamer.closing import Closing
from streamer.pyav import av
from streamer.sources.media_file import open_media, packets_of
from streamer.sources.sound_reading import SoundReading
from streamer.sources.timeline import Timeline
from streamer.sources.tracks import is_sound_alone
from streamer.sources.video_reading import VideoReading

_PRIMING_S = 0.1  # an encoder's run-up is shorter, a sound that begins late is later


class AudioTrack(Closing):
    """One sound track of a file, to be copied or decoded; owns its container (a context manager).

    `start_s` is the stream time at which the video's first frame is shown: audio at `t` there belongs to
    `pts_s = t − start_s` of `VideoSource`. `lost` counts packets that could not be read.
    """

    def __init__(self, container: av.container.InputContainer, index: int, start_s: float) -> None:
        self._container = container
        self.stream = next(s for s in container.streams.audio if s.index == index)
        self.start_s = start_s
        self.lost = 0

    @property
    def container_name(self) -> str:
        """FFmpeg's name for the kind of file."""
        return self._container.format.name

    def packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets in order, at times that rise; damaged ones are left out. The last, empty one flushes a decoder."""
        base = self.stream.time_base
        timeline = Timeline(0.0)
        for any_packet in packets_of(self._container, [self.stream]):
            if any_packet is None or any_packet.is_corrupt:
                self.lost += 1
                continue
            packet = cast("av.Packet[av.AudioStream]", any_packet)
            if packet.size and base is not None:
                pts_s, dts_s = (None if t is None else float(t * base) for t in (packet.pts, packet.dts))
                timeline = timeline.after(pts_s, dts_s)
                assert timeline.last_s is not None
                if pts_s is None or dts_s is None or abs(timeline.last_s - pts_s) > 1e-6:
                    packet.pts = packet.dts = round(timeline.last_s / base)
                timeline = timeline.lasting(float((packet.duration or 0) * base))
            yield packet

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._container.close()


def audio_of(path: Path) -> AudioTrack | None:
    """The sound of `path`, the best track that decodes; None when it has none.

    Raises DriverError when the file is neither video nor sound.
    """
    alone = is_sound_alone(path)
    start_s = 0.0
    if not alone:
        with VideoReading(path) as video:
            if not video.has_audio:
                return None
            start_s = video.start_s
    try:
        with SoundReading(path) as sound:
            index, begin_s = sound.stream.index, sound.start_s
    except DriverError:
        return None
    if alone and abs(begin_s) > _PRIMING_S:
        start_s = begin_s
    return AudioTrack(open_media(path), index, start_s)
