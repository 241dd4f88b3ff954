"""How a user names a source; imports nothing, so that a command line may."""

from __future__ import annotations

from pathlib import Path

SOURCE_NAMES = ("webcam", "mic")  # any other name is a file's
SOURCE_CHOICES = "webcam, webcam:N, mic, mic:N, or a file of video or speech"
DEFAULT_SOURCE = "webcam"

_SOUND_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma", ".aiff", ".aif"}
_MOTION_SUFFIX = ".jsonl"


def is_sound(path: Path) -> bool:
    """Whether `path` is a file of sound alone, by its name."""
    return path.suffix.lower() in _SOUND_SUFFIXES


def is_motion(path: Path) -> bool:
    """Whether `path` is a recorded motion, by its name."""
    return path.suffix.lower() == _MOTION_SUFFIX
