"""`open_media`: a file of video or sound, opened by FFmpeg and nothing but a file."""

from __future__ import annotations

from pathlib import Path

from engines.errors import DriverError
from streamer.pyav import av
from streamer.sources.names import is_sound

# FFmpeg also opens pictures, text (as ANSI art) and lists of addresses; none of them is a driving video.
_NOT_VIDEO = {"tty", "image2", "gif_pipe", "hls", "dash", "concat", "concatf", "sdp", "rtsp"}


def open_media(path: Path) -> av.container.InputContainer:
    """The open file; raises DriverError naming what to give instead."""
    kind, example = ("sound", ".wav") if is_sound(path) else ("video", ".mp4")
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
