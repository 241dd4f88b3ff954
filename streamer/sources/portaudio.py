"""Sound devices through PortAudio, a system library: loaded when it is used, with the fix where it is missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def load_portaudio() -> Any:
    """The module `sounddevice`; raises ImportError or OSError where PortAudio cannot be loaded."""
    return importlib.import_module("sounddevice")


def portaudio_fix(platform: str = sys.platform) -> str:
    """What to do where sound devices cannot be reached at all."""
    if platform.startswith("linux"):
        return "run `sudo apt-get install -y libportaudio2`"
    return "reinstall sounddevice: `pip install --force-reinstall sounddevice`"
