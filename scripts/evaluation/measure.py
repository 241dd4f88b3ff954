"""One take, one generator: draw the shots, look at them as a tracker would, and measure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.geometry import F64, rotation_matrix, rotation_vector
from engines.head.fit import LIPS_CLOSED, ExpressionFit, fit_driver, openings
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.head.model import HeadModel
from engines.renderer import Renderer
from scripts.evaluation import metrics
from scripts.evaluation.clips import spread_indices
from scripts.evaluation.features import PerceptualMeasure, distances, pooled
from scripts.evaluation.protocols import Protocol, Shot, Take, bin_of
from scripts.evaluation.variants import SOURCE_COPY
from scripts.people.recognition import Recogniser, cosine

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
IDENTITY_FRAMES = 12


@dataclass(frozen=True, slots=True)
class Row:
    """The measures of one frame, or of one run of frames (`frame` is its first); `bin` is the rotation bin."""

    protocol: Protocol
    generator: str
    take: str
    subject: str
    kind: str
    frame: int
    turn_deg: float
    values: Mapping[str, float]

    @property
    def bin(self) -> str:
        """The rotation bin."""
        return bin_of(self.turn_deg)


@dataclass(frozen=True, slots=True)
class Face:
    """A face as a tracker sees it in a picture: landmarks (478, 3), β (52,), rotation vector (3,), lip gap."""

    points_px: F32
    expression: F32
    rotation_rad: F64
    lip_gap: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A take as one generator draws it: pictures by frame number, and what each cost."""

    pictures: Mapping[int, U8]
    generate_ms: tuple[float, ...]
    frame_ms: tuple[float, ...]


class Eye:
    """Sees faces in pictures: always the same detector on single pictures, so that it favours nobody."""

    def __init__(self, model: HeadModel, recognisers: Sequence[Recogniser]) -> None:
        self._fit = ExpressionFit(model)
        self._detector = LandmarkDetector(video=False)
        self._seen: dict[bytes, FaceLandmarks | None] = {}
        self._described: dict[bytes, dict[str, F32]] = {}
        self._recognisers = recognisers

    def detect(self, picture: U8) -> FaceLandmarks | None:
        """The largest face; each picture is looked at once."""
        key = _key(picture)
        if key not in self._seen:
            faces = self._detector.detect(picture)
            self._seen[key] = faces[0] if faces else None
        return self._seen[key]

    def forget(self) -> None:
        """Between takes: nothing seen before comes again."""
        self._seen.clear()
        self._described.clear()

    def face(self, picture: U8, neutral_hu: F64) -> Face | None:
        """The face, fitted against its person's neutral landmarks (478, 3); None when none is found."""
        found = self.detect(picture)
        if found is None:
            return None
        try:
            fitted = fit_driver(self._fit, neutral_hu, found.points_px, found.scores)
        except ValueError:  # landmarks that span nothing: as good as no face
            return None
        gap = float(openings(fitted.unposed_hu)[0])
        return Face(found.points_px, fitted.expression, rotation_vector(fitted.pose.rotation), gap)

    def offset(self, expression: F32) -> F64:
        """`B β`: (478, 3), what an expression (52,) does to the landmarks in head units."""
        return self._fit.offset(expression)

    def descriptors(self, picture: U8, face: Face | None) -> dict[str, F32]:
        """Unit descriptors by net; none without a face."""
        if face is None:
            return {}
        key = _key(picture)
        if key not in self._described:
            self._described[key] = {
                r.spec.name: r.describe(picture, face.points_px) for r in self._recognisers
            }
        return self._described[key]

    def close(self) -> None:
        """Free the detector."""
        self._detector.close()


def _key(picture: U8) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=16).digest()


def identity_shots(take: Take) -> list[Shot]:
    """The shots on which CSIM is measured: up to twelve of them, for the nets cost more than all the rest."""
    return [take.apart[k] for k in spread_indices(len(take.apart), IDENTITY_FRAMES)]


