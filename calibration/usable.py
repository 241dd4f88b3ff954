"""Is this photo usable? What cannot become a good avatar is refused with advice; what works less well is said.

Thresholds stand where 494 ordinary portraits and the bad photos of `tests/test_bad_photos.py` leave a gap;
docs/photos.md has the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import PhotoError
from engines.geometry import F64
from engines.head.fit import openings
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER, OVAL
from engines.head.landmarks import FaceLandmarks
from engines.motion import ARKIT_INDEX
from engines.retarget import Controls
from engines.turn_limits import bears_deg

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

MIN_FACE_PX = 60.0
MAX_YAW_DEG = 45.0
MAX_PITCH_DEG = 38.0  # further down or up, brows or chin hide the eyes
TURNED_DEG = 20.0
TILTED_DEG = 33.0  # heads in portraits are tilted by up to 31°

# An eye is closed when its gap is small and MediaPipe says so too: either alone happens to open, narrow eyes.
EYE_CLOSED_OPENING = 0.11
EYE_CLOSED_BLINK = 0.4
# MediaPipe leaves a winking eye half open: a wink is told by comparing both eyes
WINK_SHARE, WINK_BLINK = 0.65, 0.2
MOUTH_OPEN_OPENING = 0.35  # a smile that shows teeth stays below 0.28

_DARK_GLASS = 0.42  # brightness around both eyes over the skin's; shadowed sockets stay above 0.53
_NO_LIPS_LAB = (
    3.2  # lips that differ less from what surrounds them are cloth or skin; real ones stay above 3.8
)
_NO_LIP_REDNESS_LAB, _NO_LIP_LINE_LAB = 1.5, 1.0
_COLOURLESS_SKIN_LAB = 4.0
_WELL_LIT_SKIN_L = 60.0
# at ×0.15 the brightest of 50 portraits has 9, as they are the darkest has 24
_DARK_L = 14.0
_WHITE_L, _WHITE_SHARE = 96.0, 0.4  # at twice the light half have more, as they are none has any
_FAINT_L = 3.0
_BLURRED = 0.2  # portraits stay above 0.28; blurred by 3 % of the face's height they are below 0.12
_BEND = np.array([[1.0, -2.0, 1.0]], np.float32)
_FACE_IN_MATTE = 0.9
_CUT_SHARE = 0.7

# dark glass has nothing to move: neither gaze nor lids
BEHIND_GLASS = Controls(gaze=0.0, eyes=0.0, keep_blink=False)

_SIDE_PX = 256
_FACE_PX = 180.0  # landmarks 10 … 152 in the upright face
_CHEEKS_AND_FOREHEAD = (50, 280, 205, 425, 151)
_LIP_COLUMNS = ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402))


@dataclass(frozen=True, slots=True)
class Findings:
    """What works less well, one phrase each, and the controls that suit the photo (None: the usual ones)."""

    notices: tuple[str, ...]
    controls: Controls | None


def require_whole_face(landmarks_px: F32, width_px: int, height_px: int, scaled_from: float = 1.0) -> None:
    """Raise PhotoError for a face that is too small or cut off by the photo's edge.

    `scaled_from`: so many times larger the photo was as it was given.
    """
    size = float(np.ptp(landmarks_px[:, 1]))
    if size < MIN_FACE_PX and size * scaled_from >= MIN_FACE_PX:
        raise PhotoError(
            f"the face is only {size * scaled_from:.0f} px high in a photo so large that it is scaled down (to "
            f"{size:.0f} px, {MIN_FACE_PX:.0f} needed); crop closer: cut the photo to the person and use that"
        )
    if size < MIN_FACE_PX:
        raise PhotoError(
            f"the face is too small ({size:.0f} px high, {MIN_FACE_PX:.0f} needed); crop closer or use a larger photo"
        )
    x, y = landmarks_px[:, 0], landmarks_px[:, 1]
    outside = float(np.mean((x < 0) | (x >= width_px) | (y < 0) | (y >= height_px)))
    if outside > 0.02:
        raise PhotoError(
            "the face is cut off by the edge of the photo; use a photo with the whole face in it"
        )


def check_turn(yaw_deg: float, pitch_deg: float) -> str | None:
    """Raise PhotoError for a face turned too far away; a notice for one turned a good deal."""
    turn = max(abs(yaw_deg), abs(pitch_deg))
    if abs(yaw_deg) > MAX_YAW_DEG or abs(pitch_deg) > MAX_PITCH_DEG:
        raise PhotoError(
            f"the face is turned too far away ({turn:.0f}°); use a photo that looks at the camera"
        )
    if turn <= TURNED_DEG:
        return None
    back = f", and turns back by {bears_deg(yaw_deg)[0]:.0f}° at most" if abs(yaw_deg) > TURNED_DEG else ""
    return f"the face is turned {turn:.0f}°: a frontal photo animates better{back}"


def check_tilt(roll_deg: float) -> str | None:
    """A notice for a head tilted so far that it looks as if the photo was."""
    if abs(roll_deg) <= TILTED_DEG:
        return None
    return f"the head is tilted by {abs(roll_deg):.0f}°: a photo with the head upright animates better"


def look_at_face(image: U8, face: FaceLandmarks, unposed_hu: F64) -> Findings:
    """Judge eyes and mouth of `face` in `image` (H, W, 3); `unposed_hu` (478, 3) are its un-posed landmarks.

    Raises PhotoError for closed eyes.
    """
    lab, points = upright_face(image, face.points_px)
    mouth, *eyes = (float(v) for v in openings(unposed_hu))
    poor = poor_light_or_focus(lab, points)
    notices = [poor] if poor else []
    controls = None
    if glass_brightness(lab, points) < _DARK_GLASS:
        # what the lids do behind dark glass is the detector's guess
        notices.append("dark glasses: the eyes stay still; a photo without them gives living eyes")
        controls = BEHIND_GLASS
    else:
        blink = [float(face.scores[ARKIT_INDEX[name]]) for name in ("eyeBlinkRight", "eyeBlinkLeft")]
        if max(eyes) < EYE_CLOSED_OPENING and min(blink) > EYE_CLOSED_BLINK:
            raise PhotoError(
                f"the eyes seem closed, but {poor.partition(':')[0]}; use a photo that shows open eyes clearly"
                if poor
                else "the eyes are closed; use a photo with open eyes"
            )
        if min(eyes) < WINK_SHARE * max(eyes) and abs(blink[0] - blink[1]) > WINK_BLINK:
            notices.append("one eye is closed and will stay so; use a photo with both eyes open")
    # lips that nothing can be made out of are not covered
    if not poor and mouth_is_covered(lab, points):
        notices.append(
            "the mouth seems covered: a drawn one will open there; a photo without hand or mask works better"
        )
    elif mouth > MOUTH_OPEN_OPENING:
        notices.append("the mouth is wide open: a photo with closed or smiling lips animates better")
    return Findings(tuple(notices), controls)


def upright_face(image: U8, landmarks_px: F32) -> tuple[F32, F64]:
    """The face turned upright and scaled to 256 × 256: (Lab picture, L in 0 … 100; landmarks (478, 2) in it)."""
    height = float(np.linalg.norm(landmarks_px[10, :2] - landmarks_px[152, :2]))
    across = landmarks_px[263, :2] - landmarks_px[33, :2]
    centre = landmarks_px[:, :2].mean(0)
    scale = _FACE_PX / max(height, 1.0)
    angle_deg = float(np.degrees(np.arctan2(across[1], across[0])))
    affine = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle_deg, scale)
    affine[:, 2] += _SIDE_PX / 2 - centre
    if scale < 0.5:  # warping alone would skip pixels
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    face = cv2.warpAffine(image, affine, (_SIDE_PX, _SIDE_PX), borderMode=cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    points = landmarks_px[:, :2].astype(np.float64) @ affine[:, :2].T + affine[:, 2]
    return lab.astype(np.float32), points


def poor_light_or_focus(lab: F32, points: F64) -> str | None:
    """A notice for a face that is too dark, too bright, too faint or too blurred to show what is in it."""
    oval = np.zeros(lab.shape[:2], np.uint8)
    cv2.fillPoly(oval, [np.rint(points[list(OVAL)]).astype(np.int32)], 1)
    light = lab[..., 0][oval > 0]
    if not len(light):
        return None
    if float(np.median(light)) < _DARK_L:
        return "the photo is very dark: one in good light works better"
    if float(np.mean(light > _WHITE_L)) > _WHITE_SHARE:
        return "the photo is overexposed: one that is less bright works better"
    if float(light.std()) < _FAINT_L:
        return "the photo has hardly any contrast: a clearer one works better"
    if sharpness(lab, points) < _BLURRED:
        return "the photo is blurred: a sharp one works better"
    return None


def sharpness(lab: F32, points: F64) -> float:
    """How much the face's brightness bends from pixel to pixel, at 90 px a face, over how much it varies at all.

    The smaller of across and down.
    """
    x0, y0 = np.clip(points.min(0), 0, _SIDE_PX - 8).astype(int)
    x1, y1 = np.clip(points.max(0), (x0 + 8, y0 + 8), _SIDE_PX).astype(int)
    half = cv2.resize(lab[y0:y1, x0:x1, 0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    # a face that moved keeps its edges along the way it moved
    changes = [np.abs(cv2.filter2D(half, cv2.CV_32F, kernel)) for kernel in (_BEND, _BEND.T)]
    return min(float(np.percentile(change, 95)) for change in changes) / max(float(half.std()), 1e-3)


def skin_lab(lab: F32, points: F64) -> F32:
    """The skin's colour (3,): median of cheeks and forehead."""
    patches = [_patch(lab, points[i], 4) for i in _CHEEKS_AND_FOREHEAD]
    return np.median(np.concatenate(patches), 0).astype(np.float32)


