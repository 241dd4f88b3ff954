"""`find_face`: the face of a photo, however the photo lies and however small the face is in it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import PhotoError
from engines.head.fit import fit_source
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import load_head_model

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# The head crop: its side in face heights (landmarks 10 … 152), and where the face's middle sits in it.
CROP_SIDE_PER_FACE = 2.15
CROP_CENTRE_Y = 0.535

_DETECT_SIDE_PX, _PART_SIDE_PX = 1024, 512
_MIN_PART_PX, _MIN_PART_RANGE = 130, 12  # in less there is no face that is large enough, or none at all
_SURE_FROM = 0.3  # in smaller parts anything may look like a face: it must be found a second time
# MediaPipe's detector is made for faces that fill a good part of the picture: ever smaller, overlapping parts
_SHARES = (0.6, 0.36, 0.17)
# (share, quarter turns), a row after the other, until one has a face: most small ones are upright, and quickly found
_SEARCH = (
    [(1.0, turns) for turns in range(4)],
    [*((share, 0) for share in _SHARES), *((share, turns) for share in _SHARES[:-1] for turns in (1, 2, 3))],
)
_MAX_ROLL_DEG = 50.0  # beyond it a quarter turn leaves less

# How far landmarks may be from what the head model makes of them, mean in head units. Of 120 portraits the upright
# ones miss 0.0015 … 0.0060; into faces on their heads MediaPipe lays upright ones that miss 0.0049 and more, and
# nearly twice as much as the same face upright.
_SURE_HU = 0.0045
_PART_HU, _SMALL_PART_HU = 0.012, 0.0075
_OTHER_FACE_HU = 0.009
_WORSE = 0.75  # a turned photo must fit by so much better
_ALIKE = 0.8  # faces of about one size
# Of 80 portraits the least sharp has 0.40, with a blur of 7 of 512 px the sharpest 0.11; the darkest 128.
_BLUR_SIDE_PX, _BLURRED, _DARK = 512, 0.2, 25.0
_COUNTS_FROM = 0.25  # of the largest face's height: smaller ones nobody takes for the one meant


@dataclass(frozen=True, slots=True)
class FoundFace:
    """The largest face of a photo.

    - `image` (H, W, 3) the photo, turned by `quarter_turns` counter-clockwise so that the face is upright.
    - `face` in its pixels, measured again on its own crop for precision.
    - `others` in its pixels, the largest first.
    - `misfit_hu` how far, on average, the landmarks are from what the head model makes of them.
    """

    image: U8
    face: FaceLandmarks
    others: tuple[FaceLandmarks, ...]
    quarter_turns: int
    misfit_hu: float

    @property
    def notices(self) -> tuple[str, ...]:
        """What the owner of the photo may want to know, one phrase each."""
        notices: list[str] = []
        if self.quarter_turns:
            lay = "stood on its head" if self.quarter_turns == 2 else "lay on its side"
            notices.append(f"the photo {lay}: turned upright")
        if self.others:
            count = 1 + len(self.others)
            alike = [other for other in self.others if _height(other) > _ALIKE * _height(self.face)]
            if alike:
                which = _where(self.face, alike)
                notices.append(
                    f"{count} faces found, {1 + len(alike)} of about one size: took the {which} one; crop the photo to "
                    "take another"
                )
            else:
                notices.append(f"{count} faces found: took the largest")
        return tuple(notices)


def find_face(image: U8) -> FoundFace:
    """The largest face of `image` (H, W, 3), which may lie on its side or stand on its head.

    Raises PhotoError where nobody's face can be seen.
    """
    detector = LandmarkDetector(video=False, max_faces=5)
    try:
        for places in _SEARCH:
            best: tuple[FoundFace, float] | None = None
            for share, turns in places:
                found = _found(detector, image, share, turns)
                if found is None:
                    continue
                if found.misfit_hu <= _SURE_HU:
                    return _with_others(detector, found, share)
                if best is None or found.misfit_hu < _WORSE * best[0].misfit_hu:
                    best = found, share
            if best is not None:
                return _with_others(detector, *best)
    finally:
        detector.close()
    raise PhotoError(
        f"no face found{_why_none(image)}; use a photo with one face that looks at the camera, well lit, with nothing "
        "before it"
    )


def _found(detector: LandmarkDetector, image: U8, share: float, turns: int) -> FoundFace | None:
    """The largest face in `image` after `turns` quarter turns, searched in parts of its sides' `share`."""
    turned = np.ascontiguousarray(np.rot90(image, turns))
    faces = _search(detector, turned, share)
    face = _measured_again(detector, turned, faces[0], surely=share < _SURE_FROM) if faces else None
    if face is None or abs(_roll_deg(face)) > _MAX_ROLL_DEG:
        return None
    misfit_hu = _misfit_hu(face)
    whole = (
        share == 1 and not turns
    )  # in profiles MediaPipe sees faces that lie on their side, and misses by 0.02
    most_hu = np.inf if whole else _PART_HU if share >= _SURE_FROM else _SMALL_PART_HU
    return FoundFace(turned, face, tuple(faces[1:]), turns, misfit_hu) if misfit_hu <= most_hu else None