def draw(take: Take, generator: str, size_px: int) -> Drawn:
    """Draw every shot; the source copy is the photo itself and costs nothing."""
    if generator == SOURCE_COPY:
        return Drawn({s.number: take.photo for s in take.shots}, (), ())
    renderer = Renderer(take.enrollment, generator=generator, framing="head", size_px=size_px)
    renderer.wait_until_compiled()
    pictures: dict[int, U8] = {}
    generate: list[float] = []
    whole: list[float] = []
    for shot in take.shots:
        stamps: dict[str, float] = {"start": time.perf_counter()}

        def mark(stage: str, stamps: dict[str, float] = stamps) -> None:
            stamps[stage] = time.perf_counter()

        pictures[shot.number] = renderer.render(shot.motion, mark)
        generate.append(1000 * (stamps["generated"] - stamps["rasterised"]))
        whole.append(1000 * (stamps["composited"] - stamps["start"]))
    return Drawn(pictures, tuple(generate), tuple(whole))


@dataclass(frozen=True, slots=True)
class Truth:
    """What does not depend on the generator: the driver's faces by frame number, the photo's face, features."""

    faces: Mapping[int, Face | None]
    photo: Face | None
    photo_descriptors: Mapping[str, F32]
    descriptors: Mapping[int, Mapping[str, F32]]
    features: Sequence[Sequence[Tensor]]


