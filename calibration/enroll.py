"""photo → `Enrollment`, once: find the face, fit pose and identity, draw the UV maps, cut out the person."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.hair import inflate_hair
from calibration.matte import Matte, background_plate, cut_out
from calibration.photo import Photo, open_photo
from calibration.usable import check_turn, face_in_matte, head_is_cut, look_at_face, require_whole_face
from calibration.uv_maps import with_uv_maps
from engines.enrollment import Consent, Enrollment
from engines.errors import PhotoError
from engines.generators.names import DEFAULT_GENERATOR
from engines.generators.open import open_generator_or_fallback
from engines.geometry import Camera, yaw_pitch_roll_deg
from engines.head.fit import SourceFit, fit_source, measure_gaze
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIDS_LEFT, LIDS_RIGHT
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel, eye_centre
from engines.head.open import open_head_model, ref_of
from engines.head.surface import spread_delta
from engines.motion import Motion

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# The head crop: its side in face heights (landmarks 10 … 152), and where the face's middle sits in it.
CROP_SIDE_PER_FACE = 2.15
CROP_CENTRE_Y = 0.535


_DETECT_SIDE_PX = 1024


def enroll(
    source: Path | bytes,
    *,
    name: str | None = None,
    consent: str | None = None,
    head_model: str | None = None,
) -> Enrollment:
    """Enroll one photo on visavis's own head, or on the one that `head_model` names (`engines.head.open`).

    Raises PhotoError, with what photo would work, when it cannot, and ModelError for a head model that does not open.
    """
    open_head_model(head_model)  # a wrong name is told before any work
    photo = open_photo(source)
    if name is None:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem).strip("-") if isinstance(source, Path) else ""
    with_name = name or f"face-{photo.sha256[:8]}"
    return enroll_photo(photo, name=with_name, consent=consent, head_model=head_model)


def enroll_photo(
    photo: Photo, *, name: str, consent: str | None = None, head_model: str | None = None
) -> Enrollment:
    """Enroll an opened photo; errors as of `enroll`."""
    model = open_head_model(head_model)
    image = photo.image
    notices = list(photo.notices)
    face, count = find_face(image)
    if count > 1:
        notices.append(f"{count} faces found: took the largest")
    height, width = image.shape[:2]
    require_whole_face(face.points_px, width, height)
    crop = head_crop(face.points_px, width, height)

    camera = Camera(width, height)
    fit = fit_source(model, face.points_px, face.scores)
    rotation, translation = camera.from_similarity(fit.pose)
    yaw, pitch, _ = yaw_pitch_roll_deg(rotation)
    turned = check_turn(yaw, pitch)
    if turned:
        notices.append(turned)
    unposed = fit.pose.invert(face.points_px)
    findings = look_at_face(image, face, unposed)
    notices += findings.notices
    motion = Motion(
        expression=fit.expression,
        rotation_rad=rotation.astype(np.float32),
        translation_hu=translation.astype(np.float32),
        gaze_rad=measure_gaze(unposed),
    )
    matte = cut_out(image, crop)
    if matte.notice:
        notices.append(matte.notice)
    elif not face_in_matte(matte.alpha, face.points_px):
        # a drawing: to the segmenter it is no person, and a head without pixels would be black
        matte = Matte(np.full(image.shape[:2], 255, np.uint8))
        notices.append("no person found around the face (a drawing?): the background moves with the head")
    elif head_is_cut(matte.alpha, face.points_px):
        notices.append("the top of the head is cut off: a photo with room above it animates better")
    neutral = person_of(model, fit)
    neutral = neutral + inflate_hair(model, neutral, fit.pose, matte.alpha)
    none = np.zeros((1, 1, 3), np.uint8)
    still = Enrollment(
        name=name,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        photo_sha256=photo.sha256,
        photo=image,
        crop_px=crop,
        landmarks_px=face.points_px,
        identity=fit.identity,
        neutral_hu=neutral,
        motion=motion,
        uv_position_px=np.zeros((1, 1, 2), np.float32),
        uv_visibility=none[..., 0],
        uv_colour=none,
        uv_pncc=none,
        matte=matte.alpha,
        plate=background_plate(image, matte.alpha, crop),
        consent=Consent(consent, datetime.now(UTC).isoformat(timespec="seconds")) if consent else None,
        notices=tuple(notices),
        controls=findings.controls,
        model=ref_of(head_model),
    )
    return with_features(model, with_uv_maps(model, still))


def with_features(model: HeadModel, enrollment: Enrollment) -> Enrollment:
    """With what the default generator's encoder makes of the photo; as it is where it cannot draw on this model."""
    generator, _ = open_generator_or_fallback(DEFAULT_GENERATOR, model)
    return replace(enrollment, features=dict(generator.features_of(enrollment)))


