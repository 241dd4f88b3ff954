"""PyAV, loaded after OpenCV: import `av` from here.

Both bring their own libxcb, and with PyAV's first, OpenCV's windows hang for ever (PyAV-Org/PyAV#978,
opencv/opencv#29195).
"""

from __future__ import annotations

import cv2  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
import av
import av.container  # pyright: ignore[reportUnusedImport]
import av.error  # pyright: ignore[reportUnusedImport]
from av.audio.resampler import AudioResampler
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.reformatter import ColorRange, Colorspace

__all__ = [
    "AudioResampler",
    "ColorRange",
    "Colorspace",
    "Disposition",
    "SideData",
    "SideDataType",
    "Stream",
    "av",
]