def look_at_truth(take: Take, eye: Eye, perceptual: PerceptualMeasure) -> Truth:
    """Track the driver's pictures and the photo, once per take."""
    neutral = take.neutral_hu if take.rest is None else take.rest.mesh_hu
    faces = {s.number: eye.face(s.driver, neutral) for s in take.shots}
    photo = eye.face(take.photo, take.neutral_hu)
    own = take.protocol == "self"
    return Truth(
        faces,
        photo,
        eye.descriptors(take.photo, photo),
        {s.number: eye.descriptors(s.driver, faces[s.number]) for s in identity_shots(take)} if own else {},
        perceptual.features([s.driver for s in take.apart]) if own else [],
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one take and generator, and (self) pooled features of its pictures and of the truth for FID."""

    rows: Sequence[Row]
    features: F64
    true_features: F64


def measure(
    take: Take, generator: str, drawn: Drawn, truth: Truth, eye: Eye, perceptual: PerceptualMeasure
) -> Measured:
    """All measures of one take as one generator drew it."""
    features = perceptual.features([drawn.pictures[s.number] for s in take.apart]) if truth.features else []
    apart = distances(features, truth.features) if features else [np.nan] * len(take.apart)
    recognised = {s.number for s in identity_shots(take)}
    rows: list[Row] = []
    for shot, lpips in zip(take.apart, apart, strict=True):
        picture = drawn.pictures[shot.number]
        face = eye.face(picture, take.neutral_hu)
        values = _seen(take, shot, face, truth, eye)
        if shot.number in recognised:
            values |= _identity(take, shot, picture, face, truth, eye)
        if take.protocol == "self":
            values |= _pixels(shot, picture, truth.faces[shot.number]) | {"lpips": lpips}
            values["akd"] = _akd(face, truth.faces[shot.number], picture.shape[0])
        rows.append(
            Row(
                take.protocol, generator, take.name, take.subject, "frame", shot.number, shot.turn_deg, values
            )
        )
    for run in take.runs:
        turn = float(np.mean([s.turn_deg for s in run]))
        values = _run(take, run, drawn, truth, eye)
        rows.append(
            Row(take.protocol, generator, take.name, take.subject, "run", run[0].number, turn, values)
        )
    none = np.zeros((0, 0))
    return Measured(
        rows, pooled(features) if features else none, pooled(truth.features) if features else none
    )


def _pixels(shot: Shot, picture: U8, true_face: Face | None) -> dict[str, float]:
    out = {
        "l1": metrics.l1(picture, shot.driver),
        "psnr": metrics.psnr_db(picture, shot.driver),
        "ssim": metrics.ssim(picture, shot.driver),
    }
    if true_face is not None:
        size = picture.shape[0]
        head = metrics.head_mask(true_face.points_px, size)
        out["head_l1"] = metrics.l1(picture, shot.driver, head)
        out["head_psnr"] = metrics.psnr_db(picture, shot.driver, head)
        out["mouth"] = metrics.l1(picture, shot.driver, metrics.mouth_mask(true_face.points_px, size))
        out["eyes"] = metrics.l1(picture, shot.driver, metrics.eye_mask(true_face.points_px, size))
    return out


def _akd(face: Face | None, true_face: Face | None, size_px: int) -> float:
    if face is None or true_face is None:
        return float("nan")
    return metrics.akd_px(face.points_px, true_face.points_px, size_px)


def _seen(take: Take, shot: Shot, face: Face | None, truth: Truth, eye: Eye) -> dict[str, float]:
    """Expression, pose and lips as tracked in the drawn picture against the driver's."""
    out = {"unseen": 100.0 * (face is None)}
    theirs = truth.faces[shot.number]
    if face is None or theirs is None:
        return out
    if take.rest is None:
        expressions = face.expression, theirs.expression
        turns = face.rotation_rad, theirs.rotation_rad
    elif truth.photo is not None:
        # both told from their own rest: the photo as it is, and the driver's neutral
        own, rest = truth.photo, take.rest.motion
        expressions = face.expression - own.expression, theirs.expression - rest.expression
        turns = (
            _turn(face.rotation_rad, own.rotation_rad),
            _turn(theirs.rotation_rad, np.asarray(rest.rotation_rad, np.float64)),
        )
    else:
        return out
    out["aed"] = metrics.aed(*expressions)
    offset, true_offset = (eye.offset(e.astype(np.float32)) for e in expressions)
    out["aed_shape"] = metrics.aed_shape_percent(offset, true_offset, take.neutral_hu)
    out["apd"] = metrics.apd_deg(*turns)
    if theirs.lip_gap <= LIPS_CLOSED:
        out["lips"] = 100 * abs(face.lip_gap - theirs.lip_gap)
    return out


def _turn(now: F64, rest: F64) -> F64:
    return rotation_vector(rotation_matrix(now) @ rotation_matrix(rest).T)


def _identity(
    take: Take, shot: Shot, picture: U8, face: Face | None, truth: Truth, eye: Eye
) -> dict[str, float]:
    """Cosine to the true picture (self) or to the photo (cross), as the papers have it."""
    wanted = truth.descriptors.get(shot.number, {}) if take.protocol == "self" else truth.photo_descriptors
    mine = eye.descriptors(picture, face)
    return {f"csim_{net}": cosine(mine[net], wanted[net]) for net in wanted if net in mine}


def _run(take: Take, run: Sequence[Shot], drawn: Drawn, truth: Truth, eye: Eye) -> dict[str, float]:
    """What trembles more than the driver does."""
    pictures = [drawn.pictures[s.number] for s in run]
    out: dict[str, float] = {}
    ours = [eye.face(p, take.neutral_hu) for p in pictures]
    theirs = [truth.faces[s.number] for s in run]
    if all(ours) and all(theirs):
        mine, driver = (
            np.stack([f.points_px for f in faces if f]).astype(np.float64) for faces in (ours, theirs)
        )
        out["shake"] = metrics.landmark_shake_percent(mine)
        out["jitter"] = out["shake"] - metrics.landmark_shake_percent(driver)
        if take.protocol == "self":
            out["jitter_error"] = metrics.landmark_jitter_percent(mine, driver)
    own = metrics.flicker(pictures)
    out["flicker_raw"] = own
    if take.protocol == "self":
        out["flicker"] = own - metrics.flicker([s.driver for s in run])
    return out
