"""How well the head model fits photos of people it has not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from calibration.enroll import person_of
from calibration.face import head_crop
from engines.enrollment import Enrollment
from engines.geometry import F64, Camera
from engines.head.fit import SURFACE, SourceFit, fit_source, measure_gaze
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.raster.pose import photo_viewport, pose_head
from scripts.measure.figures import Figure, Section, column, share_percent, worst
from scripts.people.tracks import Tracked

SIGMAS = 3.0


def error_percent(drawn_px: F64, landmarks_px: F64) -> float:
    """Mean distance in the picture of the 468 surface landmarks (478, ≥ 2), in % of the face (10 … 152)."""
    face = float(np.linalg.norm(landmarks_px[10, :2] - landmarks_px[152, :2]))
    apart = np.linalg.norm(drawn_px[:SURFACE, :2] - landmarks_px[:SURFACE, :2], axis=1)
    return float(100 * apart.mean() / face)


def fitted_px(model: HeadModel, fit: SourceFit) -> F64:
    """The model's own landmarks (478, 3), without δ, in photo pixels."""
    shape = model.decode(model.shape(fit.identity), fit.expression)
    return fit.pose.apply(model.landmarks(shape))


def bare_enrollment(model: HeadModel, tracked: Tracked, fit: SourceFit) -> Enrollment:
    """What enrolling makes of a portrait's landmarks, without matte, hair and UV maps; the photo is black."""
    width, height = tracked.size_px
    landmarks = tracked.points_px[0].astype(np.float32)
    rotation, translation = Camera(width, height).from_similarity(fit.pose)
    none = np.zeros((1, 1, 3), np.uint8)
    return Enrollment(
        name=tracked.name,
        created_utc="",
        photo_sha256="",
        photo=np.zeros((height, width, 3), np.uint8),
        crop_px=head_crop(landmarks, width, height),
        landmarks_px=landmarks,
        identity=fit.identity,
        neutral_hu=person_of(model, fit),
        motion=Motion(
            expression=fit.expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=measure_gaze(fit.pose.invert(landmarks)),
        ),
        uv_position_px=np.zeros((1, 1, 2), np.float32),
        uv_visibility=none[..., 0],
        uv_colour=none,
        uv_pncc=none,
        matte=none[..., 0],
        plate=none,
    )


def measure_fit(model: HeadModel, portraits: Sequence[Tracked]) -> Section:
    """Landmark error before and after δ, and how plausible α and β are, over all `portraits`."""
    items: dict[str, dict[str, float]] = {}
    alphas: list[F64] = []
    by_person: dict[str, list[float]] = defaultdict(list)
    low, high = np.inf, -np.inf
    for tracked in tqdm(portraits, desc="fit"):
        landmarks = tracked.points_px[0]
        fit = fit_source(model, landmarks, tracked.scores[0].astype(np.float32))
        person = bare_enrollment(model, tracked, fit)
        mesh = pose_head(model, person, person.motion, photo_viewport(person))
        alpha = np.abs(fit.identity.astype(np.float64))
        alphas.append(alpha)
        by_person[tracked.subject].append(float(alpha.max()))
        low, high = min(low, float(fit.expression.min())), max(high, float(fit.expression.max()))
        after = mesh.landmarks_px.astype(np.float64)
        items[tracked.name] = {
            "before": error_percent(fitted_px(model, fit), landmarks),
            "after": error_percent(after, landmarks),
            "after_max": float(
                100
                * np.linalg.norm(after[:SURFACE, :2] - landmarks[:SURFACE, :2], axis=1).max()
                / np.linalg.norm(landmarks[10, :2] - landmarks[152, :2])
            ),
            "alpha_max": float(alpha.max()),
        }
    every = np.array(alphas)
    people = [max(v) <= SIGMAS for v in by_person.values()]
    before, after = column(items, "before"), column(items, "after")
    figures = [
        Figure(key="portraits", label="held-out portraits", value=len(items), at_least=30,
               note=f"{len(by_person)} people"),
        Figure(key="before", label="landmark error before δ, mean", value=before.mean(), unit="% of face",
               at_most=0.6, note=f"worst: {worst(items, 'before')}"),
        Figure(key="before_p95", label="the same, p95 of portraits", value=float(np.percentile(before, 95)),
               unit="% of face"),
        Figure(key="after", label="landmark error after δ, mean", value=after.mean(), unit="% of face",
               at_most=0.15, note=f"worst: {worst(items, 'after')}"),
        Figure(key="after_p95", label="the same, p95 of portraits", value=float(np.percentile(after, 95)),
               unit="% of face"),
        Figure(key="after_max", label="the single worst landmark after δ, median of portraits",
               value=float(np.median(column(items, "after_max"))), unit="% of face",
               note=f"worst: {worst(items, 'after_max')}"),
        Figure(key="people_in_3_sigma", label=f"people with every |α| ≤ {SIGMAS:g} σ",
               value=share_percent(people), unit="%", at_least=95,
               note=f"beyond: {worst(items, 'alpha_max', 5)}"),
        Figure(key="alpha_in_3_sigma", label=f"entries of α within {SIGMAS:g} σ",
               value=share_percent((every <= SIGMAS).ravel()), unit="%", at_least=95),
        Figure(key="alpha_rms", label="root mean square of α", value=float(np.sqrt((every**2).mean())),
               unit="σ"),
        Figure(key="beta_low", label="least β", value=low, at_least=0.0),
        Figure(key="beta_high", label="greatest β", value=high, at_most=1.0),
    ]  # fmt: skip
    return Section("fit", figures, items)
