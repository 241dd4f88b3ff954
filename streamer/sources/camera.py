"""`open_camera`: a camera of this computer through OpenCV, asked for the best of what it offers."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.sources.camera_modes import CameraMode, best_mode
from streamer.sources.camera_pixels import shape_of

U8 = NDArray[np.uint8]

# One for the driver to fill while one is read: with a single one a driver drops the picture that begins while we
# copy, and gives every second. The camera's thread reads at once, so nothing waits in it.
_BUFFERS = 2


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """What is asked of the camera; it answers with the nearest it can."""

    index: int
    width_px: int
    height_px: int
    fps: float


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, Any]: ...

    def get(self, propId: int) -> float: ...

    def set(self, propId: int, value: float) -> bool: ...

    def release(self) -> None: ...


class Camera(Protocol):
    """An opened camera: `read` gives a picture in the format `fourcc`, laid out as `camera_pixels` reads it."""

    fourcc: str

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, Any]: ...

    def get(self, propId: int) -> float: ...

    def release(self) -> None: ...


class OpenCvCamera:
    """`cv2.VideoCapture` that gives pictures as the camera sent them where it can, so that those that nobody follows
    are never decoded; BGR where it cannot."""

    def __init__(self, capture: Capture, mode: CameraMode | None) -> None:
        """`mode`: what it was asked for; None leaves it to OpenCV."""
        self._capture = capture
        self.fourcc = "BGR"
        agreed = mode is not None and _fourcc(capture) == mode.fourcc
        if mode is not None and agreed and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0):
            self.fourcc = mode.fourcc

    def isOpened(self) -> bool:
        """Whether the device is there."""
        return self._capture.isOpened()

    def read(self) -> tuple[bool, Any]:
        """Waits for the next picture; (False, None) when the device is away."""
        ok, raw = self._capture.read()
        if not ok or raw is None or self.fourcc == "BGR":
            return ok, raw
        width, height = (round(self.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        shape = shape_of(self.fourcc, width, height)
        if shape is None:
            return ok, raw
        if np.size(raw) == math.prod(shape):
            return ok, np.reshape(raw, shape)
        # rows with padding, or another size than was said: OpenCV knows what it has
        self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 1)
        self.fourcc = "BGR"
        return self._capture.read()

    def get(self, propId: int) -> float:
        """As `cv2.VideoCapture` says."""
        return self._capture.get(propId)

    def release(self) -> None:
        """Let go of the device."""
        self._capture.release()


def open_camera(config: CameraConfig) -> Camera:
    """The real camera, with the shortest queue that loses nothing."""
    if not sys.platform.startswith("linux"):
        return asked(cv2.VideoCapture(config.index, cv2.CAP_ANY), config, ())
    from streamer.sources.v4l2 import camera_modes

    modes = camera_modes(config.index, config.width_px, config.height_px)
    return asked(cv2.VideoCapture(config.index, cv2.CAP_V4L2), config, modes)


def asked(capture: Capture, config: CameraConfig, modes: Sequence[CameraMode]) -> OpenCvCamera:
    """`capture`, asked for the best of `modes`; for MJPG, which is quick at every size, where it told none."""
    mode = best_mode(modes, config.width_px, config.height_px, config.fps)
    wish = mode or CameraMode("MJPG", config.width_px, config.height_px, config.fps)
    # in this order: V4L2 resets the rate with the size, and the size with the format
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*wish.fourcc))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, wish.width_px)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, wish.height_px)
    capture.set(cv2.CAP_PROP_FPS, math.ceil(wish.fps))  # OpenCV asks in whole ones: 29.97 is 30
    capture.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
    return OpenCvCamera(capture, mode)


def _fourcc(capture: Capture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little").decode("latin-1") if 0 < code < 1 << 32 else ""