def _with_others(detector: LandmarkDetector, found: FoundFace, share: float) -> FoundFace:
    """With every other face that there is, and the largest of all as the one."""
    image = found.image
    seen = [*found.others, *(_search(detector, image, 0.6) if share == 1 else ())]
    kept = [found.face]
    for other in sorted(seen, key=_height, reverse=True):
        if _height(other) < _COUNTS_FROM * _height(found.face) or not all(
            _apart(other, face) for face in kept
        ):
            continue
        again = _measured_again(detector, image, other, surely=True)
        if again is None or not all(_apart(again, face) for face in kept):
            continue
        if _misfit_hu(again) <= _OTHER_FACE_HU:
            kept.append(again)
    kept.sort(key=_height, reverse=True)
    return FoundFace(image, kept[0], tuple(kept[1:]), found.quarter_turns, found.misfit_hu)


def _measured_again(
    detector: LandmarkDetector, image: U8, face: FaceLandmarks, *, surely: bool
) -> FaceLandmarks | None:
    """`face` measured on its own head crop; where none is found there, `face` itself, or None if `surely`."""
    height, width = image.shape[:2]
    left, top, side = head_crop(face.points_px, width, height)
    x0, y0 = max(0, int(left)), max(0, int(top))
    x1, y1 = min(width, int(left + side)), min(height, int(top + side))
    found = detector.detect(image[y0:y1, x0:x1]) if x1 > x0 and y1 > y0 else []
    again = [moved for moved in (_moved(f, x0, y0, 1.0) for f in found) if not _apart(moved, face)]
    return again[0] if again else None if surely else face


def _search(detector: LandmarkDetector, image: U8, share: float) -> list[FaceLandmarks]:
    if share < 1 and share * min(image.shape[:2]) < _MIN_PART_PX:
        return []
    scale = min(1.0, (_DETECT_SIDE_PX if share == 1 else _PART_SIDE_PX / share) / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    height, width = small.shape[:2]
    side_y, side_x = round(height * share), round(width * share)
    steps = 1 if share == 1.0 else 1 + int(np.ceil((1 - share) / (share / 2)))
    found: list[FaceLandmarks] = []
    for y in np.linspace(0, height - side_y, steps).astype(int):
        for x in np.linspace(0, width - side_x, steps).astype(int):
            tile = np.asarray(small[y : y + side_y, x : x + side_x], np.uint8)
            if np.ptp(tile[::8, ::8]) < _MIN_PART_RANGE:
                continue
            for face in detector.detect(tile):
                moved = _moved(face, int(x), int(y), 1 / scale)
                if all(_apart(moved, other) for other in found):
                    found.append(moved)
    return sorted(found, key=_height, reverse=True)


def _why_none(image: U8) -> str:
    """What may be the reason why no face is found in `image`, to be said before the advice."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _BLUR_SIDE_PX / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    if float(np.percentile(small, 95)) < _DARK:
        return ", as the photo is very dark"
    spread = float(small.std())
    if spread < 1:  # nothing is in it
        return ""
    changes = float(np.percentile(np.abs(cv2.Laplacian(small, cv2.CV_32F)), 99))
    return ", as the photo is blurred" if changes < _BLURRED * spread else ""


def _misfit_hu(face: FaceLandmarks) -> float:
    left = fit_source(load_head_model(), face.points_px, face.scores).left_hu
    return float(np.linalg.norm(left, axis=-1).mean())


def _roll_deg(face: FaceLandmarks) -> float:
    down = face.points_px[152, :2] - face.points_px[10, :2]
    return float(np.degrees(np.arctan2(-down[0], down[1])))


def _height(face: FaceLandmarks) -> float:
    return face.box_px[3] - face.box_px[1]


def _where(face: FaceLandmarks, others: list[FaceLandmarks]) -> str:
    """Which of faces alike it is, in a word."""
    at = face.points_px[:, :2].mean(0)
    away = np.stack([other.points_px[:, :2].mean(0) - at for other in others])
    axis = int(np.abs(away).max(0).argmax())
    names = (("left", "right"), ("upper", "lower"))[axis]
    if (away[:, axis] > 0).all():
        return names[0]
    return names[1] if (away[:, axis] < 0).all() else "middle"


def _moved(face: FaceLandmarks, x: int, y: int, scale: float) -> FaceLandmarks:
    """From pixels of a part at (x, y) to those of the picture, which is `scale` times as large."""
    return FaceLandmarks(((face.points_px + np.array([x, y, 0])) * scale).astype(np.float32), face.scores)


def _apart(a: FaceLandmarks, b: FaceLandmarks) -> bool:
    """Whether two detections are different people (the same face seen in two tiles is one)."""
    distance = np.linalg.norm(a.points_px[:, :2].mean(0) - b.points_px[:, :2].mean(0))
    return bool(distance > 0.5 * _height(a))


def head_crop(landmarks_px: F32, width_px: int, height_px: int) -> tuple[float, float, float]:
    """(left, top, side) of the standard square around the head, moved and if need be shrunk into the photo."""
    face_height = float(np.linalg.norm(landmarks_px[10, :2] - landmarks_px[152, :2]))
    face_height = max(face_height, float(np.ptp(landmarks_px[:, 0])))
    side = min(round(CROP_SIDE_PER_FACE * face_height), width_px, height_px)
    centre = (landmarks_px[:, :2].min(0) + landmarks_px[:, :2].max(0)) / 2
    left = np.clip(round(centre[0] - side / 2), 0, width_px - side)
    top = np.clip(round(centre[1] - side * CROP_CENTRE_Y), 0, height_px - side)
    return float(left), float(top), float(side)
