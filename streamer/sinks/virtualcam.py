"""`VirtualCameraSink`: frames as a camera that call programs can choose, through pyvirtualcam."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import SinkError
from streamer.frame import Frame
from streamer.sinks.sink import Sink, SinkInfo, fit_picture

V4L2_FOLDER = Path("/sys/class/video4linux")

# Per sys.platform: what makes a virtual camera appear.
_DRIVER_FIX = {
    "linux": (
        "run `sudo apt install v4l2loopback-dkms && "
        "sudo modprobe v4l2loopback exclusive_caps=1 card_label=visavis`"
    ),
    "win32": (
        "run `winget install OBSProject.OBSStudio`, start OBS once, press Start Virtual Camera, then Stop"
    ),
    "darwin": (
        "run `brew install --cask obs`, start OBS once, press Start Virtual Camera and allow it in System "
        "Settings, then Stop"
    ),
}
SYSTEMS = tuple(_DRIVER_FIX)


class VirtualCameraSink(Sink):
    """A virtual camera: v4l2loopback on Linux, OBS's camera on Windows and macOS.

    `name` is its label (`visavis`), number (`10`) or device (`/dev/video10`); None takes the first. The
    camera has the size of `SinkInfo`; sizes are made even. Nothing is paced: write at `SinkInfo.fps`.
    Raises SinkError with the command to type when the package or the driver is missing.
    """

    def __init__(self, name: str | None = None, *, backend: str | None = None) -> None:
        self._name = name
        self._backend = backend
        self._camera: Any = None  # pyvirtualcam ships no stubs and may be absent

    @property
    def device(self) -> str | None:
        """The camera that others see, once open."""
        return None if self._camera is None else str(self._camera.device)

    def open(self, info: SinkInfo) -> None:
        """Open the camera; raises SinkError."""
        pyvirtualcam = _load()
        device = self._name if self._name is None or self._backend else find_device(self._name)
        try:
            self._camera = pyvirtualcam.Camera(
                width=info.width_px + info.width_px % 2,
                height=info.height_px + info.height_px % 2,
                fps=info.fps,
                fmt=pyvirtualcam.PixelFormat.RGB,
                device=device,
                backend=self._backend,
            )
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            # pyvirtualcam gives the reason of each of its backends on a line of its own.
            reason = "; ".join(str(error).splitlines()) or type(error).__name__
            which = f" {self._name}" if self._name else ""
            raise SinkError(f"the virtual camera{which} does not open ({reason}); {driver_fix()}") from error

    def write(self, frame: Frame) -> None:
        """Send one frame."""
        if self._camera is None:
            raise SinkError("the virtual camera is not open; call open() first")
        image = fit_picture(frame.image, self._camera.width, self._camera.height)
        try:
            self._camera.send(np.ascontiguousarray(image))
        except (RuntimeError, OSError) as error:
            raise SinkError(f"the virtual camera took no frame ({error}); start it again") from error

    def close(self) -> None:
        """Take the camera's picture away."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()


def driver_fix(platform: str = sys.platform) -> str:
    """What to type so that a virtual camera exists on `platform` (as in `sys.platform`)."""
    return _DRIVER_FIX.get(platform, "virtual cameras work on Linux, Windows and macOS only; use --to window")


def camera_name(platform: str = sys.platform) -> str:
    """What call programs call the camera that `driver_fix` makes."""
    return "visavis" if platform.startswith("linux") else "OBS Virtual Camera"


def find_device(name: str, folder: Path = V4L2_FOLDER) -> str:
    """The device of the camera labelled or numbered `name`; `name` itself where there is no such list."""
    if name.isdigit() and folder.is_dir():
        return f"/dev/video{name}"
    for entry in sorted(folder.glob("video*")) if folder.is_dir() else []:
        try:
            label = (entry / "name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if label == name:
            return f"/dev/{entry.name}"
    return name


def _load() -> Any:
    try:
        return importlib.import_module("pyvirtualcam")
    except ImportError as error:
        raise SinkError(
            "virtual cameras need one more package; run `pip install 'visavis[virtualcam]'`"
        ) from error
