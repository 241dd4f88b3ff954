"""`WebcamSource`: a camera of this computer, newest frame only, surviving its being unplugged."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from streamer.clock import Clock, SystemClock
from streamer.frame import Frame, LatencyTrace
from streamer.slot import Slot
from streamer.sources.camera_pace import CameraPace
from streamer.sources.source import Source, SourceInfo, SourceState

U8 = NDArray[np.uint8]

_SILENCE_NS = 2_000_000_000  # no picture for this long counts as lost, although the driver says nothing
_JOIN_S = 3.0


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`; `read` gives (H, W, 3) uint8 BGR."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, Any]: ...

    def get(self, propId: int) -> float: ...

    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """What is asked of the camera; it answers with the nearest it can."""

    index: int
    width_px: int
    height_px: int
    fps: float


@dataclass(frozen=True, slots=True)
class _Shot:
    bgr: U8
    capture_ns: int
    received_ns: int
    sequence: int


class WebcamSource(Source):
    """A camera read in its own thread, so that `read` gives the newest picture and never an old one.

    Raises DriverError when the camera cannot be opened. Later, when it goes away, `state` is LOST and it
    is opened again every `retry_s` until it is back, with `pts_s` going on in real time (it may come back
    with another size: go by each frame's image). The same happens when it hangs for 2 s. `dropped` counts
    pictures that nobody read in time; `Frame.sequence` counts pictures taken.
    """

    def __init__(
        self,
        index: int = 0,
        *,
        width_px: int = 640,
        height_px: int = 480,
        fps: float = 30.0,
        open_capture: Callable[[CameraConfig], Capture] | None = None,
        clock: Clock | None = None,
        retry_s: float = 1.0,
    ) -> None:
        config = CameraConfig(index, width_px, height_px, fps)
        self._config = config
        self._open_capture = open_capture or open_camera
        self._clock = clock or SystemClock()
        self._retry_s = retry_s
        self._slot: Slot[_Shot] = Slot()
        self._stop = threading.Event()
        self._lost = False
        self._sequence = 0
        capture = self._try_open()
        shot = self._shoot(capture) if capture is not None else None
        if capture is None or shot is None:
            if capture is not None:
                capture.release()
            raise DriverError(
                f"camera {index} gives no picture; `visavis devices` lists the cameras: choose another with "
                "webcam:N, or close the program that is using this one"
            )
        self._start_ns = shot.capture_ns
        self._last_ns = self._clock.now_ns()
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        self._info = SourceInfo(
            size_px=(shot.bgr.shape[1], shot.bgr.shape[0]),
            fps=own_fps if 1 <= own_fps <= 240 else fps,
            is_live=True,
            duration_s=None,
            has_audio=False,
            name=f"camera {config.index}",
        )
        self._pace = CameraPace(self._info.fps).after(shot.capture_ns)
        self._slot.put(shot)
        self._thread = threading.Thread(
            target=self._run, args=(capture,), name=f"webcam-{config.index}", daemon=True
        )
        self._thread.start()

    @property
    def info(self) -> SourceInfo:
        """Size and rate that the camera chose."""
        return self._info

    @property
    def state(self) -> SourceState:
        """LOST while the camera is away or silent."""
        if self._stop.is_set():
            return SourceState.ENDED
        silent = self._clock.now_ns() - self._last_ns > _SILENCE_NS
        return SourceState.LOST if self._lost or silent else SourceState.READY

    @property
    def notices(self) -> tuple[str, ...]:
        """What to tell the user: the camera is away, or slower than it said."""
        if self.state is SourceState.LOST:
            return (f"camera {self._config.index} is gone; plug it in again and it goes on by itself",)
        pace = self._pace
        if not pace.is_slow:
            return ()
        return (
            f"camera {self._config.index} gives {pace.fps:.0f} of {pace.promised_fps:.0f} pictures a second, as most "
            "do in the dark; light your face, or switch its low-light compensation off",
        )

    @property
    def dropped(self) -> int:
        """Pictures replaced by newer ones before they were read."""
        return self._slot.dropped

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The newest unread picture; None after `timeout_s` without one and after `close`."""
        shot = self._slot.take(timeout_s)
        if shot is None:
            return None
        # Here and not in the camera's thread: pictures that are dropped cost no conversion.
        image = np.asarray(cv2.cvtColor(shot.bgr, cv2.COLOR_BGR2RGB), np.uint8)
        trace = LatencyTrace().mark("captured", shot.capture_ns).mark("received", shot.received_ns)
        trace = trace.mark("decoded", self._clock.now_ns())
        pts_s = (shot.capture_ns - self._start_ns) / 1e9
        return Frame(pts_s, shot.capture_ns, trace, shot.sequence, image=image)

    def close(self) -> None:
        """Let go of the camera; a driver that hangs is left to its daemon thread after 3 s."""
        self._stop.set()
        self._slot.close()
        self._thread.join(_JOIN_S)

    def _run(self, capture: Capture | None) -> None:
        try:
            while not self._stop.is_set():
                if capture is None:
                    capture = self._try_open()
                shot = self._shoot(capture) if capture is not None else None
                if shot is not None:
                    self._last_ns = shot.received_ns
                    self._lost = False
                    self._pace = self._pace.after(shot.capture_ns)
                    self._slot.put(shot)
                    continue
                self._lost = True
                self._pace = CameraPace(self._info.fps)
                if capture is not None:
                    capture.release()
                    capture = None
                self._stop.wait(self._retry_s)
        finally:
            if capture is not None:
                capture.release()

    def _try_open(self) -> Capture | None:
        try:
            capture = self._open_capture(self._config)
        except (cv2.error, OSError):
            return None
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _shoot(self, capture: Capture) -> _Shot | None:
        try:
            ok, bgr = capture.read()
        except (cv2.error, OSError):
            return None
        if not ok or bgr is None:
            return None
        received_ns = self._clock.now_ns()
        capture_ns = capture_time_ns(capture.get(cv2.CAP_PROP_POS_MSEC), received_ns)
        self._sequence += 1
        return _Shot(np.asarray(bgr, np.uint8), capture_ns, received_ns, self._sequence - 1)


def capture_time_ns(driver_ms: float, received_ns: int) -> int:
    """When a picture was taken: the driver's stamp where it can be one of our clock, else its arrival.

    V4L2 stamps buffers with the monotonic clock at the start of exposure or at the end of transfer; other
    systems give stream positions or nothing, which are never within a second before `received_ns`.
    """
    driver_ns = round(driver_ms * 1e6)
    return driver_ns if 0 <= received_ns - driver_ns < 1_000_000_000 and driver_ns > 0 else received_ns


def open_camera(config: CameraConfig) -> Capture:
    """The real camera, with the shortest queue that its driver allows."""
    backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
    capture = cv2.VideoCapture(config.index, backend)
    # Uncompressed USB video reaches 30 fps only at small sizes; MJPG does at all. Order matters to V4L2.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width_px)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height_px)
    capture.set(cv2.CAP_PROP_FPS, config.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture
