"""Frames of a clip: decoded by PyAV where it is installed, else by OpenCV."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError, brief

U8 = NDArray[np.uint8]

HAS_AV = find_spec("av") is not None
_SHORT_BY = 0.02  # a container may count a few frames more than there are


class ClipError(VisavisError):
    """A clip cannot be opened or ends early; the message says after which frame."""


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a clip says of itself: `frames` is 0 where it does not say."""

    width_px: int
    height_px: int
    fps: float
    frames: int


def clip_info(path: Path) -> ClipInfo:
    """Raises ClipError for a file that is no clip."""
    return _info_by_av(path) if HAS_AV else _info_by_cv2(path)


def decode(path: Path, wanted: Collection[int] | None = None) -> Iterator[tuple[int, U8]]:
    """(number, RGB picture (H, W, 3)) of all frames, or of those `wanted`.

    Raises ClipError where the clip cannot be opened, or where it ends early, after what could be decoded.
    """
    last = max(wanted, default=-1) if wanted is not None else None
    if last is not None and last < 0:
        return
    count = 0
    for number, picture in (_by_av if HAS_AV else _by_cv2)(path, wanted):
        count = number + 1
        if picture is not None:
            yield number, picture
        if number == last:
            return
    told = clip_info(path).frames
    if last is not None or count < told - max(1, _SHORT_BY * told):
        raise _cut(path, count)


def _cut(path: Path, count: int) -> ClipError:
    return ClipError(f"{path.name} ends early, after {count} frames; copy or download it again")


def _no_clip(path: Path, why: str) -> ClipError:
    return ClipError(f"{path.name} is no clip or is cut off ({why}); copy or download it again")


def _info_by_av(path: Path) -> ClipInfo:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _no_clip(path, "it has no picture")
            stream = container.streams.video[0]
            fps = float(stream.average_rate or stream.base_rate or 25)
            return ClipInfo(int(stream.width), int(stream.height), fps, int(stream.frames))
    except (FFmpegError, OSError) as error:
        raise _no_clip(path, brief(error)) from error


def _by_av(path: Path, wanted: Collection[int] | None) -> Iterator[tuple[int, U8 | None]]:
    import av
    from av.error import FFmpegError

    number = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _no_clip(path, "it has no picture")
            container.streams.video[0].thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                shown = wanted is None or number in wanted
                yield number, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) if shown else None
    except (FFmpegError, OSError) as error:
        raise (_cut(path, number + 1) if number >= 0 else _no_clip(path, brief(error))) from error


def _opened(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise _no_clip(path, "OpenCV cannot open it")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # as PyAV: a clip is taken as it is stored
    return capture


def _info_by_cv2(path: Path) -> ClipInfo:
    capture = _opened(path)
    width, height, fps, frames = (
        capture.get(which)
        for which in (
            cv2.CAP_PROP_FRAME_WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT,
            cv2.CAP_PROP_FPS,
            cv2.CAP_PROP_FRAME_COUNT,
        )
    )
    capture.release()
    return ClipInfo(int(width), int(height), fps if fps > 0 else 25.0, max(0, int(frames)))


def _by_cv2(path: Path, wanted: Collection[int] | None) -> Iterator[tuple[int, U8 | None]]:
    capture = _opened(path)
    try:
        number = 0
        while capture.grab():
            picture = None
            if wanted is None or number in wanted:
                ok, seen = capture.retrieve()
                if not ok:
                    return
                picture = np.ascontiguousarray(np.asarray(seen, np.uint8)[..., ::-1])
            yield number, picture
            number += 1
    finally:
        capture.release()
