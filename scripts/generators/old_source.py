"""One enrolled photo and what its pairs share: `s_…` of the photo, `t_…` of each frame that drives it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.calm import RESTLESS
from calibration.matte import cut_out
from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.visavis import inputs
from engines.geometry import F64, Camera, align_similarity
from engines.head.fit import ExpressionFit, fit_driver, measure_closure, measure_gaze, openings
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.picture.composite import make_background
from engines.raster.gbuffer import rasterise
from engines.raster.pose import head_viewport, pose_head
from engines.raster.resample import resample
from scripts.people.tracks import Tracked

U8 = NDArray[np.uint8]
Arrays = dict[str, NDArray[Any]]

LEAST_SIDE_PX, MOST_SIDE_PX = 256, 512
MISFIT = 0.06  # landmarks missed by more of the face's size are no label


class Source:
    """One enrolled photo with everything that its pairs share."""

    def __init__(self, model: HeadModel, enrollment: Enrollment) -> None:
        self.model = model
        self.enrollment = enrollment
        side = int(np.clip(round(enrollment.crop_px[2]), LEAST_SIDE_PX, MOST_SIDE_PX))
        self.viewport = head_viewport(enrollment, side)
        self.window = inputs.Window.of(enrollment, self.viewport)
        self.generator = GeometricGenerator(model)
        self.cache = self.generator.prepare(enrollment, self.viewport)
        self.guides = inputs.prepare_guides(enrollment)
        self.mesh = pose_head(model, enrollment, enrollment.motion, self.viewport)
        self.background = make_background(enrollment, self.viewport)
        self.landmarks_hu = model.landmarks(enrollment.neutral_hu)

    def arrays(self) -> Arrays:
        """What the photo itself gives: `s_…` of one row."""
        gbuffer = rasterise(self.model, self.mesh, self.viewport, self.generator.config.grid_px)
        crops = inputs.photo_crops(self.enrollment, self.viewport, self.mesh)
        return {
            "s_photo": inputs.photo_input(self.enrollment, self.viewport, self.guides, gbuffer, self.window),
            "s_background": inputs.low_picture(self.background, self.window),
            "s_mouth": crops[0],
            "s_eyes": crops[1],
        }

    def motion(
        self, fit: ExpressionFit, points: F64, scores: F64, rest: F64, size_px: tuple[int, int]
    ) -> Motion:
        """Motion of a frame of the same camera against this photo's own neutral. Raises ValueError."""
        frame = fit_driver(fit, self.landmarks_hu, points.astype(np.float32), scores.astype(np.float32))
        reached = frame.pose.apply(self.landmarks_hu + fit.offset(frame.expression))
        missed = np.linalg.norm((reached - points)[:468, :2], axis=1).mean()
        if missed > MISFIT * np.ptp(points[:, 1]):
            raise ValueError("the landmarks are no face that the model can make")
        rotation, translation = Camera(*size_px).from_similarity(frame.pose)
        return Motion(
            expression=frame.expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=measure_gaze(frame.unposed_hu),
            closure=measure_closure(frame.unposed_hu, rest),
        )

    def pair(self, motion: Motion, truth: U8) -> Arrays:
        """`t_…` of one row: the geometric picture and its guides for `motion`, and the frame `truth` (H, W, 3)."""
        mesh = pose_head(self.model, self.enrollment, motion, self.viewport)
        gbuffer = rasterise(self.model, mesh, self.viewport, self.generator.config.grid_px)
        layers = self.generator.draw(self.cache, gbuffer, motion)
        size = (self.viewport.width_px, self.viewport.height_px)
        target = resample(truth, self.viewport, 0, size)
        matte = cut_out(truth, self.enrollment.crop_px).alpha
        guide, part = inputs.guides(self.guides, gbuffer, self.window)
        mouth = inputs.mouth_box(mesh)
        eyes = inputs.eye_boxes(mesh)
        mirrored = (False, True)
        out: Arrays = {
            "t_picture": inputs.low_picture(layers.picture, self.window),
            "t_truth": inputs.low_picture(target, self.window),
            "t_matte": inputs.low_picture(resample(matte, self.viewport, 0, size), self.window),
            "t_guide": guide,
            "t_part": part,
            "t_where": inputs.where_in_photo(layers.flow, gbuffer, self.window).astype(np.float16),
            "t_motion": inputs.motion_vector(self.enrollment.motion, motion, self.mesh.pose, mesh.pose),
        }
        for name, image in (("picture", layers.picture[..., :3]), ("truth", target)):
            image = np.ascontiguousarray(image)
            out[f"t_mouth_{name}"] = inputs.cut_box(image, mouth, inputs.MOUTH_PX)
            out[f"t_eyes_{name}"] = np.stack(
                [
                    inputs.cut_box(image, b, inputs.EYE_PX, mirrored=m)
                    for b, m in zip(eyes, mirrored, strict=True)
                ]
            )
        out["t_mouth_part"] = inputs.part_crop(gbuffer, mouth, inputs.MOUTH_PX)
        out["t_eyes_part"] = np.stack(
            [
                inputs.part_crop(gbuffer, b, inputs.EYE_PX, mirrored=m)
                for b, m in zip(eyes, mirrored, strict=True)
            ]
        )
        # crop pixels → window, as grid_sample counts: where D must be looked up for the crops
        out["t_mouth_place"] = inputs.place_in_window(mouth, self.window, inputs.MOUTH_PX)
        out["t_eyes_place"] = np.stack(
            [
                inputs.place_in_window(b, self.window, inputs.EYE_PX, mirrored=m)
                for b, m in zip(eyes, mirrored, strict=True)
            ]
        )
        return out


def png(image: U8) -> bytes:
    """Picture (H, W, 3) → PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return out.getvalue()


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


def rest_openings(model: HeadModel, item: Tracked) -> F64:
    """(3,) how open mouth and eyes are in the calmest quarter of a clip."""
    mean = model.landmarks(model.mean_hu)
    calm = np.argsort(item.scores[:, RESTLESS].sum(1))[: max(1, len(item.scores) // 4)]
    own = [
        openings(align_similarity(mean, item.points_px[k], model.fit_weight).invert(item.points_px[k]))
        for k in calm
    ]
    return np.asarray(np.median(own, 0), np.float64)
