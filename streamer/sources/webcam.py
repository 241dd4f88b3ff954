"""`WebcamSource`: a camera of this computer, newest frame only, surviving its being unplugged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from streamer.clock import Clock, SystemClock
from streamer.frame import Frame, LatencyTrace
from streamer.slot import Slot
from streamer.sources.camera import Camera, CameraConfig, open_camera
from streamer.sources.camera_pace import CameraPace
from streamer.sources.camera_pixels import rgb_of_shot
from streamer.sources.source import Source, SourceInfo, SourceState
from streamer.sources.thinning import MOST_FPS, Thinning

U8 = NDArray[np.uint8]

_SILENCE_NS = 2_000_000_000  # no picture for this long counts as lost, although the driver says nothing
_JOIN_S = 3.0
_TORN_AT_FIRST = 10


@dataclass(frozen=True, slots=True)
class _Shot:
    raw: U8
    fourcc: str
    capture_ns: int
    received_ns: int
    sequence: int


class WebcamSource(Source):
    """A camera read in its own thread, so that `read` gives the newest picture and never an old one.

    Raises DriverError when the camera cannot be opened. Later, when it goes away, `state` is LOST and it
    is opened again every `retry_s` until it is back, with `pts_s` going on in real time (it may come back
    with another size: go by each frame's image). The same happens when it hangs for 2 s. Of a camera that takes more
    than 30 pictures a second every second or third one is given (`Thinning`). `dropped` counts those of them that
    nobody read in time; `Frame.sequence` counts pictures taken.
    """

    def __init__(
        self,
        index: int = 0,
        *,
        width_px: int = 640,
        height_px: int = 480,
        fps: float = 30.0,
        open_capture: Callable[[CameraConfig], Camera] | None = None,
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
        first = self._first(capture) if capture is not None else None
        if capture is None or first is None:
            if capture is not None:
                capture.release()
            raise DriverError(
                f"camera {index} gives no picture; `visavis devices` lists the cameras: choose another with "
                "webcam:N, or close the program that is using this one"
            )
        shot, (height, width) = first
        self._start_ns = shot.capture_ns
        self._last_ns = self._clock.now_ns()
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        self._info = SourceInfo(
            size_px=(width, height),
            fps=min(own_fps if 1 <= own_fps <= 240 else fps, MOST_FPS),
            is_live=True,
            duration_s=None,
            has_audio=False,
            name=f"camera {config.index}",
        )
        self._pace = CameraPace(self._info.fps).after(shot.capture_ns)
        self._thinning = Thinning().after(shot.capture_ns)
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
        """The newest unread picture; None after `timeout_s` without one, after `close`, and for one that is torn."""
        shot = self._slot.take(timeout_s)
        # Here and not in the camera's thread: pictures that are dropped are never decoded.
        image = rgb_of_shot(shot.raw, shot.fourcc) if shot is not None else None
        if shot is None or image is None:
            return None
        trace = LatencyTrace().mark("captured", shot.capture_ns).mark("received", shot.received_ns)
        trace = trace.mark("decoded", self._clock.now_ns())
        pts_s = (shot.capture_ns - self._start_ns) / 1e9
        return Frame(pts_s, shot.capture_ns, trace, shot.sequence, image=image)

    def close(self) -> None:
        """Let go of the camera; a driver that hangs is left to its daemon thread after 3 s."""
        self._stop.set()
        self._slot.close()
        self._thread.join(_JOIN_S)

    def _run(self, capture: Camera | None) -> None:
        try:
            while not self._stop.is_set():
                if capture is None:
                    capture = self._try_open()
                shot = self._shoot(capture) if capture is not None else None
                if shot is not None:
                    self._last_ns = shot.received_ns
                    self._lost = False
                    self._pace = self._pace.after(shot.capture_ns)
                    self._thinning = self._thinning.after(shot.capture_ns)
                    if self._thinning.keeps:
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

    def _try_open(self) -> Camera | None:
        try:
            capture = self._open_capture(self._config)
        except (cv2.error, OSError):
            return None
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _first(self, capture: Camera) -> tuple[_Shot, tuple[int, ...]] | None:
        """The first picture that can be read, and its (height, width): cameras begin with halves of a JPEG."""
        for _ in range(_TORN_AT_FIRST):
            shot = self._shoot(capture)
            if shot is None:
                return None
            image = rgb_of_shot(shot.raw, shot.fourcc)
            if image is not None:
                return shot, image.shape[:2]
        return None

    def _shoot(self, capture: Camera) -> _Shot | None:
        try:
            ok, raw = capture.read()
        except (cv2.error, OSError):
            return None
        if not ok or raw is None:
            return None
        received_ns = self._clock.now_ns()
        capture_ns = capture_time_ns(capture.get(cv2.CAP_PROP_POS_MSEC), received_ns)
        self._sequence += 1
        return _Shot(np.asarray(raw, np.uint8), capture.fourcc, capture_ns, received_ns, self._sequence - 1)


def capture_time_ns(driver_ms: float, received_ns: int) -> int:
    """When a picture was taken: the driver's stamp where it can be one of our clock, else its arrival.

    V4L2 stamps buffers with the monotonic clock at the start of exposure or at the end of transfer; other
    systems give stream positions or nothing, which are never within a second before `received_ns`.
    """
    driver_ns = round(driver_ms * 1e6)
    return driver_ns if 0 <= received_ns - driver_ns < 1_000_000_000 and driver_ns > 0 else received_ns
