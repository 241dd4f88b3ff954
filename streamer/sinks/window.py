"""`WindowSink`: frames in a window on this computer's screen."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engines.errors import SinkError
from streamer.frame import Frame
from streamer.sinks.sink import U8, Sink, SinkClosed, SinkInfo, fit_picture

_TITLE = "visavis (m mirrors, q or Esc closes)"
_ESCAPE, _Q, _M = 27, ord("q"), ord("m")


class Screen(Protocol):
    """The few calls of a window system that are used; tests put their own in place."""

    def open(self, title: str) -> None: ...

    def show(self, title: str, bgr: U8) -> None: ...

    def key(self) -> int: ...

    def is_open(self, title: str) -> bool: ...

    def close(self, title: str) -> None: ...


class WindowSink(Sink):
    """Shows each frame at once. `write` raises SinkClosed on q, Esc or the window's close button.

    m shows it as a mirror would, for one's own eyes; at first it is as others see it, who may be shown the window.
    `keys` is called with any other key pressed. Raises SinkError where there is no screen. The window
    belongs to the thread that opens it, which must also write and close; macOS wants the main thread.
    """

    def __init__(self, screen: Screen | None = None, keys: Callable[[str], None] | None = None) -> None:
        self._screen = screen or _Cv2Screen()
        self._keys = keys
        self._info: SinkInfo | None = None
        self._mirrored = False

    def open(self, info: SinkInfo) -> None:
        """Open the window."""
        self._screen.open(_TITLE)
        self._info = info

    def write(self, frame: Frame) -> None:
        """Show one frame."""
        if self._info is None:
            raise SinkError("the window is not open; call open() first")
        if not self._screen.is_open(_TITLE):
            self._stop()
        image = fit_picture(frame.image, self._info.width_px, self._info.height_px)
        if self._mirrored:
            image = image[:, ::-1]
        self._screen.show(_TITLE, np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8))
        key = self._screen.key()
        if key in (_ESCAPE, _Q):
            self._stop()
        elif key == _M:
            self._mirrored = not self._mirrored
        elif key > 0 and self._keys is not None:
            self._keys(chr(key))

    def close(self) -> None:
        """Close the window."""
        if self._info is not None:
            self._info = None
            self._screen.close(_TITLE)

    def _stop(self) -> None:
        self.close()
        raise SinkClosed("the window was closed")


class _Cv2Screen:
    def open(self, title: str) -> None:
        if sys.platform.startswith("linux"):
            if windows_hang(list(sys.modules)):
                raise SinkError(
                    "windows hang when PyAV is loaded before OpenCV; import cv2 before av or aiortc"
                )
            problem = display_problem(os.environ)
        else:
            problem = None
        if problem is not None:
            raise SinkError(
                f"no window can be opened: {problem}; use --to FILE.mp4, or `visavis serve` and a browser"
            )
        try:
            cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(
                "this OpenCV was built without windows; run `pip uninstall -y opencv-python-headless && "
                "pip install --force-reinstall opencv-contrib-python`"
            ) from error

    def show(self, title: str, bgr: U8) -> None:
        cv2.imshow(title, bgr)

    def key(self) -> int:
        code = cv2.pollKey()
        return code if code < 0 else code & 0xFF

    def is_open(self, title: str) -> bool:
        try:
            return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False

    def close(self, title: str) -> None:
        try:
            cv2.destroyWindow(title)
            cv2.waitKey(1)
        except cv2.error:
            return  # the user was faster


def windows_hang(modules: Sequence[str]) -> bool:
    """Whether `modules`, in the order they were loaded, have PyAV before OpenCV (see streamer/pyav.py)."""
    return "av" in modules and "cv2" in modules and modules.index("av") < modules.index("cv2")


def display_problem(environment: Mapping[str, str], sockets: Path = Path("/tmp/.X11-unix")) -> str | None:
    """Why no window can be opened on Linux, or None. Asked first, because Qt ends the process without one."""
    display = environment.get("DISPLAY", "")
    if not display:
        wayland = environment.get("WAYLAND_DISPLAY")
        return None if wayland else "there is no screen (DISPLAY is not set)"
    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if host not in ("", "unix") or not number.isdigit():
        return None  # another computer's screen: only trying tells
    # The abstract name first, as X clients do; containers often share only the file.
    path = sockets / f"X{number}"
    for address in (f"\0{path}", str(path)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(address)
            except OSError:
                continue
            return None
    return f"nothing answers at the screen DISPLAY={display}"
