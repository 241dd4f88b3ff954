"""Process-wide settings for live work, made once at the start of a command."""

from __future__ import annotations

import cv2


def tune_for_small_pictures() -> None:
    """One OpenCV thread per call: at 512² its thread pool costs more CPU than it saves (30.6 against 35.4 ms
    of CPU per frame for the whole chain on 2 cores), and the stages run in threads of their own anyway.
    """
    cv2.setNumThreads(1)
