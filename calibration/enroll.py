"""photo → `Enrollment`, once: find the face, fit pose and identity, draw the UV maps, cut out the person."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.matte import background_plate, cut_out
from calibration.photo import Photo, open_photo
from engines.enrollment import UV_POSITION_SIDE_PX, Consent, Enrollment
from engines.errors import PhotoError
from engines.face_model import (
    EYE_LEFT,
    EYE_RIGHT,
    LANDMARK_COUNT,
    LIDS_LEFT,
    LIDS_RIGHT,
    FaceModel,
    load_face_model,
)
from engines.fit import fit_pose, measure_gaze
from engines.gbuffer import HeadMesh, Viewport, draw_in_uv, lookup, rasterise
from engines.geometry import Camera, yaw_pitch_roll_deg
from engines.head import photo_viewport, pose_head
from engines.landmarks import FaceLandmarks, LandmarkDetector
from engines.motion import ARKIT_INDEX, Motion

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# The head crop: its side in face heights (landmarks 10 … 152), and where the face's middle sits in it.
CROP_SIDE_PER_FACE = 2.15
CROP_CENTRE_Y = 0.535

# Least squares leaves a closing lid about a tenth short of closed; lids that would cross meet instead.
_LID_REACH = 1.12

MIN_FACE_PX = 60.0
MAX_TURN_DEG = 45.0
_DETECT_SIDE_PX = 1024


def enroll(source: Path | bytes, *, name: str | None = None, consent: str | None = None) -> Enrollment:
    """Enroll one photo. Raises PhotoError, with what photo would work, when it cannot."""
    photo = open_photo(source)
    if name is None:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem).strip("-") if isinstance(source, Path) else ""
    with_name = name or f"face-{photo.sha256[:8]}"
    return enroll_photo(photo, name=with_name, consent=consent)


def enroll_photo(photo: Photo, *, name: str, consent: str | None = None) -> Enrollment:
    """Enroll an opened photo."""
    model = load_face_model()
    image = photo.image
    notices = list(photo.notices)
    face, count = find_face(image)
    if count > 1:
        notices.append(f"{count} faces found: took the largest")
    crop = head_crop(face.points_px, image.shape[1], image.shape[0])
    _require_usable(face.points_px, image)

    height, width = image.shape[:2]
    camera = Camera(width, height)
    pose = fit_pose(model, model.mean_hu, face.points_px)
    unposed = pose.invert(face.points_px)
    rotation, translation = camera.from_similarity(pose)
    yaw, pitch, _ = yaw_pitch_roll_deg(rotation)
    if max(abs(yaw), abs(pitch)) > MAX_TURN_DEG:
        raise PhotoError(
            f"the face is turned too far away ({max(abs(yaw), abs(pitch)):.0f}°); use a photo that looks at the camera"
        )
    if max(abs(yaw), abs(pitch)) > 20:
        notices.append(
            f"the face is turned {max(abs(yaw), abs(pitch)):.0f}°: a frontal photo animates better"
        )
    # V = V̄ᵢ + B β: what the scores do not explain is this person
    neutral = unposed - np.tensordot(face.scores, model.expression_hu[:, :LANDMARK_COUNT], 1)
    motion = Motion(
        expression=face.scores,
        rotation_rad=rotation.astype(np.float32),
        translation_hu=translation.astype(np.float32),
        gaze_rad=measure_gaze(unposed),
    )
    matte = cut_out(image, crop)
    if matte.notice:
        notices.append(matte.notice)
    still = Enrollment(
        name=name,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        photo_sha256=photo.sha256,
        photo=image,
        crop_px=crop,
        landmarks_px=face.points_px,
        neutral_hu=model.extend_to_shell(neutral.astype(np.float32)),
        gain=expression_gain(model, unposed.astype(np.float32), face.scores),
        motion=motion,
        uv_position_px=np.zeros((1, 1, 2), np.float32),
        uv_visibility=np.zeros((1, 1), np.uint8),
        uv_colour=np.zeros((1, 1, 3), np.uint8),
        matte=matte.alpha,
        plate=background_plate(image, matte.alpha, crop),
        consent=Consent(consent, datetime.now(UTC).isoformat(timespec="seconds")) if consent else None,
        notices=tuple(notices),
    )
    return draw_uv_maps(model, still)


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
            raise PhotoError("no face found; use a photo with one face that looks at the camera, well lit")
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


def _require_usable(landmarks_px: F32, image: U8) -> None:
    height, width = image.shape[:2]
    size = float(np.ptp(landmarks_px[:, 1]))
    if size < MIN_FACE_PX:
        raise PhotoError(
            f"the face is too small ({size:.0f} px high, {MIN_FACE_PX:.0f} needed); crop closer or use a larger photo"
        )
    x, y = landmarks_px[:, 0], landmarks_px[:, 1]
    outside = float(np.mean((x < 0) | (x >= width) | (y < 0) | (y >= height)))
    if outside > 0.02:
        raise PhotoError(
            "the face is cut off by the edge of the photo; use a photo with the whole face in it"
        )


def expression_gain(model: FaceModel, unposed_hu: F32, scores: F32) -> F32:
    """Per-vertex scale (N, 1) of the expression basis, so that this person's lids close.

    The mean's blink moves a lid by the mean's opening; eyes that open wider need more. Vertices around an
    eye are scaled by `own opening / mean opening`, fading to 1 within an eye's width.
    """
    gain = np.ones((model.vertex_count, 1), np.float32)
    blink = ("eyeBlinkRight", "eyeBlinkLeft")
    for contour, (upper, lower), name in ((EYE_RIGHT, LIDS_RIGHT, blink[0]), (EYE_LEFT, LIDS_LEFT, blink[1])):
        closed = float(np.clip(scores[ARKIT_INDEX[name]], 0, 0.9))
        own = float(np.linalg.norm(unposed_hu[upper, :2] - unposed_hu[lower, :2])) / (1 - closed)
        mean = float(np.linalg.norm(model.mean_hu[upper, :2] - model.mean_hu[lower, :2]))
        ratio = float(np.clip(_LID_REACH * own / mean, 0.7, 2.0))
        eye = model.mean_hu[list(contour), :2]
        width = float(np.ptp(eye[:, 0]))
        distance = np.linalg.norm(model.mean_hu[:LANDMARK_COUNT, None, :2] - eye[None], axis=-1).min(1)
        near = np.clip(1 - distance / (0.5 * width), 0, 1)
        gain[:LANDMARK_COUNT, 0] *= 1 + (ratio - 1) * near
    return gain


def draw_uv_maps(model: FaceModel, enrollment: Enrollment) -> Enrollment:
    """Source-position, visibility and colour maps in UV space (the papers' inputs, by lookup)."""
    viewport = photo_viewport(enrollment)
    mesh = pose_head(model, enrollment, enrollment.motion, viewport)
    position = draw_in_uv(model, np.ascontiguousarray(mesh.vertices_px[:, :2]), UV_POSITION_SIDE_PX)
    visible, colour = _visibility_and_colour(model, enrollment, mesh, position)
    return replace(enrollment, uv_position_px=position, uv_visibility=visible, uv_colour=colour)


def _visibility_and_colour(
    model: FaceModel, enrollment: Enrollment, mesh: HeadMesh, position: F32
) -> tuple[U8, U8]:
    """A texel is visible when the photo's own G-buffer shows that very texel at its position."""
    left, top, side = enrollment.crop_px
    window = Viewport(left, top, 512 / side, 512, 512)
    points = window.from_photo(mesh.vertices_px).astype(np.float32)
    seen = rasterise(model, HeadMesh(points, mesh.pose), window, grid_px=512)
    where = ((position - (left, top)) * window.scale - 0.5).astype(np.float32)
    uv_there = cv2.remap(seen.uv, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # pyright: ignore[reportCallIssue, reportArgumentType]
    size = position.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    own_uv = np.stack([(x + 0.5) / size, (y + 0.5) / size], -1)
    visible = np.linalg.norm(uv_there - own_uv, axis=-1) < 4.0 / size
    height, width = enrollment.photo.shape[:2]
    inside = (position >= 0).all(-1) & (position[..., 0] < width) & (position[..., 1] < height)
    colour = lookup(enrollment.photo, (position / np.array([width, height], np.float32)).astype(np.float32))
    return ((visible & inside) * 255).astype(np.uint8), np.asarray(colour, np.uint8)
