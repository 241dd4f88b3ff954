"""What a user may name where a file belongs: a device, a network address, the home folder. Imports nothing slow."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engines.errors import VisavisError
from engines.files import not_a_file
from streamer.kept import KeptAvatars

# also with a slash too few; a drive of Windows has one letter
_ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+://|(rtsps?|rtmps?|https?|udp|rtp|srt|mms|ftp):/?", re.IGNORECASE
)
_CAMERA = re.compile(r"/dev/video(\d+)")
_MICROPHONE = re.compile(r"/dev/(snd|dsp|audio)\b|(hw|plughw|alsa|pulse|avfoundation):")
_STREAMS = {"-", "pipe:", "pipe:0", "pipe:1", "/dev/stdin", "/dev/stdout", "/dev/fd/0", "/dev/fd/1"}


class PlaceError(VisavisError):
    """What was named is no file; the message says what to write instead."""


def path_of(text: str) -> str:
    """`text` with `~` as the home folder and a file:// address as its path; whatever else it is stays as typed."""
    if text.lower().startswith("file://") and urlsplit(text).netloc in ("", "localhost"):
        return unquote(urlsplit(text).path)
    if text.startswith("~") and not Path(text).exists():  # a shell leaves it in `--from=~/talk.mp4`
        with suppress(RuntimeError):  # nobody's home
            return str(Path(text).expanduser())
    return text


def _is_there(text: str) -> bool:
    return os.path.exists(text)  # noqa: PTH110 (Path's raises for a name longer than names may be)


def is_address(text: str) -> bool:
    """Whether it is an address of the network, such as rtsp://…"""
    return _ADDRESS.match(text) is not None and not text.lower().startswith("file://") and not _is_there(text)


def camera_number(text: str) -> int | None:
    """N of a camera /dev/videoN, through links such as /dev/v4l/by-id/…; None for all else."""
    for name in (text, os.path.realpath(text)) if text.startswith("/dev/") else (text,):
        if found := _CAMERA.fullmatch(name):
            return int(found[1])
    return None


def is_lost_camera(text: str) -> bool:
    """Whether it is where cameras are called something, and nothing is there: one that was pulled out."""
    return text.startswith(("/dev/video", "/dev/v4l/")) and not _is_there(text)


def is_microphone(text: str) -> bool:
    """Whether it is what other programs call a microphone."""
    return _MICROPHONE.match(text) is not None


def is_stream(text: str) -> bool:
    """Whether it is standard input or output, as other programs write it."""
    return text in _STREAMS


def _looked_at(text: str) -> Path:
    """The path, if it can be looked at; whether something is there is another question."""
    path = Path(text)
    try:
        path.exists()
    except (
        OSError,
        ValueError,
    ) as error:  # longer than the file system takes, a folder that may not be entered
        reason = getattr(error, "strerror", None) or error
        raise PlaceError(f"{text!r:.80} cannot be looked at ({reason}); name another file") from error
    return path


def input_file(text: str) -> Path:
    """A file to be read, as typed on the command line. Raises PlaceError for what can be none."""
    if not text.strip():
        raise PlaceError("a file's name is empty; name a file")
    path = _looked_at(path_of(text))
    if path.is_file():
        return path
    if is_address(text):
        raise PlaceError(
            f"{text} is an address, and visavis fetches nothing: save it as a file and name that"
        )
    if (number := camera_number(text)) is not None:
        raise PlaceError(f"{text} is a camera, no file; only `visavis run --from webcam:{number}` takes one")
    if is_lost_camera(text):
        raise PlaceError(f"there is no camera {text}; `visavis devices` lists those that there are")
    if is_microphone(text):
        raise PlaceError(f"{text} is a microphone, no file; only `visavis run --from mic` takes one")
    if is_stream(text):
        raise PlaceError(f"visavis reads no standard input ({text}): save it as a file and name that")
    if path.is_symlink() and not path.exists():
        raise PlaceError(f"{path} is a link that leads nowhere; name the file itself")
    if (kind := not_a_file(path)) and not path.is_dir():
        raise PlaceError(f"{path} is {kind}, no file; save what comes out of it as a file and name that")
    if re.search(r"[*?\[]", text) and not path.exists():
        raise PlaceError(f"{text} is a pattern that no shell has filled in; name one file")
    return path


def avatar_file(text: str) -> Path:
    """An avatar as typed on the command line: a file, else the name of one kept on this computer. Raises PlaceError."""
    wanted = path_of(text)
    if text.strip() and not os.path.isfile(wanted):  # noqa: PTH113 (as above); a folder may have its name too
        kept = KeptAvatars().find(text)
        if kept is not None:
            return kept
        if not _is_there(wanted) and not re.search(r"[/\\.:*?\[-]", text) and not is_stream(text):
            raise PlaceError(
                f"there is no file {text}, and no avatar of that name is kept here: `visavis avatars` lists those that "
                f"are; make one with `visavis enroll PHOTO -o {text}.avatar`"
            )
    return input_file(text)


def output_file(text: str) -> Path:
    """A file to be written, as typed on the command line. Raises PlaceError for what can be none."""
    if not text.strip():
        raise PlaceError("a file's name is empty; name a file")
    path = _looked_at(path_of(text))
    if is_address(text):
        raise PlaceError(
            f"{text} is an address, and visavis sends nothing there: write a file, or let OBS send what "
            "`visavis run --to virtualcam` shows"
        )
    if camera_number(text) is not None:
        raise PlaceError(
            f"{text} is a camera, no file; `visavis run --to virtualcam:{text}` shows pictures there"
        )
    if is_stream(text):
        raise PlaceError(f"visavis writes nothing to standard output ({text}); name a file")
    if (kind := not_a_file(path)) in ("a pipe", "a socket", "a disk"):
        raise PlaceError(f"{path} is {kind}, no file; name a file")  # a pipe waits for its reader for ever
    return path
