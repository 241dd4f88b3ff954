"""`best_mode`: which of a camera's formats, sizes and rates to ask it for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# What `camera_pixels.rgb_of_shot` reads, the cheapest to bring to RGB first. MJPG costs the camera and us a codec, and
# is what reaches the full rate at larger sizes over USB 2; GREY is infrared.
FORMATS = ("NV12", "YU12", "YUYV", "UYVY", "MJPG", "GREY")
MOST_FPS = (
    60.0  # beyond, the exposure is so short that a room's lamps flicker and the picture is mostly noise
)

_ENOUGH = 0.7  # of the area wanted: 640 x 360 is as good as 640 x 480
_TRACKABLE_PX = 240  # a face that fills a third of a picture lower than this is too coarse to follow its lips
_FLUENT = 0.75  # of the rate wanted: the eye forgives 24 of 30, not 15


@dataclass(frozen=True, slots=True)
class CameraMode:
    """A format (V4L2's FourCC), a size and the highest rate that the camera gives in it."""

    fourcc: str
    width_px: int
    height_px: int
    fps: float

    def __str__(self) -> str:
        return f"{self.fourcc} {self.width_px}x{self.height_px} at {self.fps:g}"


def best_mode(modes: Iterable[CameraMode], width_px: int, height_px: int, fps: float) -> CameraMode | None:
    """The mode that serves a wish for (`width_px`, `height_px`) at `fps` or more best; None without a usable one.

    In this order: colour rather than infrared; large enough to follow a face in; fluent; the size wanted, or the next
    larger one, rather than a smaller one; the nearest to it; then its best rate up to `MOST_FPS`, for a camera that
    takes pictures more often shows each sooner; then the format that is cheapest to read. Sizes are compared by their
    area and shorter side: a portrait camera's 480 x 640 is as good as 640 x 480.
    """
    usable = [m for m in modes if m.fourcc in FORMATS and m.fps > 0 and min(m.width_px, m.height_px) > 0]
    wanted = width_px * height_px

    def worth(mode: CameraMode) -> tuple[float, ...]:
        area = mode.width_px * mode.height_px / wanted
        enough = area >= _ENOUGH
        return (
            mode.fourcc != "GREY",
            min(mode.width_px, mode.height_px) >= _TRACKABLE_PX,
            mode.fps >= _FLUENT * fps,
            enough,
            -area if enough else area,
            min(mode.fps, MOST_FPS),
            -max(0.0, mode.fps - MOST_FPS),
            -FORMATS.index(mode.fourcc),
        )

    return max(usable, key=worth, default=None)
