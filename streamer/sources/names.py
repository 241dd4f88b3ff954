"""How a user names a source; imports nothing slow, so that a command line may."""

from __future__ import annotations

from pathlib import Path

from engines.errors import DriverError
from streamer.places import camera_number, input_file, is_address, is_lost_camera, is_microphone
from streamer.sources.told.address import TOLD_CHOICES, is_told, told_address

SOURCE_NAMES = ("webcam", "mic")  # any other name is a file's
SOURCE_CHOICES = f"webcam, webcam:N, mic, mic:N, {TOLD_CHOICES}, or a file of video or speech"
DEFAULT_SOURCE = "webcam"

_SOUND_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif"}
_MOTION_SUFFIX = ".jsonl"


def source_named(spec: str) -> str:
    """`spec` as `open_source` takes it: a source's name as it is, else the path of a file.

    Raises DriverError for a device or an address that is no source, naming what to write instead.
    """
    if not spec.strip():
        raise DriverError(f"no source was named; choose {SOURCE_CHOICES}")
    kind, _, which = spec.partition(":")
    if kind in SOURCE_NAMES:
        if which and not which.isdigit():
            number = camera_number(which) if kind == "webcam" else None
            what = "camera" if kind == "webcam" else "microphone"
            how = (
                f"{kind}:{number}" if number is not None else f"{kind}:N with a number from `visavis devices`"
            )
            raise DriverError(f"{spec!r} is no {what}; write {how}")
        return spec
    if is_told(spec):
        told_address(spec)
        return spec
    if (number := camera_number(spec)) is not None or (spec.isdigit() and not Path(spec).exists()):
        raise DriverError(f"{spec} is a camera; write webcam:{spec if number is None else number}")
    if is_address(spec):
        raise DriverError(
            f"{spec} is an address, and there are no network sources of pictures: save it as a file, or play it into "
            "a virtual camera and take that with webcam:N"
        )
    if is_lost_camera(spec):
        raise DriverError(f"there is no camera {spec}; write webcam:N with a number from `visavis devices`")
    if is_microphone(spec):
        raise DriverError(f"{spec} is a microphone; write mic:N with a number from `visavis devices`")
    path = input_file(spec)
    if is_motion(path):
        raise DriverError(
            f"{path} is a recorded motion; `visavis animate --driver {path}` plays it into a film"
        )
    if not path.exists() and path.name == spec and not path.suffix:
        raise DriverError(f"there is no source or file {spec!r:.80}; choose {SOURCE_CHOICES}")
    return str(path)


def is_called_sound(path: Path) -> bool:
    """Whether the name of `path` says that it is sound alone; what it is says `tracks.is_sound_alone`."""
    return path.suffix.lower() in _SOUND_SUFFIXES


def is_motion(path: Path) -> bool:
    """Whether `path` is a recorded motion, by its name."""
    return path.suffix.lower() == _MOTION_SUFFIX