def person_of(model: HeadModel, fit: SourceFit) -> F32:
    """A person's expressionless head (N, 3): `V̄ + B_id α + δ`, through their own landmarks, eyes in their sockets."""
    delta = spread_delta(model, fit.left_hu)
    neutral = model.shape(fit.identity, delta)
    # seated behind the lids of the photo, as open as they are there
    lids = model.landmarks(model.decode(neutral, fit.expression))
    now = model.joints_of(neutral).eyes
    for side, (contour, pair) in enumerate(((EYE_RIGHT, LIDS_RIGHT), (EYE_LEFT, LIDS_LEFT))):
        own = model.eye_side == side + 1
        neutral[own] += (eye_centre(lids[list(contour)], lids[list(pair)]) - now[side]).astype(np.float32)
    return neutral


def find_face(image: U8) -> tuple[FaceLandmarks, int]:
    """The largest face, measured again on its own crop for precision, and how many faces there were.

    MediaPipe's detector is made for faces that fill a good part of the picture: when it finds none,
    overlapping quarters and ninths of the photo are searched.
    """
    detector = LandmarkDetector(video=False, max_faces=5)
    try:
        height, width = image.shape[:2]
        faces: list[FaceLandmarks] = []
        for share in (1.0, 0.6, 0.36):
            faces = _search(detector, image, share)
            if faces:
                break
        if not faces:
            raise PhotoError(
                "no face found; use a photo with one face that looks at the camera, well lit, with nothing before it"
            )
        left, top, side = head_crop(faces[0].points_px, width, height)
        x0, y0 = max(0, int(left)), max(0, int(top))
        x1, y1 = min(width, int(left + side)), min(height, int(top + side))
        again = detector.detect(image[y0:y1, x0:x1]) if x1 > x0 and y1 > y0 else []
        if again:
            return _moved(again[0], x0, y0, 1.0), len(faces)
        return faces[0], len(faces)
    finally:
        detector.close()


def _search(detector: LandmarkDetector, image: U8, share: float) -> list[FaceLandmarks]:
    height, width = image.shape[:2]
    side_y, side_x = round(height * share), round(width * share)
    steps = 1 if share == 1.0 else 1 + int(np.ceil((1 - share) / (share / 2)))
    found: list[FaceLandmarks] = []
    for y in np.linspace(0, height - side_y, steps).astype(int):
        for x in np.linspace(0, width - side_x, steps).astype(int):
            tile = image[y : y + side_y, x : x + side_x]
            scale = min(1.0, _DETECT_SIDE_PX / max(tile.shape[:2]))
            small = (
                cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                if scale < 1
                else tile
            )
            for face in detector.detect(small.astype(np.uint8)):
                moved = _moved(face, int(x), int(y), 1 / scale)
                if all(_apart(moved, other) for other in found):
                    found.append(moved)
    return sorted(found, key=lambda f: f.box_px[3] - f.box_px[1], reverse=True)


def _moved(face: FaceLandmarks, x: int, y: int, scale: float) -> FaceLandmarks:
    return FaceLandmarks((face.points_px * scale + np.array([x, y, 0])).astype(np.float32), face.scores)


def _apart(a: FaceLandmarks, b: FaceLandmarks) -> bool:
    """Whether two detections are different people (the same face seen in two tiles is one)."""
    distance = np.linalg.norm(a.points_px[:, :2].mean(0) - b.points_px[:, :2].mean(0))
    return bool(distance > 0.5 * (a.box_px[3] - a.box_px[1]))


def head_crop(landmarks_px: F32, width_px: int, height_px: int) -> tuple[float, float, float]:
    """(left, top, side) of the standard square around the head, moved and if need be shrunk into the photo."""
    face_height = float(np.linalg.norm(landmarks_px[10, :2] - landmarks_px[152, :2]))
    face_height = max(face_height, float(np.ptp(landmarks_px[:, 0])))
    side = min(round(CROP_SIDE_PER_FACE * face_height), width_px, height_px)
    centre = (landmarks_px[:, :2].min(0) + landmarks_px[:, :2].max(0)) / 2
    left = np.clip(round(centre[0] - side / 2), 0, width_px - side)
    top = np.clip(round(centre[1] - side * CROP_CENTRE_Y), 0, height_px - side)
    return float(left), float(top), float(side)
