"""`audio_of`: the audio of a file, on the same clock as its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamer.closing import Closing
from streamer.pyav import av
from streamer.sources.media_file import open_media
from streamer.sources.names import is_sound
from streamer.sources.video_reading import VideoReading


class AudioTrack(Closing):
    """The audio of a video file, to be copied or decoded; owns its container (a context manager).

    `start_s` is the stream time at which the video's first frame is shown: audio at `t` there belongs to
    `pts_s = t − start_s` of `VideoSource`.
    """

    def __init__(self, container: av.container.InputContainer, start_s: float) -> None:
        self._container = container
        self.stream = container.streams.audio[0]
        self.start_s = start_s

    def packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        """Packets in order, ending where the file is damaged; the last, empty one flushes a decoder."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                return
            if packet.is_corrupt:
                return
            yield packet

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._container.close()


def audio_of(path: Path) -> AudioTrack | None:
    """The first audio track of `path`, or None when it has none; DriverError when it is neither video nor sound."""
    if is_sound(path):  # where a cover picture is a video stream to FFmpeg
        return AudioTrack(open_media(path), 0.0)
    with VideoReading(path) as video:
        if not video.has_audio:
            return None
        first = video.next()
    return AudioTrack(open_media(path), first.time_s if first else 0.0)
