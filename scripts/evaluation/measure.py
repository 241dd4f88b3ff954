"""One take, one generator: draw the shots, look at them as a tracker would, and measure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment, head_model_of
from engines.geometry import F32, F64, rotation_matrix, rotation_vector
from engines.head.fit import LIPS_CLOSED, fit_source
from engines.motion import EXPRESSION_COUNT
from engines.renderer import Renderer
from scripts.evaluation import metrics
from scripts.evaluation.eye import Eye, Face
from scripts.evaluation.features import distances, pooled
from scripts.evaluation.readback import read_back, readings
from scripts.evaluation.segment import cut_all
from scripts.evaluation.take import Protocol, Shot, Take, bin_of
from scripts.evaluation.truth import SEGMENTED, Instruments, Truth, identity_shots
from scripts.evaluation.variants import DRIVER_IDENTITY, SOURCE_COPY
from scripts.people.recognition import cosine

U8 = NDArray[np.uint8]
Kind = Literal["frame", "run", "take"]


@dataclass(frozen=True, slots=True)
class Row:
    """The measures of one frame, of one run of frames (`frame` is its first), or of a whole take.

    A take has no `turn_deg` (NaN) and no `bin`: it has heads at all angles.
    """

    protocol: Protocol
    generator: str
    take: str
    subject: str
    kind: Kind
    frame: int
    turn_deg: float
    values: Mapping[str, float]

    @property
    def bin(self) -> str:
        """The rotation bin."""
        return bin_of(self.turn_deg) if np.isfinite(self.turn_deg) else ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A take as one generator draws it: pictures by frame number, and what each cost."""

    pictures: Mapping[int, U8]
    generate_ms: tuple[float, ...]
    frame_ms: tuple[float, ...]


def draw(take: Take, generator: str, size_px: int) -> Drawn:
    """Draw every shot; the source copy is the photo itself and costs nothing."""
    if generator == SOURCE_COPY:
        return Drawn({s.number: take.photo for s in take.shots}, (), ())
    renderer = Renderer(take.enrollment, generator=generator, framing="head", size_px=size_px)
    if generator.endswith(DRIVER_IDENTITY) and take.rest is not None:
        # all that is prepared once stays the photo's; the head posed from here on is the driver's
        renderer.enrollment = replace(take.enrollment, neutral_hu=driver_head(take.enrollment, take.rest))
    renderer.wait_until_compiled()
    pictures: dict[int, U8] = {}
    generate: list[float] = []
    whole: list[float] = []
    for shot in take.shots:
        stamps: dict[str, float] = {}

        def mark(stage: str, stamps: dict[str, float] = stamps) -> None:
            stamps[stage] = time.perf_counter()

        before, after = take.around(shot)
        renderer.forget()
        for motion in before:
            renderer.see(motion)
        stamps["start"] = time.perf_counter()
        pictures[shot.number] = renderer.render(shot.motion, mark, after)
        generate.append(1000 * (stamps["generated"] - stamps["rasterised"]))
        whole.append(1000 * (stamps["composited"] - stamps["start"]))
    return Drawn(pictures, tuple(generate), tuple(whole))


