"""How a user names a source; imports nothing, so that a command line may."""

from __future__ import annotations

from pathlib import Path

SOURCE_NAMES = ("webcam", "mic")  # any other name is a file's
SOURCE_CHOICES = "webcam, webcam:N, mic, mic:N, or a file of video or speech"
DEFAULT_SOURCE = "webcam"

_SOUND_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif"}
_MOTION_SUFFIX = ".jsonl"


def is_called_sound(path: Path) -> bool:
    """Whether the name of `path` says that it is sound alone; what it is says `tracks.is_sound_alone`."""
    return path.suffix.lower() in _SOUND_SUFFIXES


def is_motion(path: Path) -> bool:
    """Whether `path` is a recorded motion, by its name."""
    return path.suffix.lower() == _MOTION_SUFFIX
