"""Who drives whose photo, and how: takes of self-reenactment and of cross-identity driving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.enroll import enroll
from calibration.face import head_crop
from calibration.neutral import DriverNeutral
from engines.enrollment import Enrollment
from engines.errors import DriverError, PhotoError, VisavisError
from engines.geometry import F64, Camera
from engines.head.fit import ExpressionFit, fit_driver, measure_closure, measure_gaze, openings
from engines.head.landmarks import FaceLandmarks
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.gbuffer import Viewport
from engines.raster.pose import head_viewport
from engines.raster.resample import resample
from engines.retarget import Controls, retarget
from scripts.evaluation.clips import Chosen, choose_frames, from_row, read_frames, resized, spread_indices
from scripts.evaluation.take import Protocol, Shot, Take, turn_deg
from scripts.people.tracks import MIN_FRAMES, Tracked
from streamer.drive.trackers.mediapipe import MediaPipeTracker

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]
PHOTO_ROWS = (0, 5, 10, 15, 20, 25)
# frames tried for the backward photo: the one turned most from the forward photo, then less and less
BACK_PHOTO_SHARES = (1.0, 0.9, 0.75, 0.5)
CALIBRATION_ROUNDS = 2  # once to take the driver's neutral, once to drive with it


def png_of(picture: U8) -> bytes:
    """RGB picture (H, W, 3) → PNG file: a photo without loss."""
    out = BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()


def absolute_motions(model: HeadModel, neutral_hu: F64, clip: Tracked) -> list[Motion]:
    """Motion of each row told in the clip's own camera, fitted to its landmarks against known neutral landmarks.

    What the tracker does live, without filters, the person's shape being known from the photo: pose and β by
    `fit_driver` from frame to frame, gaze held through blinks, lids against their median opening in the clip.
    """
    fit = ExpressionFit(model)
    camera = Camera(*clip.size_px)
    last: F32 | None = None
    fitted: list[tuple[Motion, F64]] = []
    gaze = np.zeros((2, 2), np.float32)
    for points, scores, number in zip(clip.points_px, clip.scores, clip.frame, strict=True):
        frame = fit_driver(fit, neutral_hu, points.astype(np.float32), scores.astype(np.float32), last)
        last = frame.expression
        rotation, translation = camera.from_similarity(frame.pose)
        if float(scores[_BLINKS].max()) < 0.5:
            gaze = measure_gaze(frame.unposed_hu)
        motion = Motion(
            time_s=float(number) / 25,
            expression=frame.expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=gaze.copy(),
        )
        fitted.append((motion, frame.unposed_hu))
    rest = np.median([openings(unposed) for _, unposed in fitted], 0)
    return [replace(motion, closure=measure_closure(unposed, rest)) for motion, unposed in fitted]


def first_photo(clip: Tracked) -> tuple[Enrollment, Tracked]:
    """The first of the clip's frames that can be enrolled, and the clip from there on.

    A clip may begin in a blink: then a frame of its first second serves. Raises PhotoError when none does.
    """
    rows = [row for row in PHOTO_ROWS if row < len(clip.frame) - MIN_FRAMES] or [0]
    enrollment, row = _enroll_one(clip, rows)
    return enrollment, from_row(clip, row)


def _enroll_one(clip: Tracked, rows: Sequence[int]) -> tuple[Enrollment, int]:
    """The first of these rows that can be enrolled. Raises the last one's PhotoError when none can."""
    pictures = read_frames(clip, rows)
    for row in rows:
        try:
            return enroll(png_of(pictures[row]), name=clip.name), row
        except PhotoError:
            if row == rows[-1]:
                raise
    raise AssertionError("there is always a row to try")


def self_take(model: HeadModel, clip: Tracked, frames: int, size_px: int) -> Take:
    """A photo out of the clip's beginning, driven by the frames that follow.

    Raises PhotoError when it cannot be enrolled.
    """
    enrollment, clip = first_photo(clip)
    return _own_take("self", model, clip, enrollment, choose_frames(clip.frame, frames), size_px)


