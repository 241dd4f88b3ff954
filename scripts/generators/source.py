"""A frame enrolled as if it were the photo, and what geometry draws of it when another frame drives it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.enroll import enroll_face, fit_face, person_matte
from calibration.face import head_crop
from calibration.usable import check_turn, look_at_face
from engines.enrollment import Enrollment
from engines.errors import PhotoError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.base_picture import BasePicture
from engines.geometry import Camera, yaw_pitch_roll_deg
from engines.head.fit import ExpressionFit
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel, load_head_model
from engines.motion import Motion
from engines.motion_descriptor import describe
from engines.picture.composite import make_background
from engines.raster.gbuffer import HeadMesh
from engines.raster.pose import head_viewport, photo_viewport, pose_head, pose_in_viewport
from scripts.generators.item import (
    BACKGROUND_PX,
    F16,
    I16,
    STORED_PX,
    decode_colour,
    grey_png,
    jpeg,
    rgba_png,
    rounded,
)

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

CAMERA = Camera(STORED_PX, STORED_PX)
_FILL_PX = 128  # what a person hides is not judged, and a clip's frames hide it often
_SAME_FACE = 0.5  # of its height: measured again further away, it is somebody else's


class Tools:
    """What one process needs to make items, loaded once."""

    def __init__(self) -> None:
        self.model: HeadModel = load_head_model()
        self.fit = ExpressionFit(self.model)
        self.generator = GeometricGenerator(self.model)
        self.detector = LandmarkDetector(video=False)


@dataclass(frozen=True, eq=False)
class Source:
    """A frame as it is stored, enrolled.

    `rgb` its JPEG, `degraded` that of the photo which was enrolled in its place, or nothing; `matte` (512, 512) of the
    frame as it is, `landmarks_px` (478, 3) of it, `number` in the clip; `refused`: why it can be no photo, though it
    can be what is to be drawn.
    """

    tools: Tools
    number: int
    rgb: bytes
    degraded: bytes
    matte: U8
    landmarks_px: F32
    enrollment: Enrollment
    refused: str | None

    @cached_property
    def landmarks_hu(self) -> F32:
        """(478, 3) of the neutral head."""
        return np.asarray(self.tools.model.landmarks(self.enrollment.neutral_hu), np.float32)

    @cached_property
    def own_motion(self) -> F32:
        """(65,)."""
        motion = self.enrollment.motion
        return describe(motion, CAMERA.to_similarity(motion.rotation_rad, motion.translation_hu))

    @cached_property
    def own_vertices(self) -> I16:
        """(N, 3) in 1/32 px."""
        return self.vertices(self.enrollment.motion)

    def vertices(self, motion: Motion) -> I16:
        """(N, 3) in 1/32 px: the head as `motion` poses it."""
        mesh = pose_head(self.tools.model, self.enrollment, motion, photo_viewport(self.enrollment))
        return rounded(mesh.vertices_px)

    def background(self) -> bytes:
        """JPEG, 256²."""
        return jpeg(make_background(self.enrollment, head_viewport(self.enrollment, BACKGROUND_PX)))


class Drawing:
    """A photo ready to be driven by geometry."""

    def __init__(self, source: Source) -> None:
        self.source, self.tools = source, source.tools
        self.base = BasePicture(self.tools.generator, source.enrollment)
        self.openings = self.base.openings

    def pair(self, motion: Motion) -> tuple[I16, bytes, bytes, bytes, F16]:
        """`vertices`, `picture`, `alpha`, `openings` and `where` of an Item for `motion`."""
        model, enrollment, viewport = self.tools.model, self.source.enrollment, self.base.viewport
        posed = pose_head(model, enrollment, motion, photo_viewport(enrollment))
        points = viewport.from_photo(posed.vertices_px).astype(np.float32)
        pose = pose_in_viewport(enrollment, motion, viewport)
        mesh = HeadMesh(points, pose, model.landmarks(points).astype(np.float32))
        picture, where = self.base.draw(mesh, motion)
        alpha = grey_png(picture[..., 3])
        openings = rgba_png(self.openings.picture(mesh, viewport, motion))
        return rounded(posed.vertices_px), jpeg(picture[..., :3]), alpha, openings, where.astype(np.float16)


def enrolled(
    tools: Tools,
    image: U8,
    found: FaceLandmarks,
    number: int,
    poor: U8 | None = None,
    *,
    shift: np.random.Generator | None = None,
) -> Source:
    """Enroll a stored picture (512, 512, 3) with the face `found` in it; `poor` is enrolled in its place.

    `shift`: by which the head is moved a little in its crop. Raises PhotoError or ValueError where there is nothing
    that a head could be fitted to.
    """
    rgb, degraded = jpeg(image), b""
    image = photo = decode_colour(rgb)  # what is enrolled is what a reader of the item sees
    face = seen = _measured(tools.detector, image, found) or found
    if poor is not None:
        data = jpeg(poor)
        worse = decode_colour(data)
        if (again := _measured(tools.detector, worse, found)) is not None:
            photo, face, degraded = worse, again, data
    crop = head_crop(face.points_px, STORED_PX, STORED_PX)
    fit, _ = fit_face(tools.model, face)
    refused = None
    try:
        yaw, pitch, _ = yaw_pitch_roll_deg(CAMERA.from_similarity(fit.pose)[0])
        check_turn(yaw, pitch)
        look_at_face(photo, face, fit.pose.invert(face.points_px))
    except PhotoError as error:
        refused = str(error)
    matte = person_matte(photo, crop, face.points_px).alpha
    enrollment = enroll_face(tools.model, photo, face, crop, fit, matte, _FILL_PX)
    if shift is not None:
        enrollment = shifted_crop(enrollment, shift)
    truth = matte if not degraded else person_matte(image, crop, seen.points_px).alpha
    return Source(tools, number, rgb, degraded, truth, found.points_px, enrollment, refused)


def _measured(detector: LandmarkDetector, image: U8, found: FaceLandmarks) -> FaceLandmarks | None:
    """The face measured again on its own head crop, as enrollment does; None where it is not seen there."""
    height, width = image.shape[:2]
    left, top, side = head_crop(found.points_px, width, height)
    x0, y0 = max(0, int(left)), max(0, int(top))
    x1, y1 = min(width, int(left + side)), min(height, int(top + side))
    faces = detector.detect(image[y0:y1, x0:x1]) if x1 > x0 and y1 > y0 else []
    reach = _SAME_FACE * np.ptp(found.points_px[:, 1])
    for face in faces:
        moved = (face.points_px + np.array([x0, y0, 0])).astype(np.float32)
        if np.linalg.norm((moved - found.points_px)[:, :2].mean(0)) < reach:
            return FaceLandmarks(moved, face.scores)
    return None


def degrade(image: U8, rng: np.random.Generator) -> U8:
    """A poorer photo: blurred, compressed or noisy."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3)), np.uint8)
    if kind == 1:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 70))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    noise = rng.normal(0, rng.uniform(2, 7), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def shifted_crop(enrollment: Enrollment, rng: np.random.Generator) -> Enrollment:
    """The head a little nearer, further or aside in its crop, inside the photo."""
    left, top, side = enrollment.crop_px
    height, width = enrollment.photo.shape[:2]
    new = min(side * rng.uniform(0.88, 1.08), height, width)
    x = left + (side - new) / 2 + rng.uniform(-0.05, 0.05) * side
    y = top + (side - new) / 2 + rng.uniform(-0.05, 0.05) * side
    crop = (float(np.clip(x, 0, width - new)), float(np.clip(y, 0, height - new)), float(new))
    return replace(enrollment, crop_px=crop)
