"""`Sink`: where finished pictures go (a file, a window, a virtual camera)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import SinkError
from streamer.frame import Frame

U8 = NDArray[np.uint8]


class SinkClosed(SinkError):
    """The user closed the sink (q, Esc, the window's close button): a wish, not a failure."""


@dataclass(frozen=True, slots=True)
class SinkInfo:
    """What will be written: pictures of this size at about `fps`; `duration_s` where the end is known."""

    width_px: int
    height_px: int
    fps: float
    duration_s: float | None = None


class Sink(ABC):
    """A consumer of frames: `open` once, `write` each, then `close` to finish or `abort` to give up.

        with sink:                     # close() at the end, abort() when an exception leaves the block
            sink.open(SinkInfo(512, 512, 30))
            sink.write(frame)

    A picture of another size than opened is fitted with `fit_picture`. Sinks neither pace nor drop: the
    loop decides when to write (see `streamer.clock.Pacer`). One thread opens and writes; `close` and
    `abort` may come from another thread once that one has stopped.
    """

    @abstractmethod
    def open(self, info: SinkInfo) -> None:
        """Get ready; raises SinkError naming the fix."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Deliver one frame; raises SinkError when it cannot and SinkClosed when the user has had enough."""

    @abstractmethod
    def close(self) -> None:
        """Finish and keep what was written; raises SinkError when it cannot be kept. Idempotent."""

    def abort(self) -> None:
        """Give up without raising; a sink that keeps something leaves nothing behind. Idempotent."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A closed window ends the work as wished, so what was written until then is kept.
        if error is None or isinstance(error, SinkClosed):
            self.close()
        else:
            self.abort()


def fit_picture(image: U8, width_px: int, height_px: int) -> U8:
    """`image` (H, W, C) scaled to fit inside `width_px` × `height_px`, centred on black; (h, w, C) uint8.

    The same array comes back when it already has that size.
    """
    height, width = image.shape[:2]
    if (width, height) == (width_px, height_px):
        return image
    scale = min(width_px / width, height_px / height)
    size = (min(width_px, max(1, round(width * scale))), min(height_px, max(1, round(height * scale))))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = cv2.resize(image, size, interpolation=method)
    left, top = (width_px - size[0]) // 2, (height_px - size[1]) // 2
    canvas = np.zeros((height_px, width_px, image.shape[2]), np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = fitted
    return canvas