def back_take(model: HeadModel, forward: Take, clip: Tracked, size_px: int) -> Take:
    """The other way round: a photo out of the frames that are turned most from the forward photo, which drive it.

    `clip` is `forward`'s. The very frames drive that drove forward, and the one that was the photo then; no runs.
    Raises PhotoError when none of the frames that are tried can be enrolled.
    """
    clip = from_row(clip, int(np.flatnonzero(clip.frame == forward.photo_number)[0]))
    own = resized(clip, (forward.enrollment.photo.shape[1], forward.enrollment.photo.shape[0]))
    motions = absolute_motions(model, forward.neutral_hu, own)
    turns = [turn_deg(m.rotation_rad, forward.enrollment.motion.rotation_rad) for m in motions]
    order = np.argsort(turns, kind="stable")
    rows = list(dict.fromkeys(int(order[int(share * (len(order) - 1))]) for share in BACK_PHOTO_SHARES))
    enrollment, row = _enroll_one(clip, rows)
    driving = {0, *(int(np.flatnonzero(clip.frame == s.number)[0]) for s in forward.apart)} - {row}
    return _own_take("back", model, clip, enrollment, Chosen(tuple(sorted(driving)), ()), size_px, row)


def _own_take(
    protocol: Protocol,
    model: HeadModel,
    clip: Tracked,
    enrollment: Enrollment,
    chosen: Chosen,
    size_px: int,
    photo_row: int = 0,
) -> Take:
    """A photo of the clip driven by its rows `chosen`: absolute motion, told in the photo's own camera."""
    pictures = read_frames(clip, chosen.rows)
    height, width = enrollment.photo.shape[:2]
    clip = resized(clip, (width, height))
    viewport = head_viewport(enrollment, size_px)
    neutral = np.asarray(model.landmarks(enrollment.neutral_hu), np.float64)
    motions = absolute_motions(model, neutral, clip)

    def shot(row: int) -> Shot:
        picture = pictures[row]
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        motion = motions[row]
        return Shot(
            int(clip.frame[row]),
            motion,
            turn_deg(motion.rotation_rad, enrollment.motion.rotation_rad),
            resample(picture, viewport, 0, (size_px, size_px)),
        )

    take = _take(protocol, clip.name, clip, enrollment, viewport, neutral, chosen, shot)
    return replace(take, photo_number=int(clip.frame[photo_row]), motions=tuple(motions))


def cross_take(
    model: HeadModel,
    clip: Tracked,
    enrollment: Enrollment,
    frames: int,
    size_px: int,
    photo_clip: Tracked | None = None,
) -> Take:
    """A photo driven by another person's clip as in a call: relative motion, no filters.

    `photo_clip` is the clip that the photo is from. Raises DriverError when the clip shows no driver.
    """
    chosen = choose_frames(clip.frame, frames, runs=1)
    pictures = read_frames(clip, chosen.rows)
    viewport = head_viewport(enrollment, size_px)
    neutral = np.asarray(model.landmarks(enrollment.neutral_hu), np.float64)
    seen, rest = driven(model, clip)
    motions = {row: retarget(m, rest.motion, enrollment.motion, Controls()) for row, m in seen.items()}
    left, top, side = head_crop(clip.points_px[0].astype(np.float32), *clip.size_px)
    driver_viewport = Viewport(left, top, size_px / side, size_px, size_px)

    def shot(row: int) -> Shot:
        motion = motions[row]
        return Shot(
            int(clip.frame[row]),
            motion,
            turn_deg(motion.rotation_rad, enrollment.motion.rotation_rad),
            resample(pictures[row], driver_viewport, 0, (size_px, size_px)),
        )

    name = f"{clip.name}+{enrollment.name}"
    take = _take("cross", name, clip, enrollment, viewport, neutral, chosen, shot, rest)
    others = () if photo_clip is None else _like_photo(photo_clip, enrollment, viewport, frames)
    return replace(
        take, sources=(take.photo, *others), motions=tuple(motions[row] for row in sorted(motions))
    )


def _like_photo(clip: Tracked, enrollment: Enrollment, viewport: Viewport, frames: int) -> list[U8]:
    """Frames spread over the clip that a photo is from, cut as the drawn pictures of the photo are."""
    height, width = enrollment.photo.shape[:2]
    out: list[U8] = []
    for _, picture in sorted(read_frames(clip, choose_frames(clip.frame, frames, runs=0).rows).items()):
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
        out.append(resample(picture, viewport, 0, (viewport.width_px, viewport.height_px)))
    return out


