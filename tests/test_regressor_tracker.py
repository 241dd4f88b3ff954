"""Tracking by the regressor: finding, following, losing a face; trackers by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from network_numbers import say
from numpy.typing import NDArray
from skimage import data

from engines.errors import DriverError
from engines.geometry import Camera
from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.landmarks import LandmarkDetector
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import INPUT_PX, SKIN_LANDMARKS, CropBox, face_extent
from engines.head.regressor.prediction import Layout
from engines.motion import ARKIT_INDEX
from scripts.regressor.regression import (
    GOOD_PER_FACE,
    GOOD_SHIFT,
)
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.drive.trackers.open import open_tracker
from streamer.drive.trackers.regressor import RegressorTracker, search_boxes
from streamer.frame import Frame

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


# --- the tracker ---------------------------------------------------------------------------------

LAYOUT = Layout(5)


class SquareFinder:
    """A stand-in for the network: its face is a white square, as large as a face would be."""

    def __init__(self) -> None:
        self.calls = 0
        self.extra: dict[str, float] = {}
        self.gaze = (0.0, 0.0)
        self.broken = False

    def __call__(self, crop: U8) -> F32:
        self.calls += 1
        white = crop[..., 0] > 128
        area = int(white.sum())
        if self.broken:
            return np.full(LAYOUT.length, np.nan, np.float32)
        size = np.sqrt(area)
        whole = not (white[0].any() or white[-1].any() or white[:, 0].any() or white[:, -1].any())
        if not whole or size < 0.3 * INPUT_PX:
            return say(LAYOUT, confidence=-6.0)
        y, x = (np.indices(white.shape) + 0.5)[:, white].mean(1)
        raw = say(LAYOUT, centre_px=(float(x), float(y)), scale_px=size / FACE_HU, coefficients=self.extra)
        raw[LAYOUT.part("gaze")] = [*self.gaze, *self.gaze]
        return raw


FACE_HU = 1.7


def frame(x: float | None = 320, y: float = 240, size: float = 150, k: int = 0) -> Frame:
    image = np.zeros((480, 640, 3), np.uint8)
    if x is not None:
        h = size / 2
        image[round(y - h) : round(y + h), round(x - h) : round(x + h)] = 255
    return Frame(k / 30, k * 33_000_000, image=image)


@pytest.fixture
def network() -> SquareFinder:
    return SquareFinder()


@pytest.fixture
def tracker(model: HeadModel, network: SquareFinder) -> RegressorTracker:
    return RegressorTracker(model, reader=(network, LAYOUT))


def test_a_face_is_found_and_followed(tracker: RegressorTracker, network: SquareFinder) -> None:
    motion = None
    for k in range(10):  # the search may take some frames
        motion = tracker.track(frame(200, 160, k=k)).motion
        if motion:
            break
    assert motion is not None
    for step in range(20):
        network.calls = 0
        x, y = 200 + 8 * step, 160 + 5 * step
        track = tracker.track(frame(x, y, 150 + step, k=20 + step))
        assert track.motion is not None
        assert network.calls == 1  # followed, not searched again
        assert track.landmarks_px is not None
        assert track.landmarks_px.shape == (LANDMARK_COUNT, 3)
        middle = track.landmarks_px[:SKIN_LANDMARKS, :2].mean(0)
        assert np.abs(middle - [x, y]).max() < 3
        pose = Camera(640, 480).to_similarity(track.motion.rotation_rad, track.motion.translation_hu)
        assert pose.scale == pytest.approx((150 + step) / FACE_HU, rel=0.05)
        assert np.linalg.norm(track.motion.rotation_rad) < 1e-3


@pytest.mark.parametrize(
    ("x", "y", "size"), [(90, 100, 120), (550, 400, 120), (320, 240, 330), (480, 130, 70)]
)
def test_the_search_covers_the_picture(tracker: RegressorTracker, x: float, y: float, size: float) -> None:
    seen = [tracker.track(frame(x, y, size, k=k)).motion for k in range(70)]
    assert any(seen)


def test_windows_leave_no_place_and_size_out() -> None:
    near, far = search_boxes(640, 480)
    boxes = near + far
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = np.exp(rng.uniform(np.log(60), np.log(400)))
        x, y = rng.uniform(size / 2, [640 - size / 2, 480 - size / 2])
        assert any(
            max(abs(b.x_px - x), abs(b.y_px - y)) <= GOOD_SHIFT * b.side_px
            and GOOD_PER_FACE[0] <= b.side_px / size <= GOOD_PER_FACE[1] * 1.01
            for b in boxes
        ), (x, y, size)


def test_no_face_is_no_motion_and_the_face_comes_back(tracker: RegressorTracker) -> None:
    for k in range(8):
        assert tracker.track(frame(None, k=k)).motion is None
    assert tracker.neutral is None
    back = [tracker.track(frame(k=k)).motion for k in range(8, 12)]
    assert back[-1] is not None  # within four frames
    assert tracker.track(frame(None, k=20)).motion is None  # lost at once
    assert tracker.track(frame(330, 250, k=21)).motion is not None  # back at once near where it was


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 2), (30, 30)])
def test_odd_pictures_are_no_face(tracker: RegressorTracker, shape: tuple[int, int]) -> None:
    track = tracker.track(Frame(0.0, 0, image=np.zeros((*shape, 3), np.uint8)))
    assert track.motion is None


def test_a_network_gone_mad_is_no_face(tracker: RegressorTracker, network: SquareFinder) -> None:
    assert tracker.track(frame()).motion is not None
    network.broken = True
    assert tracker.track(frame(k=1)).motion is None
    network.broken = False
    assert any(tracker.track(frame(k=k)).motion for k in range(2, 8))


def test_the_neutral_is_taken_in_a_second_and_again(tracker: RegressorTracker, network: SquareFinder) -> None:
    network.extra = {"browInnerUp": 0.3}
    track = tracker.track(frame())
    assert track.calibrating
    for k in range(1, 130):
        track = tracker.track(frame(k=k))
    assert not track.calibrating
    assert tracker.neutral is not None
    brow = ARKIT_INDEX["browInnerUp"]
    assert tracker.neutral.expression[brow] == pytest.approx(0.3, abs=0.01)
    kept = tracker.driver_neutral
    network.extra = {"browInnerUp": 0.1}
    tracker.retake_neutral()
    for k in range(130, 260):
        tracker.track(frame(k=k))
    assert tracker.neutral.expression[brow] == pytest.approx(0.1, abs=0.01)
    assert kept is not None
    tracker.use_neutral(kept)
    assert tracker.neutral.expression[brow] == pytest.approx(0.3, abs=0.01)


def test_the_gaze_is_held_through_a_blink(tracker: RegressorTracker, network: SquareFinder) -> None:
    network.gaze = (0.2, 0.1)
    tracker.track(frame())
    network.gaze, network.extra = (-0.4, 0.6), {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}
    motion = tracker.track(frame(k=1)).motion
    assert motion is not None
    assert np.allclose(motion.gaze_rad, [[0.2, 0.1]] * 2)


def test_a_finder_says_where_to_look_first(model: HeadModel, network: SquareFinder) -> None:
    tracker = RegressorTracker(model, reader=(network, LAYOUT), find_face=lambda _: CropBox(480, 130, 100))
    assert tracker.track(frame(480, 130, 70)).motion is not None
    assert network.calls <= 3
    nowhere = RegressorTracker(model, reader=(network, LAYOUT), find_face=lambda _: None)
    assert nowhere.track(frame()).motion is None


# --- by name -------------------------------------------------------------------------------------


def test_trackers_are_chosen_by_name() -> None:
    assert TRACKER_NAMES == ("mediapipe", "regressor")
    with pytest.raises(DriverError, match=r"hat.*mediapipe, regressor"):
        open_tracker("hat")


@pytest.mark.slow
def test_a_broken_mediapipe_leaves_the_regressor() -> None:
    program = (
        "import sys; sys.modules['mediapipe'] = None\n"
        "from engines.errors import DriverError\n"
        "from streamer.drive.trackers.open import open_tracker\n"
        "import streamer.drive.trackers.regressor\n"
        "try:\n    open_tracker('mediapipe')\n"
        "except DriverError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--tracker regressor" in done.stdout


@pytest.mark.slow
def test_a_real_face_is_read_from_its_pixels() -> None:
    image = np.ascontiguousarray(data.astronaut())
    detector = LandmarkDetector(video=False)
    truth = detector.detect(image)[0].points_px
    detector.close()
    with open_tracker("regressor") as tracker:
        tracks = [tracker.track(Frame(k / 30, 0, image=image)) for k in range(10)]
        empty = tracker.track(Frame(11 / 30, 0, image=np.full_like(image, 60)))
    assert tracks[-1].motion is not None
    assert tracks[-1].landmarks_px is not None
    miss = np.linalg.norm((tracks[-1].landmarks_px - truth)[:SKIN_LANDMARKS, :2], axis=1).mean()
    assert miss < 0.06 * face_extent(truth)[2]
    assert tracks[-1].motion.expression[ARKIT_INDEX["mouthSmileLeft"]] > 0.3
    assert empty.motion is None
