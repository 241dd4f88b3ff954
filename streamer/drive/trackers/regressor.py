"""Tracking by our own network: head parameters straight from the pixels, without MediaPipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.calm import sample_of
from calibration.neutral import DriverNeutral, NeutralReport
from calibration.neutral_estimator import NeutralEstimator
from engines.compile.open import compile_best
from engines.compile.served_by import ServedBy
from engines.geometry import Camera
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import CROP_PER_FACE, CropBox, box_around, cut
from engines.head.regressor.file import load_regressor, regressor_network
from engines.head.regressor.network import as_input
from engines.head.regressor.prediction import (
    FaceBasis,
    Layout,
    Prediction,
    face_basis,
    place_head,
    read_output,
)
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.trackers.tracker import Track, Tracker, is_cut_off
from streamer.frame import Frame

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Reader = Callable[[U8], F32]  # crop (128, 128, 3) → the network's numbers (D,)
FaceFinder = Callable[[U8], CropBox | None]  # picture → where to look first

KEEP_CONFIDENCE = 0.5  # below, a followed face is lost
FIND_CONFIDENCE = 0.8  # a searched face must be surer, once its crop fits
FIRST_CONFIDENCE = 0.3  # a window worth a closer look
NEAR_WINDOWS, FAR_WINDOWS = 10, 6  # looked at in one frame while there is no face
CLOSER_LOOKS = 3
MIN_SIDE_PX = 24.0
IDENTITY_EASE = 0.05  # a person's shape does not change from frame to frame

_BLINKS = [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]


def search_boxes(width_px: int, height_px: int) -> tuple[list[CropBox], list[CropBox]]:
    """Windows that leave no face of a picture unseen, central ones first: for near faces, and for far ones.

    Steps of half a window and of a factor of two: the network answers for a face that is up to 0.3 windows
    off the middle and fills 0.45 … 1 of the window.
    """
    levels: list[list[CropBox]] = []
    side = 1.1 * min(width_px, height_px)
    for _ in range(4):
        if side < 2 * MIN_SIDE_PX:
            break
        xs, ys = (_steps(length, side) for length in (width_px, height_px))
        level = [CropBox(x, y, side) for y in ys for x in xs]
        level.sort(key=lambda b: (b.x_px - width_px / 2) ** 2 + (b.y_px - height_px / 2) ** 2)
        levels.append(level)
        side /= 2
    return [b for level in levels[:2] for b in level], [b for level in levels[2:] for b in level]


def _turn(boxes: list[CropBox], turn: int, count: int) -> list[CropBox]:
    """The next `count` of `boxes`, over and over."""
    return [boxes[k % len(boxes)] for k in range(turn * count, turn * count + min(count, len(boxes)))]


def _steps(length: int, side: float) -> list[float]:
    inset = min(0.3 * side, length / 2)
    count = int(np.ceil((length - 2 * inset) / (0.5 * side))) + 1
    return [float(v) for v in np.linspace(inset, length - inset, count)] if count > 1 else [length / 2]


def compiled_reader() -> tuple[Reader, Layout]:
    """The committed network on the best engine of this computer, and what its numbers mean."""
    net = load_regressor()
    network = regressor_network(net)
    compiled, tier, reasons = compile_best(network.module, network.example, key=network.key)
    refused = (reason.partition(": ") for reason in reasons)
    ServedBy(tier, tuple((name, why) for name, _, why in refused)).keep(network.key)

    def read(crop: U8) -> F32:
        return compiled(as_input(crop))[0][0].numpy()

    return read, net.layout


def mediapipe_finder() -> FaceFinder:
    """First looks by MediaPipe, for pictures full of small faces; needs a mediapipe that loads."""
    from engines.head.landmarks import LandmarkDetector

    detector = LandmarkDetector(video=False)

    def find(image: U8) -> CropBox | None:
        faces = detector.detect(image)
        return box_around(faces[0].points_px) if faces else None

    return find


class RegressorTracker(Tracker):
    """Crop around the last frame's face → network → `Motion`; a lost face is searched by the network itself.

    `reader` and `layout` replace the committed network; `find_face` says where to look first when there is
    no face yet, before the search.
    """

    def __init__(
        self,
        model: HeadModel | None = None,
        *,
        reader: tuple[Reader, Layout] | None = None,
        find_face: FaceFinder | None = None,
    ) -> None:
        model = model or load_head_model()
        self._read, self._layout = reader or compiled_reader()
        self._basis: FaceBasis = face_basis(model, self._layout.identity_count)
        self._find_face = find_face
        self._estimator = NeutralEstimator(model, fits=False)
        self._box: CropBox | None = None
        self._last_box: CropBox | None = None  # where the face was when it was lost
        self._identity: F32 | None = None
        self._gaze: F32 = np.zeros((2, 2), np.float32)
        self._searched = 0  # frames searched since the face was lost

    @property
    def neutral(self) -> Motion | None:
        current = self._estimator.current
        return current.motion if current else None

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        """Mesh and motion at rest."""
        return self._estimator.target

    @property
    def neutral_report(self) -> NeutralReport:
        return self._estimator.report

    def retake_neutral(self) -> None:
        self._estimator.restart()

    def use_neutral(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        self._estimator.adopt(neutral, for_good=for_good)

    def track(self, frame: Frame) -> Track:
        found = self._look(frame.image)
        if found is None:
            self._identity = None  # whoever comes next may be somebody else
            return Track(None, calibrating=self._estimator.collecting)
        prediction, box = found
        return self._motion(frame, prediction, box)

    def close(self) -> None:
        self._box = self._last_box = None

    def _look(self, image: U8) -> tuple[Prediction, CropBox] | None:
        if self._box is not None:
            prediction = self._predict(image, self._box)
            if prediction is not None and prediction.confidence >= KEEP_CONFIDENCE:
                return prediction, self._box
            self._last_box = replace(self._box, side_px=1.2 * self._box.side_px)
            self._box, self._searched = None, 0
        if self._last_box is not None and (found := self._approach(image, self._last_box)):
            return found
        return self._search(image)

    def _predict(self, image: U8, box: CropBox) -> Prediction | None:
        raw = self._read(cut(image, box))
        return read_output(raw, self._layout) if np.isfinite(raw).all() else None

    def _search(self, image: U8) -> tuple[Prediction, CropBox] | None:
        height, width = image.shape[:2]
        if self._find_face is not None:
            box = self._find_face(image)
            return self._approach(image, box) if box is not None else None
        near, far = search_boxes(width, height)
        looked = _turn(near, self._searched, NEAR_WINDOWS) + _turn(far, self._searched, FAR_WINDOWS)
        self._searched += 1
        seen = [(p.confidence, k, p) for k, b in enumerate(looked) if (p := self._predict(image, b))]
        for confidence, k, prediction in sorted(seen, key=lambda s: -s[0])[:2]:
            if confidence < FIRST_CONFIDENCE:
                break
            found = self._approach(image, self._around(prediction, looked[k]))
            if found is not None:
                return found
        return None

    def _approach(self, image: U8, box: CropBox) -> tuple[Prediction, CropBox] | None:
        """Look again and again, each time around what was seen, and say yes when sure."""
        height, width = image.shape[:2]
        prediction = None
        for _ in range(CLOSER_LOOKS):
            if not _is_sound(box, width, height):
                return None
            prediction = self._predict(image, box)
            if prediction is None or prediction.confidence < FIRST_CONFIDENCE:
                return None
            last, box = box, self._around(prediction, box)
            if prediction.confidence >= FIND_CONFIDENCE and _is_near(last, box):
                return prediction, last
        return None

    def _around(self, prediction: Prediction, box: CropBox) -> CropBox:
        """The crop for the face that was seen in `box`."""
        pose = place_head(prediction, box, self._basis.anchor_hu)
        return box_around(pose.apply(self._basis.decode(prediction)))

    def _motion(self, frame: Frame, prediction: Prediction, box: CropBox) -> Track:
        height, width = frame.image.shape[:2]
        if self._identity is None:
            self._identity = prediction.identity
        eased = self._identity + IDENTITY_EASE * (prediction.identity - self._identity)
        self._identity = eased.astype(np.float32)
        prediction = replace(prediction, identity=self._identity)
        pose = place_head(prediction, box, self._basis.anchor_hu)
        unposed = self._basis.decode(prediction).astype(np.float64)
        landmarks = pose.apply(unposed).astype(np.float32)
        following = box_around(landmarks, CROP_PER_FACE)
        self._box = following if _is_sound(following, width, height) else None
        # a closing lid hides the iris: hold the gaze through a blink
        if max(prediction.closure[1:].max(), prediction.expression[_BLINKS].max()) < 0.5:
            self._gaze = prediction.gaze_rad
        rotation, translation = Camera(width, height).from_similarity(pose)
        motion = Motion(
            time_s=frame.pts_s,
            expression=prediction.expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=self._gaze.copy(),
            confidence=prediction.confidence,
            closure=prediction.closure,
        )
        if not motion.is_finite():
            return Track(None, calibrating=self._estimator.collecting)
        cut_off = is_cut_off(landmarks, width, height)
        beta, gaze = prediction.expression, prediction.gaze_rad
        self._estimator.add(sample_of(frame.pts_s, unposed, beta, rotation, translation, gaze, cut_off))
        return Track(motion, landmarks, self._estimator.collecting)


def _is_sound(box: CropBox, width_px: int, height_px: int) -> bool:
    """Whether a face can be followed there: its middle in the picture, neither a speck nor far too near."""
    return (
        0 <= box.x_px <= width_px
        and 0 <= box.y_px <= height_px
        and MIN_SIDE_PX <= box.side_px <= 4 * max(width_px, height_px)
    )


def _is_near(a: CropBox, b: CropBox) -> bool:
    """Whether the network, shown `a`, asked for hardly anything else."""
    moved = max(abs(a.x_px - b.x_px), abs(a.y_px - b.y_px)) / b.side_px
    return moved < 0.12 and 0.8 < a.side_px / b.side_px < 1.25