def _take(
    protocol: Protocol,
    name: str,
    clip: Tracked,
    enrollment: Enrollment,
    viewport: Viewport,
    neutral_hu: F64,
    chosen: Chosen,
    shot: Callable[[int], Shot],
    rest: DriverNeutral | None = None,
) -> Take:
    made = {row: shot(row) for row in chosen.rows}
    return Take(
        protocol,
        name,
        clip.subject,
        enrollment,
        viewport,
        resample(enrollment.photo, viewport, 0, (viewport.width_px, viewport.height_px)),
        neutral_hu,
        tuple(made[row] for row in chosen.apart),
        tuple(tuple(made[row] for row in run) for run in chosen.runs),
        rest,
    )


def driven(model: HeadModel, clip: Tracked) -> tuple[dict[int, Motion], DriverNeutral]:
    """Motion of each row by the live tracker, where it finds one, and the driver's neutral, taken as in a call.

    The clip runs twice: the neutral is taken first, then it drives.
    """
    tracker = MediaPipeTracker(model)
    out: dict[int, Motion] = {}
    for _ in range(CALIBRATION_ROUNDS):
        for row, number in enumerate(clip.frame):
            face = FaceLandmarks(clip.points_px[row].astype(np.float32), clip.scores[row].astype(np.float32))
            track = tracker.fit(face, clip.size_px, float(number) / 25)
            if track.motion is not None:
                out[row] = track.motion
        neutral = tracker.driver_neutral
        if neutral is not None:
            tracker.use_neutral(neutral, for_good=True)
    rest = tracker.driver_neutral
    tracker.close()
    if rest is None:
        raise DriverError(f"{clip.name} shows no driver whose neutral could be taken; leave it out")
    return out, rest


@dataclass(frozen=True, slots=True)
class Pairing:
    """A driver's clip and the photo that it drives: a portrait file, or the first frame of another clip."""

    clip: Tracked
    name: str
    portrait: Path | None = None
    first_frame_of: Tracked | None = None

    def enrollment(self) -> Enrollment:
        """The photo, enrolled. Raises PhotoError when it cannot be."""
        if self.portrait is not None:
            return enroll(self.portrait, name=self.name)
        assert self.first_frame_of is not None
        return first_photo(self.first_frame_of)[0]


def pair_up(clips: Sequence[Tracked], portraits: Sequence[tuple[Path, str]], count: int) -> list[Pairing]:
    """Up to `count` pairs: every driver another person, every photo of a third; portraits and first frames by turns.

    One pair of each driver, so that pairs are independent; first frames alone where there are no portraits.
    """
    own = list({c.subject: c for c in reversed(clips)}.values())[::-1]
    drivers = spread_indices(len(own), count)
    faces = list({s: p for p, s in reversed(portraits)}.items())[::-1]
    faces = [faces[k] for k in spread_indices(len(faces), 2 * count)]
    out: list[Pairing] = []
    for k, place in enumerate(drivers):
        clip = own[place]
        if k % 2 == 0 or len(own) < 2:
            face = next((f for f in faces if f[0] != clip.subject), None)
            if face is not None:
                faces.remove(face)
                out.append(Pairing(clip, face[1].stem, portrait=face[1]))
                continue
        other = own[(place + 1) % len(own)]
        if other.subject != clip.subject:
            out.append(Pairing(clip, other.name, first_frame_of=other))
    return out


def cross_takes(
    model: HeadModel, pairs: Sequence[Pairing], frames: int, size_px: int, skipped: list[str]
) -> Iterator[Take]:
    """The takes one by one; photos that cannot be enrolled are named in `skipped`."""
    for pair in pairs:
        try:
            photo = pair.enrollment()
            yield cross_take(model, pair.clip, photo, frames, size_px, pair.first_frame_of)
        except VisavisError as error:
            skipped.append(f"{pair.name}: {error}")


def self_takes(
    model: HeadModel,
    clips: Sequence[Tracked],
    frames: int,
    size_px: int,
    skipped: list[str],
    both_ways: bool = False,
) -> Iterator[Take]:
    """The takes one by one, each followed by the backward one for `both_ways`.

    Clips of which no photo can be enrolled are named in `skipped`.
    """
    for clip in clips:
        try:
            forward = self_take(model, clip, frames, size_px)
        except VisavisError as error:
            skipped.append(f"{clip.name}: {error}")
            continue
        yield forward
        if both_ways:
            try:
                yield back_take(model, forward, clip, size_px)
            except VisavisError as error:
                skipped.append(f"{clip.name}, backward: {error}")
