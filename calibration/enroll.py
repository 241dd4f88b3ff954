"""photo → `Enrollment`, once: find the face, fit pose and identity, draw the UV maps, cut out the person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.face import FoundFace, find_face, head_crop
from calibration.fill import WORK_PX
from calibration.glasses import wears_glasses
from calibration.hair import drape_hair, inflate_hair
from calibration.hair_mask import hair_mask
from calibration.matte import Matte, background_plate, cut_out, of_one
from calibration.photo import Photo, open_photo
from calibration.usable import (
    check_tilt,
    check_turn,
    face_in_matte,
    head_is_cut,
    look_at_face,
    require_whole_face,
)
from calibration.uv_maps import with_uv_maps
from engines.enrollment import Consent, Enrollment
from engines.errors import PhotoError
from engines.generators.names import DEFAULT_GENERATOR
from engines.generators.open import open_generator_or_fallback
from engines.geometry import F64, Camera, yaw_pitch_roll_deg
from engines.head.fit import SourceFit, fit_photo, measure_gaze
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIDS_LEFT, LIDS_RIGHT
from engines.head.landmarks import FaceLandmarks
from engines.head.model import HeadModel, eye_centre
from engines.head.neutral_prior import lips_moved, load_neutral_prior
from engines.head.open import open_head_model, ref_of
from engines.head.surface import spread_delta
from engines.motion import Motion
from engines.retarget import Controls

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


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
    found = face_of(photo)
    image, face = found.image, found.face
    notices = [*photo.notices, *found.notices]
    height, width = image.shape[:2]
    require_whole_face(face.points_px, width, height, max(photo.original_size_px) / max(width, height))
    crop = head_crop(face.points_px, width, height)

    fit, moved_px = fit_face(model, face)
    yaw, pitch, roll = yaw_pitch_roll_deg(Camera(width, height).from_similarity(fit.pose)[0])
    notices += (notice for notice in (check_turn(yaw, pitch), check_tilt(roll)) if notice)
    findings = look_at_face(image, face, fit.pose.invert(face.points_px))
    notices += findings.notices
    matte = person_matte(image, crop, face.points_px, [other.points_px for other in found.others])
    if matte.notice:
        notices.append(matte.notice)
    elif head_is_cut(matte.alpha, face.points_px):
        notices.append("the top of the head is cut off: a photo with room above it animates better")
    still = replace(
        enroll_face(model, image, face, crop, fit, matte.alpha),
        name=name,
        photo_sha256=photo.sha256,
        consent=Consent(consent, datetime.now(UTC).isoformat(timespec="seconds")) if consent else None,
        notices=tuple(notices),
        controls=resting_controls(findings.controls, face.points_px, moved_px),
        model=ref_of(head_model),
    )
    return with_features(model, still)


def fit_face(model: HeadModel, face: FaceLandmarks) -> tuple[SourceFit, F64]:
    """Pose, α, β and δ of a photo's face, its expression told from its shape by what people look like at rest; and how
    far (478, 3) each landmark is from there, in pixels."""
    moved_px = load_neutral_prior().displacement_px(face.points_px, face.scores)
    return fit_photo(model, face.points_px, face.scores, moved_px), moved_px


# Lips of 68 people asked to smile are 1.9 % of the face's height from where they rest, half of them 1.5 … 2.6 %.
_RESTS_IN_PERCENT = 1.0


def resting_controls(controls: Controls | None, landmarks_px: F32, moved_px: F64) -> Controls | None:
    """`controls` with so much `rest` that no more of the photo's expression is left than moves lips by 1 % of the face.

    Landmarks (478, 3) and how far each has `moved_px` (478, 3). Who calls looks serious most of the time: a wide smile
    would stay for the whole call. A slight one is left as it is.
    """
    percent = 100 * lips_moved(landmarks_px, moved_px)
    rest = round(20 * _RESTS_IN_PERCENT / max(percent, _RESTS_IN_PERCENT)) / 20
    return controls if rest >= 1 else replace(controls or Controls(), rest=rest)


def person_matte(
    image: U8, crop_px: tuple[float, float, float], landmarks_px: F32, others_px: Sequence[F32] = ()
) -> Matte:
    """The matte of the person with that face; all of `image` (H, W, 3), with a notice, where none is found there.

    `others_px`: landmarks of whoever else is in the photo; they are background.
    """
    matte = cut_out(image, crop_px)
    if matte.notice:
        return matte
    if face_in_matte(matte.alpha, landmarks_px):
        return Matte(of_one(matte.alpha, image, landmarks_px, others_px))
    # a drawing: to the segmenter it is no person, and a head without pixels would be black
    return Matte(
        np.full(image.shape[:2], 255, np.uint8),
        "no person found around the face (a drawing?): the background moves with the head",
    )


def enroll_face(
    model: HeadModel,
    image: U8,
    face: FaceLandmarks,
    crop_px: tuple[float, float, float],
    fit: SourceFit,
    matte: U8,
    fill_px: int = WORK_PX,
) -> Enrollment:
    """The enrollment of a face of `image` (H, W, 3) that was found, judged and cut out: nameless, without features.

    `fill_px`: how finely what the person hides is continued (`calibration.fill`).
    """
    rotation, translation = Camera(image.shape[1], image.shape[0]).from_similarity(fit.pose)
    motion = Motion(
        expression=fit.expression,
        rotation_rad=rotation.astype(np.float32),
        translation_hu=translation.astype(np.float32),
        gaze_rad=measure_gaze(fit.pose.invert(face.points_px)),
    )
    neutral = person_of(model, fit)
    hair = hair_mask(model, image, matte, crop_px, neutral, fit.pose)
    grown = neutral + inflate_hair(model, neutral, fit.pose, matte, hair if hair.any() else None)
    neutral = drape_hair(model, grown, neutral, fit.pose)
    none = np.zeros((1, 1, 3), np.uint8)
    still = Enrollment(
        name="",
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        photo_sha256="",
        photo=image,
        crop_px=crop_px,
        landmarks_px=face.points_px,
        identity=fit.identity,
        neutral_hu=neutral,
        motion=motion,
        uv_position_px=np.zeros((1, 1, 2), np.float32),
        uv_visibility=none[..., 0],
        uv_colour=none,
        uv_pncc=none,
        matte=matte,
        plate=background_plate(image, matte, crop_px, fill_px),
        glasses=wears_glasses(image, face.points_px),
    )
    return with_uv_maps(model, still)


def face_of(photo: Photo) -> FoundFace:
    """The face of an opened photo. Raises PhotoError where there is none, or an animation shows none at first."""
    try:
        return find_face(photo.image)
    except PhotoError as error:
        animated = [notice for notice in photo.notices if notice.startswith("animated")]
        if animated:
            raise PhotoError(f"{error} ({animated[0]})") from error
        raise


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