def driver_head(enrollment: Enrollment, rest: DriverNeutral) -> F32:
    """(N, 3) the driver's head without expression, on the photo's head model: α fitted to their landmarks at rest."""
    model = head_model_of(enrollment)
    identity = fit_source(model, rest.mesh_hu, np.zeros(EXPRESSION_COUNT, np.float32)).identity
    return (model.mean_hu + np.tensordot(identity, model.identity_hu, 1)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one take and generator, and the pooled features (N, 320) of its pictures by the name of each FID."""

    rows: Sequence[Row]
    pools: Mapping[str, F64]


def measure(take: Take, generator: str, drawn: Drawn, truth: Truth, tools: Instruments) -> Measured:
    """All measures of one take as one generator drew it."""
    pictures = [drawn.pictures[s.number] for s in take.apart]
    features = tools.perceptual.features(pictures)
    apart = distances(features, truth.features) if take.has_truth else [np.nan] * len(pictures)
    pools = {name: pooled(features) for name in truth.pools if name != SEGMENTED}
    recognised = {s.number for s in identity_shots(take)}
    segmented = _segmented(take, pictures, truth, tools, pools)
    rows: list[Row] = []

    def add(kind: Kind, frame: int, turn_deg: float, values: Mapping[str, float]) -> None:
        rows.append(Row(take.protocol, generator, take.name, take.subject, kind, frame, turn_deg, values))

    for shot, lpips, cut in zip(take.apart, apart, segmented, strict=True):
        picture = drawn.pictures[shot.number]
        face = tools.eye.face(picture, take.neutral_hu)
        values = _seen(take, shot, face, truth, tools.eye)
        if face is not None:
            values |= _judged(take, shot, picture, truth, tools)
        if shot.number in recognised:
            values |= _identity(take, shot, picture, face, truth, tools.eye)
        if take.has_truth:
            values |= _pixels(shot, picture, truth.faces[shot.number]) | {"lpips": lpips} | cut
            values["akd"] = _akd(face, truth.faces[shot.number], picture.shape[0])
        add("frame", shot.number, shot.turn_deg, values)
    for run in take.runs:
        turn = float(np.mean([s.turn_deg for s in run]))
        add("run", run[0].number, turn, _run(take, run, drawn, truth, tools.eye))
    add("take", 0, float("nan"), _read_back(take, drawn, truth, tools.eye))
    return Measured(rows, pools)


def _segmented(
    take: Take, pictures: Sequence[U8], truth: Truth, tools: Instruments, pools: dict[str, F64]
) -> list[dict[str, float]]:
    """The whole picture's figures of the person alone, and the features of its FID into `pools`."""
    if truth.segmented is None:
        return [{} for _ in pictures]
    theirs = truth.segmented
    ours = cut_all(pictures, theirs.cuts)
    features = tools.perceptual.features(ours)
    if SEGMENTED in truth.pools:
        pools[SEGMENTED] = pooled(features)
    return [
        {
            "seg_l1": metrics.l1(a, b),
            "seg_psnr": metrics.psnr_db(a, b),
            "seg_ssim": metrics.ssim(a, b),
            "seg_lpips": lpips,
        }
        for a, b, lpips in zip(ours, theirs.pictures, distances(features, theirs.features), strict=True)
    ]


def _judged(take: Take, shot: Shot, picture: U8, truth: Truth, tools: Instruments) -> dict[str, float]:
    """AED and APD by each of the second judges."""
    found = tools.eye.detect(picture)
    out: dict[str, float] = {}
    for name, sight in truth.sights.items():
        theirs = sight.theirs.get(shot.number)
        if found is None or theirs is None:
            continue
        ours = sight.look(picture, found)
        if sight.rests is None:
            expressions = ours.expression, theirs.expression
            turns = ours.rotation_rad, theirs.rotation_rad
        else:
            own, rest = sight.rests
            expressions = ours.expression - own.expression, theirs.expression - rest.expression
            turns = (
                _turn(ours.rotation_rad, own.rotation_rad),
                _turn(theirs.rotation_rad, rest.rotation_rad),
            )
        out[f"aed_{name}"] = metrics.aed(*expressions)
        offset, true_offset = (sight.judge.offset(e) for e in expressions)
        out[f"aed_shape_{name}"] = metrics.aed_shape_percent(offset, true_offset, take.neutral_hu)
        out[f"apd_{name}"] = metrics.apd_deg(*turns)
    return out


def _read_back(take: Take, drawn: Drawn, truth: Truth, eye: Eye) -> dict[str, float]:
    """Whether mouth and lids follow the driver's, over all shots of the take."""
    rest = take.neutral_hu if take.rest is None else take.rest.mesh_hu
    ours = [eye.face(drawn.pictures[s.number], take.neutral_hu) for s in take.shots]
    theirs = [truth.faces[s.number] for s in take.shots]
    return read_back(
        [None if f is None else readings(f.unposed_hu, take.neutral_hu) for f in ours],
        [None if f is None else readings(f.unposed_hu, rest) for f in theirs],
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
    wanted = truth.descriptors.get(shot.number, {}) if take.has_truth else truth.photo_descriptors
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
        if take.has_truth:
            out["jitter_error"] = metrics.landmark_jitter_percent(mine, driver)
    own = metrics.flicker(pictures)
    out["flicker_raw"] = own
    if take.has_truth:
        out["flicker"] = own - metrics.flicker([s.driver for s in run])
    return out
