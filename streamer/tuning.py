"""Process-wide settings for live work, made once at the start of a command."""

from __future__ import annotations

import sys

import cv2

SWITCH_INTERVAL_S = 0.0005


def tune_for_small_pictures() -> None:
    """Settle how threads share two cores.

    One OpenCV thread per call: at 512² its thread pool costs more CPU than it saves (30.6 against 35.4 ms of
    CPU per frame for the whole chain on 2 cores), and the stages run in threads of their own anyway.

    A short switch interval: the event loop must not wait 5 ms for the interpreter each time the inference
    thread happens to be between two calls that release it.
    """
    cv2.setNumThreads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
