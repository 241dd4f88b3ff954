"""`Motion`: the whole wire between driving and generating, recordable as JSON lines.

Webcam, microphone, file, preset and slider all produce `Motion`; everything downstream is shared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.files import whole_file
from engines.geometry import rotation_matrix, rotation_vector

# The 52 ARKit blendshapes, in MediaPipe's order (its `_neutral` replaced by the missing `tongueOut`, last).
ARKIT_NAMES: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
ARKIT_INDEX: dict[str, int] = {name: i for i, name in enumerate(ARKIT_NAMES)}
EXPRESSION_COUNT = len(ARKIT_NAMES)

MOTION_FORMAT = "visavis-motion"
MOTION_VERSION = 1

F32 = NDArray[np.float32]


def _zeros(*shape: int) -> F32:
    return np.zeros(shape, np.float32)


@dataclass(frozen=True, slots=True)
class Motion:
    """One moment of a face.

    - `time_s`: media time in seconds.
    - `expression`: (52,) float32, ARKit blendshape coefficients in the order of `ARKIT_NAMES`.
    - `rotation_rad`: (3,) float32, rotation vector of the head in camera axes (x right, y down, z away).
    - `translation_hu`: (3,) float32, head position in head units in the standard `geometry.Camera`;
      z > 0 is the distance.
    - `gaze_rad`: (2, 2) float32, (yaw, pitch) in radians of the subject's right and left eye relative to
      the head; yaw > 0 looks to the picture's right, pitch > 0 looks down.
    - `closure`: (3,) float32, how closed lips, right eye and left eye are: 0 open as β says … 1 meeting,
      whatever the rest of the face does (what a viewer notices first, so it is measured and kept on its own).
    - `confidence`: 0 (face lost) … 1.
    """

    time_s: float = 0.0
    expression: F32 = field(default_factory=lambda: _zeros(EXPRESSION_COUNT))
    rotation_rad: F32 = field(default_factory=lambda: _zeros(3))
    translation_hu: F32 = field(default_factory=lambda: np.array([0, 0, 6], np.float32))
    gaze_rad: F32 = field(default_factory=lambda: _zeros(2, 2))
    confidence: float = 1.0
    closure: F32 = field(default_factory=lambda: _zeros(3))

    @property
    def jaw(self) -> float:
        """Jaw opening, 0 … 1."""
        return float(self.expression[ARKIT_INDEX["jawOpen"]])

    def is_finite(self) -> bool:
        """Whether every number is finite."""
        return bool(
            np.isfinite(self.expression).all()
            and np.isfinite(self.rotation_rad).all()
            and np.isfinite(self.translation_hu).all()
            and np.isfinite(self.gaze_rad).all()
            and np.isfinite(self.closure).all()
            and np.isfinite(self.time_s)
            and np.isfinite(self.confidence)
        )

    def to_json(self) -> str:
        """One JSON line (without the newline); five decimals, about a hundredth of a pixel."""

        def numbers(a: F32) -> list[float]:
            return [round(float(v), 5) for v in a.ravel()]

        return json.dumps(
            {
                "t": round(self.time_s, 5),
                "expression": numbers(self.expression),
                "rotation_rad": numbers(self.rotation_rad),
                "translation_hu": numbers(self.translation_hu),
                "gaze_rad": numbers(self.gaze_rad),
                "closure": numbers(self.closure),
                "confidence": round(self.confidence, 3),
            },
            separators=(",", ":"),
        )

    @staticmethod
    def from_json(line: str) -> Motion:
        """Inverse of `to_json`; raises ValueError for anything else."""
        try:
            return Motion._from_dict(json.loads(line))
        except KeyError as error:
            raise ValueError(f"{error} is missing") from error
        except (TypeError, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error

    @staticmethod
    def _from_dict(d: dict[str, Any]) -> Motion:

        def array(key: str, *shape: int) -> F32:
            return np.asarray(d[key], np.float32).reshape(shape)

        motion = Motion(
            time_s=float(d["t"]),
            expression=array("expression", EXPRESSION_COUNT),
            rotation_rad=array("rotation_rad", 3),
            translation_hu=array("translation_hu", 3),
            gaze_rad=array("gaze_rad", 2, 2),
            confidence=float(d.get("confidence", 1.0)),
            closure=array("closure", 3) if "closure" in d else _zeros(3),
        )
        if not motion.is_finite():
            raise ValueError("a number is not finite")
        return motion


def blend(a: Motion, b: Motion, weight: float) -> Motion:
    """Motion on the way from `a` (weight 0) to `b` (weight 1); rotation along the shortest arc."""
    w = float(np.clip(weight, 0, 1))
    ra = rotation_matrix(a.rotation_rad)
    step = rotation_vector(ra.T @ rotation_matrix(b.rotation_rad))
    rotation = rotation_vector(ra @ rotation_matrix(step * w))

    def mix(x: F32, y: F32) -> F32:
        return ((1 - w) * x + w * y).astype(np.float32)

    return Motion(
        time_s=(1 - w) * a.time_s + w * b.time_s,
        expression=mix(a.expression, b.expression),
        rotation_rad=rotation.astype(np.float32),
        translation_hu=mix(a.translation_hu, b.translation_hu),
        gaze_rad=mix(a.gaze_rad, b.gaze_rad),
        confidence=(1 - w) * a.confidence + w * b.confidence,
        closure=mix(a.closure, b.closure),
    )


def motion_header(fps: float, neutral: Motion | None = None) -> str:
    """The first line of a motion file, without the newline."""
    header: dict[str, object] = {"format": MOTION_FORMAT, "version": MOTION_VERSION, "fps": round(fps, 4)}
    if neutral is not None:
        header["neutral"] = json.loads(neutral.to_json())
    return json.dumps(header, separators=(",", ":"))


def write_motion(path: Path, motions: Iterable[Motion], fps: float, neutral: Motion | None = None) -> None:
    """Write a motion file, whole or not at all: a header line, then one line per frame. Raises OSError.

    `neutral` is the driver's rest motion.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8") as out:
        out.write(motion_header(fps, neutral) + "\n")
        for m in motions:
            out.write(m.to_json() + "\n")