def _patch(lab: F32, at: F64, reach: int) -> F32:
    x, y = np.clip(np.rint(at).astype(int), reach, _SIDE_PX - 1 - reach)
    return lab[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3)


def glass_brightness(lab: F32, points: F64) -> float:
    """How bright the brighter eye and what is around it are (upper quartile), over the skin's brightness.

    White of the eye and lids lie in that quartile, which a dark lens covers and dark lashes or irises do not.
    """
    light = np.ascontiguousarray(lab[..., 0])
    brightest = 0.0
    for contour in (EYE_RIGHT, EYE_LEFT):
        eye = points[list(contour)]
        centre = np.rint(eye.mean(0)).astype(int)
        width = float(np.linalg.norm(eye[0] - eye[8]))
        around = np.zeros(light.shape, np.uint8)
        axes = (max(1, int(0.62 * width)), max(1, int(0.42 * width)))
        cv2.ellipse(around, (int(centre[0]), int(centre[1])), axes, 0, 0, 360, 1, -1)
        if around.any():
            brightest = max(brightest, float(np.percentile(light[around > 0], 75)))
    return brightest / max(float(skin_lab(lab, points)[0]), 1.0)


def mouth_is_covered(lab: F32, points: F64) -> bool:
    """Whether nothing where the lips should be looks like lips.

    Either they differ in nothing from what surrounds them (a mask), or they are neither redder nor have a dark
    line between them (a hand). Dark skin and dark photos show less of all that, and less is asked of them. Photos
    without colour are not judged.
    """
    skin = skin_lab(lab, points)
    if float(np.hypot(skin[1], skin[2])) < _COLOURLESS_SKIN_LAB:
        return False
    smooth = np.asarray(cv2.GaussianBlur(lab, (0, 0), 1.2), np.float32)
    outer, inner = points[list(LIPS_OUTER)], points[list(LIPS_INNER)]
    width = float(np.linalg.norm(points[61] - points[291]))
    outwards = outer - inner
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-6
    difference = _sample(smooth, (outer + inner) / 2) - _sample(smooth, outer + 0.09 * width * outwards)
    difference /= min(1.0, max(float(skin[0]), 1.0) / _WELL_LIT_SKIN_L)
    if float(np.median(np.linalg.norm(difference, axis=1))) < _NO_LIPS_LAB:
        return True
    redder = float(np.median(difference[:, 1]))
    return redder < _NO_LIP_REDNESS_LAB and _line_between_lips(smooth, points) < _NO_LIP_LINE_LAB


