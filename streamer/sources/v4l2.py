"""`camera_modes`: what a camera of Linux says that it can give, asked by Video4Linux2's own calls.

The libraries that ask (linuxpy, v4l2py) are under the GPL; OpenCV and FFmpeg take wishes and tell no list.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from streamer.sources.camera_modes import CameraMode

# struct v4l2_fmtdesc, v4l2_frmsizeenum, v4l2_frmivalenum of linux/videodev2.h, the same on all of Linux' architectures
_FORMAT = struct.Struct("=III32sI16x")
_SIZE = struct.Struct("=III24s8x")
_INTERVAL = struct.Struct("=IIIII24s8x")
_ENUM_FORMAT, _ENUM_SIZE, _ENUM_INTERVAL = 0xC0405602, 0xC02C564A, 0xC034564B  # _IOWR('V', …)
_CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
_DISCRETE = 1
_MOST = 256  # of each kind: a driver that never ends its list is not listened to for ever

Ask = Callable[[int, bytes], bytes]  # ioctl: request and structure → the structure that the driver filled in


def camera_modes(number: int, width_px: int, height_px: int) -> tuple[CameraMode, ...]:
    """What /dev/video`number` offers, each size at its best rate; () where it cannot be asked.

    Of a camera that scales to any size within bounds, the one nearest to (`width_px`, `height_px`).
    """
    import fcntl  # not on Windows

    try:
        handle = os.open(Path(f"/dev/video{number}"), os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        return tuple(modes_told(lambda code, told: fcntl.ioctl(handle, code, told), width_px, height_px))
    except OSError:
        return ()
    finally:
        os.close(handle)


def modes_told(ask: Ask, width_px: int, height_px: int) -> Iterator[CameraMode]:
    """The same of a driver that is asked by `ask`, which raises OSError at the end of each list."""
    for index in range(_MOST):
        try:
            told = _FORMAT.unpack(ask(_ENUM_FORMAT, _FORMAT.pack(index, _CAPTURE, 0, b"", 0)))
        except OSError:
            return
        code: int = told[4]
        fourcc = code.to_bytes(4, "little").decode("latin-1")
        for size in _sizes(ask, code, (width_px, height_px)):
            yield CameraMode(fourcc, *size, _best_fps(ask, code, *size))


def _sizes(ask: Ask, code: int, wanted_px: tuple[int, int]) -> Iterator[tuple[int, int]]:
    for index in range(_MOST):
        try:
            told = _SIZE.unpack(ask(_ENUM_SIZE, _SIZE.pack(index, code, 0, b"")))
        except OSError:
            return
        if told[2] == _DISCRETE:
            yield struct.unpack("=II", told[3][:8])
            continue
        low_x, high_x, step_x, low_y, high_y, step_y = struct.unpack("=6I", told[3])
        yield _within(wanted_px[0], low_x, high_x, step_x), _within(wanted_px[1], low_y, high_y, step_y)
        return  # there is only the one


def _within(wanted: int, low: int, high: int, step: int) -> int:
    held = min(max(wanted, low), high)
    return low + (held - low) // max(step, 1) * max(step, 1)


def _best_fps(ask: Ask, code: int, width_px: int, height_px: int) -> float:
    """0 where the driver does not say."""
    best = 0.0
    for index in range(_MOST):
        try:
            told = _INTERVAL.unpack(
                ask(_ENUM_INTERVAL, _INTERVAL.pack(index, code, width_px, height_px, 0, b""))
            )
        except OSError:
            break
        numerator, denominator = struct.unpack("=II", told[5][:8])  # of a range: the shortest comes first
        if numerator:
            best = max(best, denominator / numerator)
        if told[4] != _DISCRETE:
            break
    return best