@dataclass(frozen=True, slots=True)
class MotionTrack:
    """A recorded motion: frames in time order at `fps`, and the driver's neutral if it was known."""

    fps: float
    motions: Sequence[Motion]
    neutral: Motion | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return len(self.motions) / self.fps

    def at(self, time_s: float) -> Motion:
        """Motion at `time_s` by interpolation, held at both ends."""
        x = np.clip(time_s * self.fps, 0, len(self.motions) - 1)
        i = int(x)
        j = min(i + 1, len(self.motions) - 1)
        return blend(self.motions[i], self.motions[j], float(x - i))

    def __iter__(self) -> Iterator[Motion]:
        return iter(self.motions)


def read_motion(path: Path) -> MotionTrack:
    """Read a motion file; raises DriverError naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DriverError(f"cannot read the motion file {path}: {error}") from error
    try:
        header = json.loads(lines[0])
        if header["format"] != MOTION_FORMAT:
            raise ValueError("not a motion file")
        fps = float(header["fps"])
        version = int(header["version"])
        neutral = Motion.from_json(json.dumps(header["neutral"])) if "neutral" in header else None
        if not 1 <= fps <= 1000:
            raise ValueError(f"fps {fps} is outside 1 … 1000")
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DriverError(
            f"{path} is not a visavis motion file ({error}); make one with "
            "`visavis animate AVATAR --driver VIDEO --motion-out FILE.jsonl -o OUT.mp4`"
        ) from error
    if version != MOTION_VERSION:
        raise DriverError(f"{path} is motion version {version}; this visavis reads {MOTION_VERSION}")
    motions: list[Motion] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            motions.append(Motion.from_json(line))
        except (KeyError, ValueError, TypeError) as error:
            raise DriverError(
                f"{path} line {number} is not a motion ({error}); cut the file there"
            ) from error
    if not motions:
        raise DriverError(f"{path} holds no motion; record one with `visavis animate … --motion-out`")
    return MotionTrack(fps, motions, neutral)