def _line_between_lips(smooth: F32, points: F64) -> float:
    """How much darker than both lips the line between them is (median of five columns)."""
    depths: list[float] = []
    for upper, lower in _LIP_COLUMNS:
        y = np.arange(points[upper, 1] - 6, points[lower, 1] + 6.01, 0.5)
        x = np.full_like(y, (points[upper, 0] + points[lower, 0]) / 2)
        light = _sample(smooth, np.stack([x, y], -1))[:, 0]
        if len(light):  # lips that cross leave none
            k = int(light.argmin())
            depths.append(float(min(light[: k + 1].max(), light[k:].max()) - light[k]))
    return float(np.median(depths)) if depths else 0.0


def _sample(picture: F32, at: F64) -> F32:
    """Bilinear values (N, 3) at points (N, 2)."""
    where = at.astype(np.float32)[None]
    return np.asarray(
        cv2.remap(picture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32  # pyright: ignore[reportCallIssue, reportArgumentType]
    )[0]  # fmt: skip


def face_in_matte(alpha: U8, landmarks_px: F32) -> bool:
    """Whether the matte (H, W) holds the face; the segmenter knows people, not drawings."""
    oval = np.zeros(alpha.shape, np.uint8)
    cv2.fillPoly(oval, [np.rint(landmarks_px[list(OVAL), :2]).astype(np.int32)], 1)
    return not oval.any() or float(alpha[oval > 0].mean()) >= 255 * _FACE_IN_MATTE


def head_is_cut(alpha: U8, landmarks_px: F32) -> bool:
    """Whether hair or hat run out of the photo's top edge, over a good part of the face's width."""
    x = landmarks_px[:, 0]
    left, right = int(np.clip(x.min(), 0, alpha.shape[1] - 1)), int(np.clip(x.max(), 1, alpha.shape[1]))
    top = alpha[:2, left:right].max(0) if right > left else np.zeros(1, np.uint8)
    return float(np.mean(top > 128)) > _CUT_SHARE
