"""`open_media`: a file of video or sound, opened by FFmpeg and nothing but a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.errors import DriverError
from streamer.pyav import Stream, av
from streamer.sources.names import is_called_sound

# FFmpeg also opens pictures, text (as ANSI art) and lists of addresses; none of them is a driving video.
_NOT_VIDEO = {"tty", "image2", "gif_pipe", "hls", "dash", "concat", "concatf", "sdp", "rtsp"}


# Containers whose header states the length exactly, so that a missing end can be noticed.
EXACT_LENGTH = ("mov", "matroska", "avi", "wav", "flac", "ogg", "aiff", "caf")
_MOST_FAULTS = 50  # one behind the other, after which a file is taken to be at its end


def open_media(path: Path) -> av.container.InputContainer:
    """The open file; raises DriverError naming what to give instead."""
    kind, example = ("sound", ".wav") if is_called_sound(path) else ("video", ".mp4")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DriverError(f"the driving {kind} {path} {what}; give the path of a {kind} file")
    try:
        if path.stat().st_size == 0:
            raise DriverError(f"{path} is empty; give a {kind} file such as a {example}")
        # `file:` keeps FFmpeg from taking a name with a colon, or a list inside, for a network address.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.error.InvalidDataError as error:
        raise DriverError(
            f"{path} is not a {kind}, or its index is missing because the recording was cut off; "
            "export or copy it again and use that"
        ) from error
    except (av.error.FFmpegError, OSError) as error:
        raise DriverError(f"cannot read {path} ({error}); check that it is a {kind} you may read") from error
    name = container.format.name
    if name in _NOT_VIDEO or name.endswith("_pipe"):
        container.close()
        raise DriverError(f"{path} is not a {kind}; give a {kind} file such as a {example}")
    return container


def stated_length_s(container: av.container.InputContainer, start_s: float) -> float | None:
    """How long what begins at `start_s` lasts, as the header says; None where it does not.

    Matroska states the time of the end (RFC 9559 § 5.1.2.10 leaves it open; FFmpeg writes that), others a length.
    """
    if container.duration is None:
        return None
    stated_s = container.duration / 1e6
    if container.format.name.startswith("matroska") and 0 < start_s < stated_s:
        return stated_s - start_s
    return stated_s


def packets_of(
    container: av.container.InputContainer, streams: Sequence[Stream]
) -> Iterator[av.Packet[Stream] | None]:
    """All packets of `streams` to the end of the file, None where it cannot be read.

    The last, empty ones flush decoders.
    """
    packets = container.demux(streams)
    faults = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            yield None
            faults += 1
            if faults > _MOST_FAULTS or not isinstance(error, av.error.InvalidDataError):
                return
            packets = container.demux(streams)  # FFmpeg goes on behind the place, PyAV's iterator does not
            continue
        faults = 0
        yield packet
