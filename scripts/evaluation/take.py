"""A photo and the frames that drive it, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment
from engines.geometry import F64, rotation_matrix, rotation_vector
from engines.motion import Motion
from engines.raster.gbuffer import Viewport

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
# self: a clip's first frame driven by the rest; back: another frame driven by the same ones; cross: by somebody else
Protocol = Literal["self", "back", "cross"]
_AROUND_S = 1.0  # more than any generator's window of motions reaches
BINS_DEG = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0))


@dataclass(frozen=True, slots=True)
class Shot:
    """One driving frame: its `number` in the clip, the motion to draw, and the driver's picture in the crop.

    `turn_deg` is how far the drawn head is turned from the photo's.
    """

    number: int
    motion: Motion
    turn_deg: float
    driver: U8


@dataclass(frozen=True, slots=True)
class Take:
    """A photo and the shots of one clip that drives it.

    `subject` is the driver, who is the unit of the bootstrap. `neutral_hu` (478, 3) are the landmarks of the
    photo's person without expression. `rest` is the driver's own in the cross protocol, else None.
    `sources`, cross only: pictures of the photo's person, cut as the drawn ones are; the photo, and frames of its
    clip where it is from one. `photo_number` is the photo's frame in the clip, where it is from the driver's.
    `motions` are those of all of the clip, of which the shots are a few: what generators see around each.
    """

    protocol: Protocol
    name: str
    subject: str
    enrollment: Enrollment
    viewport: Viewport
    photo: U8
    neutral_hu: F64
    apart: tuple[Shot, ...]
    runs: tuple[tuple[Shot, ...], ...]
    rest: DriverNeutral | None = None
    sources: tuple[U8, ...] = ()
    photo_number: int = 0
    motions: tuple[Motion, ...] = ()

    @property
    def has_truth(self) -> bool:
        """Whether the driver's pictures are what should be drawn."""
        return self.protocol != "cross"

    @property
    def shots(self) -> list[Shot]:
        """All shots, each once, in the clip's order."""
        own = {s.number: s for s in (*self.apart, *(shot for run in self.runs for shot in run))}
        return [own[number] for number in sorted(own)]

    def around(self, shot: Shot) -> tuple[list[Motion], list[Motion]]:
        """The motions of the second before a shot, and of the second after it, in order."""
        now_s = shot.motion.time_s
        near = [m for m in self.motions if abs(m.time_s - now_s) <= _AROUND_S]
        return [m for m in near if m.time_s < now_s], [m for m in near if m.time_s > now_s]


def turn_deg(a: F32 | F64, b: F32 | F64) -> float:
    """Angle in degrees between two rotation vectors (3,)."""
    return float(np.degrees(np.linalg.norm(rotation_vector(rotation_matrix(a) @ rotation_matrix(b).T))))


def bin_of(angle_deg: float) -> str:
    """The rotation bin: "0–10°", "10–20°", "20–30°" or "over 30°"."""
    for low, high in BINS_DEG:
        if angle_deg < high:
            return f"{low:g}–{high:g}°"
    return f"over {BINS_DEG[-1][1]:g}°"
