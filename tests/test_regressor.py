"""The regressor: crop geometry, what its numbers mean, mirroring, losses, weights file, tracker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from engines.errors import DriverError, ModelError
from engines.frame import Frame
from engines.geometry import Camera, rotation_from_degrees, rotation_matrix, yaw_pitch_roll_deg
from engines.head_model import HeadModel, load_head_model
from engines.landmark_names import LANDMARK_COUNT
from engines.landmarks import LandmarkDetector
from engines.motion import ARKIT_INDEX, ARKIT_NAMES
from engines.regressor import (
    CROP_PER_FACE,
    FORMAT,
    INPUT_PX,
    SCALE_PX_PER_HU,
    SKIN_LANDMARKS,
    VERSION,
    WEIGHTS_PATH,
    CropBox,
    FaceBasis,
    Layout,
    NetShape,
    RegressorNet,
    as_input,
    box_around,
    cut,
    face_basis,
    face_extent,
    load_regressor,
    move_points,
    place_head,
    read_output,
    rotation_from_6d,
    save_regressor,
    without_norm,
)
from scripts.head import crops as cropping
from scripts.head.crops import Crops, background_box, read_cache, write_cache
from scripts.head.regression import (
    BAD_PER_FACE,
    BAD_SHIFT,
    GOOD_PER_FACE,
    GOOD_SHIFT,
    Batch,
    Labels,
    Samples,
    Target,
    TorchBasis,
    bad_jitter,
    disturb,
    frame_weights,
    jitter,
    losses,
    mirror_names,
    mirror_of,
    mirror_points,
    rotation_from_6d_torch,
    unit_cube,
)
from scripts.head.regression_table import within_clips
from scripts.head.tracks import Tracked
from streamer.trackers import make_tracker, tracker_names
from streamer.trackers.regressor import RegressorTracker, search_boxes

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

boxes = st.builds(
    CropBox,
    st.floats(-50, 700),
    st.floats(-50, 700),
    st.floats(20, 900),
    st.floats(-3, 3),
)


# --- crop geometry -------------------------------------------------------------------------------


@given(boxes)
def test_crop_and_picture_are_each_others_inverse(box: CropBox) -> None:
    points = np.array([[0.0, 0, 1], [128, 0, 2], [31, 77, -3]])
    there = move_points(box.to_picture(INPUT_PX), points)
    assert np.allclose(move_points(box.to_crop(INPUT_PX), there), points, atol=1e-6)


@given(boxes)
def test_the_middle_of_a_crop_is_the_middle_of_its_box(box: CropBox) -> None:
    assert np.allclose(move_points(box.to_picture(128), np.array([[64.0, 64]])), [[box.x_px, box.y_px]])
    edge = move_points(box.to_picture(128), np.array([[0.0, 64], [128, 64]]))
    assert np.linalg.norm(edge[1] - edge[0]) == pytest.approx(box.side_px)


@pytest.mark.parametrize("side", [90.0, 128.0, 300.0, 611.3])
@pytest.mark.parametrize("roll", [0.0, 0.4])
def test_a_crop_shows_things_where_its_matrix_says(side: float, roll: float) -> None:
    image = np.zeros((700, 800, 3), np.uint8)
    image[300:318, 420:438] = 255  # middle (429, 309)
    box = CropBox(400.7, 330.2, side, roll)
    crop = cut(image, box)[..., 0].astype(float)
    y, x = (np.indices(crop.shape) + 0.5) * crop
    seen = np.array([x.sum(), y.sum()]) / crop.sum()
    expected = move_points(box.to_crop(INPUT_PX), np.array([[429.0, 309.0]]))[0]
    assert np.abs(seen - expected).max() < 0.1


def test_a_crop_beyond_the_border_goes_on_with_the_edge() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    for box in (CropBox(0, 0, 80), CropBox(-500, 20, 50), CropBox(30, 20, 900), CropBox(30, 9000, 2000)):
        assert (cut(image, box) == 90).all()


def test_a_large_picture_is_shrunk_without_aliasing() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    assert cut(stripes, CropBox(500, 500, 900)).std() < 20  # skipping pixels would leave black and white


def test_the_box_around_a_face() -> None:
    points = np.zeros((LANDMARK_COUNT, 3))
    points[:SKIN_LANDMARKS, 0] = np.linspace(10, 50, SKIN_LANDMARKS)
    points[:SKIN_LANDMARKS, 1] = np.linspace(100, 200, SKIN_LANDMARKS)
    points[SKIN_LANDMARKS:] = 9999  # irises do not count
    assert face_extent(points) == (30, 150, 100)
    assert box_around(points) == CropBox(30, 150, 100 * CROP_PER_FACE)


# --- what the numbers mean -----------------------------------------------------------------------


def test_the_layout_covers_every_number_once() -> None:
    layout = Layout(7)
    used = np.concatenate([np.arange(layout.length)[layout.part(name)] for name in layout.sizes])
    assert (used == np.arange(layout.length)).all()
    with pytest.raises(KeyError):
        layout.part("hat")


@given(st.lists(st.floats(-100, 100), min_size=6, max_size=6))
def test_any_six_numbers_give_a_rotation(six: list[float]) -> None:
    m = rotation_from_6d(np.array(six))
    assert np.allclose(m @ m.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(m) == pytest.approx(1)


def test_both_readings_of_six_numbers_agree() -> None:
    m = rotation_matrix(np.array([0.3, -0.8, 0.2]))
    six = np.concatenate([m[:, 0] * 3, m[:, 1] + m[:, 0]])
    assert np.allclose(rotation_from_6d(six), m)
    assert np.allclose(rotation_from_6d_torch(torch.from_numpy(six)[None])[0].numpy(), m)


@given(st.integers(0, 1000), st.floats(0.01, 1e6))
def test_whatever_the_network_says_can_be_read(seed: int, size: float) -> None:
    layout = Layout(3)
    raw = np.random.default_rng(seed).normal(0, size, layout.length).astype(np.float32)
    p = read_output(raw, layout)
    assert 0 <= p.confidence <= 1
    assert p.expression.min() >= -0.25
    assert p.expression.max() <= 1.25
    assert 0 <= p.closure.min() <= p.closure.max() <= 1
    assert p.scale_px > 0
    assert np.isfinite(p.centre_px).all()


def say(
    layout: Layout,
    *,
    rotation: NDArray[np.floating] | None = None,
    centre_px: tuple[float, float] = (64, 64),
    scale_px: float = SCALE_PX_PER_HU,
    confidence: float = 6.0,
    coefficients: dict[str, float] | None = None,
) -> F32:
    """The numbers (D,) of a network that means this."""
    raw = np.zeros(layout.length, np.float32)
    m = np.eye(3) if rotation is None else rotation
    raw[layout.part("rotation")] = np.concatenate([m[:, 0], m[:, 1]])
    place = [centre_px[0] / 64 - 1, centre_px[1] / 64 - 1, np.log(scale_px / SCALE_PX_PER_HU)]
    raw[layout.part("place")] = place
    raw[layout.part("confidence")] = confidence
    for name, value in (coefficients or {}).items():
        raw[ARKIT_INDEX[name]] = value
    return raw


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


@pytest.fixture(scope="module")
def basis(model: HeadModel) -> FaceBasis:
    return face_basis(model, 5)


@pytest.mark.parametrize("roll", [0.0, 0.5])
def test_a_head_is_placed_where_it_was_seen(basis: FaceBasis, roll: float) -> None:
    box = CropBox(300, 200, 256, roll)  # a crop pixel is two picture pixels
    rotation = rotation_matrix(np.array([0.1, 0.4, 0.0]))
    prediction = read_output(say(Layout(5), rotation=rotation, centre_px=(74, 60), scale_px=50), Layout(5))
    pose = place_head(prediction, box, basis.anchor_hu)
    assert pose.scale == pytest.approx(100)
    assert np.allclose(pose.rotation, rotation_matrix(np.array([0, 0, roll])) @ rotation)
    where = move_points(box.to_picture(128), np.array([[74.0, 60.0]]))[0]
    assert np.allclose(pose.apply(basis.anchor_hu[None])[0, :2], where, atol=1e-4)


def test_the_basis_decodes_as_the_head_model_does(model: HeadModel, basis: FaceBasis) -> None:
    raw = say(Layout(5), coefficients={"jawOpen": 0.6, "mouthSmileLeft": 0.4})
    raw[Layout(5).part("identity")] = [1, -1, 0.5, 0, 2]
    raw[Layout(5).part("gaze")] = [0.2, -0.1, 0.15, 0.05]
    p = read_output(raw, Layout(5))
    neutral = model.shape(p.identity)
    expected = model.landmarks(model.decode(neutral, p.expression, p.gaze_rad))
    got = basis.decode(p)
    assert np.abs(got - expected)[:SKIN_LANDMARKS].max() < 1e-4
    assert np.abs(got - expected)[SKIN_LANDMARKS:].max() < 0.02  # irises: 2 mm


# --- mirroring -----------------------------------------------------------------------------------


def test_left_and_right_coefficients_change_places() -> None:
    swap = mirror_names()
    assert (swap[swap] == np.arange(len(ARKIT_NAMES))).all()
    assert swap[ARKIT_INDEX["eyeBlinkLeft"]] == ARKIT_INDEX["eyeBlinkRight"]
    assert swap[ARKIT_INDEX["jawOpen"]] == ARKIT_INDEX["jawOpen"]


def test_points_pair_up_and_lopsided_ones_are_refused(model: HeadModel) -> None:
    points = np.array([[1.0, 0, 0], [-1.02, 0, 0], [0.01, 3, 0], [-2, 1, 1], [2, 1, 1.01]])
    assert mirror_points(points).tolist() == [1, 0, 2, 4, 3]
    with pytest.raises(ValueError, match="pair up"):
        mirror_points(np.array([[1.0, 0, 0], [5, 1, 0], [9, 0, 2]]))
    landmarks = mirror_points(model.landmarks(model.mean_hu))
    assert landmarks[33] == 263  # outer corners of the eyes
    assert landmarks[61] == 291  # corners of the mouth


def lopsided_basis() -> FaceBasis:
    """Six points, symmetric, with identity modes that swap into each other's mirror image."""
    rng = np.random.default_rng(5)
    half = rng.normal(size=(3, 3)) + np.array([2, 0, 0])
    mean = np.concatenate([half, half * [-1, 1, 1]])
    modes = rng.normal(size=(2, 6, 3))
    modes = np.concatenate([modes, modes[:, [3, 4, 5, 0, 1, 2]] * [-1, 1, 1]])
    expression = np.zeros((52, 6, 3))
    left, right = ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]
    expression[left] = rng.normal(size=(6, 3))
    expression[right] = expression[left][[3, 4, 5, 0, 1, 2]] * [-1, 1, 1]
    f = np.float32
    return FaceBasis(
        mean.astype(f), modes.astype(f), expression.astype(f), np.zeros(3, f), np.zeros((2, 3), f)
    )


def points_of(basis: FaceBasis, target: Target) -> NDArray[np.floating]:
    shape = basis.shape(target.identity) + np.tensordot(target.expression, basis.expression_hu, 1)
    return target.scale_px * shape @ target.rotation.T + np.array([*target.centre_px, 0])


def test_the_mirrored_target_draws_the_mirrored_face() -> None:
    basis = lopsided_basis()
    mirror = mirror_of(basis, np.array([3, 4, 5, 0, 1, 2]))
    expression = np.zeros(52, np.float32)
    expression[ARKIT_INDEX["mouthSmileLeft"]] = 0.7
    target = Target(
        expression=expression,
        identity=np.array([1, -0.5, 0.2, 0], np.float32),
        rotation=rotation_matrix(np.array([0.2, 0.5, -0.3])),
        centre_px=np.array([50.0, 70.0]),
        scale_px=20.0,
        gaze_rad=np.array([[0.3, 0.1], [0.2, 0.0]], np.float32),
        closure=np.array([0.1, 0.9, 0.2], np.float32),
        landmarks_px=np.zeros((6, 3)),
    )
    target = replace(target, landmarks_px=points_of(basis, target))
    other = mirror(target)
    assert np.allclose(points_of(basis, other), other.landmarks_px, atol=1e-3)
    expected = points_of(basis, target)[[3, 4, 5, 0, 1, 2]] * [-1, 1, 1] + [128, 0, 0]
    assert np.allclose(other.landmarks_px, expected)
    assert np.allclose(other.gaze_rad, [[-0.2, 0.0], [-0.3, 0.1]])
    assert np.allclose(other.closure, [0.1, 0.2, 0.9])
    yaw, pitch, roll = yaw_pitch_roll_deg(np.array([0.2, 0.5, -0.3]))
    back = mirror(other)
    for name in Target.__slots__:
        assert np.allclose(getattr(back, name), getattr(target, name), atol=1e-5), name
    assert yaw != pitch != roll


# --- samples -------------------------------------------------------------------------------------


def one_face(basis: FaceBasis) -> Samples:
    """A cache of one grey crop whose landmarks are exactly what its label says."""
    rotation = rotation_from_degrees(20, 5, -10)
    expression = np.zeros((1, 52), np.float32)
    expression[0, ARKIT_INDEX["jawOpen"]] = 0.5
    identity = np.array([[0.5, -1, 0.3, 0, 0.2]], np.float32)
    scale, shift = 60.0, np.array([90.0, 110.0])
    shape = basis.shape(identity[0]) + np.tensordot(expression[0], basis.expression_hu, 1)
    points = scale * shape @ rotation_matrix(rotation).T + np.array([*shift, 0])
    f = np.float32
    labels = Labels(
        expression, rotation[None].astype(f), np.array([scale], f), shift[None].astype(f),
        np.zeros((1, 2, 2), f), np.zeros((1, 3), f), np.zeros(1, f), identity,
    )  # fmt: skip
    picture = np.full((192, 192, 3), 128, np.uint8)
    crops = Crops(
        [cropping.encode(picture)], points[None].astype(f), np.zeros((1, 52), f), np.zeros(1, np.int32),
        np.zeros(1, np.int32), np.zeros((1, 3), f), ["a_1"], ["a"], ["clip"], [cropping.encode(picture)],
    )  # fmt: skip
    return Samples(crops, labels, basis, mirror_of(basis, mirror_points(basis.mean_hu[:LANDMARK_COUNT])))


@pytest.mark.parametrize("move", [(0.0, 0.0, 1.4, 0.0), (0.2, -0.1, 1.1, 0.6), (-0.3, 0.3, 2.2, -0.4)])
def test_a_target_follows_its_crop(basis: FaceBasis, move: tuple[float, float, float, float]) -> None:
    samples = one_face(basis)
    target = samples.target(0, samples.box(0, move))
    shape = basis.shape(target.identity) + np.tensordot(target.expression, basis.expression_hu, 1)
    posed = target.scale_px * (shape - basis.anchor_hu) @ target.rotation.T
    got = posed[:SKIN_LANDMARKS, :2] + target.centre_px
    assert np.abs(got - target.landmarks_px[:SKIN_LANDMARKS, :2]).max() < 1e-2


def test_samples_are_crops_of_the_right_kind(basis: FaceBasis) -> None:
    samples, rng = one_face(basis), np.random.default_rng(0)
    for _ in range(30):
        crop, target = samples.face(0, rng)
        assert crop.shape == (INPUT_PX, INPUT_PX, 3)
        assert crop.dtype == np.uint8
        x, y, face = face_extent(target.landmarks_px)
        assert -0.1 * INPUT_PX < x < 1.1 * INPUT_PX
        assert -0.1 * INPUT_PX < y < 1.1 * INPUT_PX
        assert 0.3 * INPUT_PX < face < 1.3 * INPUT_PX
        assert samples.no_face(0, rng).shape == (INPUT_PX, INPUT_PX, 3)


def test_good_and_bad_crops_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        dx, dy, per_face, _ = jitter(rng, loose=True)
        assert max(abs(dx), abs(dy)) <= GOOD_SHIFT
        assert GOOD_PER_FACE[0] <= per_face <= GOOD_PER_FACE[1]
        dx, dy, per_face, _ = bad_jitter(rng)
        assert max(abs(dx), abs(dy)) >= BAD_SHIFT or per_face <= BAD_PER_FACE[0]


def test_disturbing_is_repeatable_and_disturbs() -> None:
    crop = np.asarray(data.astronaut()[:128, 150:278], np.uint8)
    a, b = (disturb(crop, np.random.default_rng(3)) for _ in range(2))
    assert (a == b).all()
    assert (a != crop).any()


def test_rare_frames_weigh_more_and_misfits_nothing(basis: FaceBasis) -> None:
    one = one_face(basis).labels
    idle = replace(one, rotation_rad=np.zeros((1, 3), np.float32), expression=np.zeros((1, 52), np.float32))
    assert frame_weights(one)[0] > frame_weights(idle)[0] > 0
    assert frame_weights(replace(one, residual=np.array([0.2], np.float32)))[0] == 0


def test_backgrounds_hold_hardly_any_face() -> None:
    rng = np.random.default_rng(0)
    points = np.zeros((LANDMARK_COUNT, 3), np.float32)
    points[:SKIN_LANDMARKS, :2] = rng.uniform([80, 60], [160, 160], (SKIN_LANDMARKS, 2))
    found = [box for _ in range(40) if (box := background_box(points, (256, 256), rng))]
    assert found
    for box in found:
        dx = min(box.x_px + box.side_px / 2, 170) - max(box.x_px - box.side_px / 2, 70)
        dy = min(box.y_px + box.side_px / 2, 160) - max(box.y_px - box.side_px / 2, 60)
        assert max(dx, 0) * max(dy, 0) < 0.15 * 100 * 100


def test_a_cache_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cropping, "SHARD_FRAMES", 2)
    items: list[Tracked] = []
    rng = np.random.default_rng(0)
    for name in ("ann_1", "bob_1", "bob_2"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(np.asarray(data.astronaut()[:256, :256])).save(path)
        points = rng.uniform(80, 160, (1, LANDMARK_COUNT, 3))
        items.append(Tracked(name, name[:3], path, points, np.full((1, 52), 0.5), np.zeros(1), (256, 256)))
    write_cache(items, tmp_path / "cache")
    crops = read_cache(tmp_path / "cache")
    assert crops.names == ["ann_1", "bob_1", "bob_2"]
    assert crops.subjects == ["ann", "bob", "bob"]
    assert crops.item.tolist() == [0, 1, 2]
    assert len(crops.jpegs) == 3
    assert cropping.decode(crops.jpegs[2]).shape == (cropping.CACHE_PX, cropping.CACHE_PX, 3)
    x, y, side = crops.box_px[1]
    back = move_points(CropBox(x, y, side).to_picture(cropping.CACHE_PX), crops.points_px[1])
    assert np.allclose(back, items[1].points_px[0], atol=1e-2)


# --- losses --------------------------------------------------------------------------------------


def test_the_unit_cube_forgets_place_and_size() -> None:
    points = torch.rand(2, 9, 3)
    cube = unit_cube(points)
    assert float(cube.min()) >= -1e-6
    assert float(cube.max()) <= 1 + 1e-6
    assert torch.allclose(unit_cube(7 * points + 3), cube, atol=1e-4)


def toy() -> tuple[Layout, Batch, TorchBasis, torch.Tensor]:
    """Two faces of a head with four points and one identity mode, and a perfect answer."""
    layout = Layout(1)
    mean = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    mode = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]])  # moves the second point along x
    basis = TorchBasis(mean, mode, torch.zeros(52, 12), torch.zeros(3))
    points = torch.cat([mean[None] * SCALE_PX_PER_HU] * 2) + torch.tensor([64.0, 64, 0])
    batch = Batch(
        faces=2,
        expression=torch.zeros(2, 52),
        identity=torch.zeros(2, 1),
        rotation=torch.eye(3).repeat(2, 1, 1),
        centre_px=torch.full((2, 2), 64.0),
        scale_px=torch.full((2,), SCALE_PX_PER_HU),
        gaze_rad=torch.zeros(2, 2, 2),
        closure=torch.zeros(2, 3),
        landmarks_px=points,
    )
    raw = torch.from_numpy(np.stack([say(layout, confidence=30.0)] * 3))
    raw[2, layout.part("confidence")] = -30.0  # the third shows no face
    return layout, batch, basis, raw


def test_a_perfect_answer_costs_nothing() -> None:
    layout, batch, basis, raw = toy()
    for name, value in losses(raw, layout, batch, basis, torch.ones(52)).items():
        assert float(value) == pytest.approx(0, abs=1e-5), name


def test_each_loss_sees_its_own_fault() -> None:
    layout, batch, basis, perfect = toy()

    def cost(change: Callable[[torch.Tensor], None]) -> dict[str, float]:
        raw = perfect.clone()
        change(raw)
        found = losses(raw, layout, batch, basis, torch.full((52,), 0.5))
        return {name: float(value) for name, value in found.items() if float(value) > 1e-4}

    def put(
        part: str, value: float, offset: int = 0, rows: slice = slice(0, 2)
    ) -> Callable[[torch.Tensor], None]:
        def change(raw: torch.Tensor) -> None:
            raw[rows, layout.part(part).start + offset] = value

        return change

    # 3 px aside: |3| in x, 0 in y → 1.5 px · 0.1
    assert cost(put("place", 3 / 64)) == pytest.approx({"projection": 0.15})
    # both α = 1: mean α² = 1; the second point at x = 2 makes the cube twice as large
    both = cost(put("identity", 1.0))
    assert both["small"] == pytest.approx(1)
    wanted = unit_cube(basis.mean[None])
    got = unit_cube((basis.mean + torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]))[None])
    assert both["3d"] == pytest.approx(50 * float((got - wanted).norm(dim=2).mean()))
    assert "shape" not in both
    # one α = 1, the other 0: two shapes for one person
    assert cost(put("identity", 1.0, rows=slice(0, 1)))["shape"] == pytest.approx(1)
    # one of 52 coefficients off by 0.5, measured in spreads of 0.5, weight 4; and 0.25 / 52 for its size
    assert cost(put("expression", 0.5)) == pytest.approx({"expression": 4 / 52, "small": 0.25 / 52})
    assert cost(put("gaze", 0.1)) == pytest.approx({"gaze": 16 * 0.1 / 4}, rel=1e-4)
    assert cost(put("closure", 0.6)) == pytest.approx({"closure": 4 * 0.6 / 3})
    # undecided about the crop without a face: ln 2 over three rows
    assert cost(put("confidence", 0.0, rows=slice(2, 3))) == pytest.approx({"confidence": np.log(2) / 3})


def test_correlation_within_clips_ignores_each_clips_own_level() -> None:
    item = np.array([0, 0, 0, 1, 1, 1], np.int32)
    want = np.array([0.0, 1, 2, 10, 11, 12])
    assert within_clips(want + np.array([5, 5, 5, -9, -9, -9]), want, item) == pytest.approx(1)
    assert within_clips(np.array([2.0, 1, 0, 12, 11, 10]), want, item) == pytest.approx(-1)


# --- the network and its file --------------------------------------------------------------------

TINY = NetShape(widths=(4, 4, 4, 8, 8), blocks=(1, 1, 1, 1), detail=2, hidden=8, identity_count=5)


def tiny_net(*, norm: bool = False) -> RegressorNet:
    torch.manual_seed(0)
    return RegressorNet(TINY, norm=norm).eval()


def test_the_network_gives_one_row_of_numbers_per_crop() -> None:
    net = tiny_net()
    assert net(torch.rand(3, 3, INPUT_PX, INPUT_PX)).shape == (3, Layout(5).length)
    crop = np.arange(INPUT_PX * INPUT_PX * 3).reshape(INPUT_PX, INPUT_PX, 3).astype(np.uint8)
    x = as_input(crop)
    assert x.shape == (1, 3, INPUT_PX, INPUT_PX)
    assert float(x[0, 2, 5, 7]) == pytest.approx(crop[5, 7, 2] / 255)


def test_folding_the_normalisation_changes_nothing() -> None:
    net = tiny_net(norm=True).train()
    for _ in range(3):
        net(torch.rand(4, 3, INPUT_PX, INPUT_PX))  # statistics that are not the initial ones
    net.eval()
    plain = without_norm(net)
    x = torch.rand(2, 3, INPUT_PX, INPUT_PX)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert torch.allclose(plain(x), net(x), atol=1e-5)


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    net = tiny_net(norm=True)
    path = tmp_path / "r.safetensors"
    save_regressor(path, net, {"minutes": 1.0})
    loaded = load_regressor(path)
    assert loaded.shape == TINY
    x = torch.rand(1, 3, INPUT_PX, INPUT_PX)
    assert torch.allclose(loaded(x), net(x), atol=2e-3)  # float16
    assert list(tmp_path.iterdir()) == [path]


def rewrite(path: Path, header: dict[str, object], **changes: torch.Tensor) -> None:
    tensors = {k: v.half().contiguous() for k, v in tiny_net().state_dict().items()} | changes
    save_file(tensors, str(path), metadata={"visavis": json.dumps(header)})


GOOD_HEADER: dict[str, object] = {
    "format": FORMAT,
    "version": VERSION,
    "shape": {
        "widths": [4, 4, 4, 8, 8],
        "blocks": [1, 1, 1, 1],
        "detail": 2,
        "hidden": 8,
        "identity_count": 5,
    },
}


def test_the_header_of_these_tests_is_a_good_one(tmp_path: Path) -> None:
    rewrite(tmp_path / "r", GOOD_HEADER)
    assert load_regressor(tmp_path / "r").shape == TINY


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": VERSION + 1}, f"expected {FORMAT} version {VERSION}"),
        ({"format": "hat"}, "hat version"),
        ({"shape": {"widths": [4]}}, "do not fit"),
        (
            {
                "shape": {
                    "widths": [4, 4, 4, 8, 9],
                    "blocks": [1, 1, 1, 1],
                    "detail": 2,
                    "hidden": 8,
                    "identity_count": 5,
                }
            },
            "fit",
        ),
    ],
)
def test_a_wrong_header_names_the_fix(tmp_path: Path, change: dict[str, object], words: str) -> None:
    rewrite(tmp_path / "r", GOOD_HEADER | change)
    with pytest.raises(ModelError, match=words) as caught:
        load_regressor(tmp_path / "r")
    assert "scripts/train_regressor.py" in str(caught.value)


def test_broken_files_name_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with pytest.raises(ModelError, match=r"missing.*train_regressor"):
        load_regressor(path)
    rewrite(path, GOOD_HEADER, **{"out.bias": torch.full((Layout(5).length,), torch.nan).half()})
    with pytest.raises(ModelError, match=r"not finite.*train_regressor"):
        load_regressor(path)
    rewrite(path, GOOD_HEADER)
    whole = path.read_bytes()
    for size in (len(whole) // 2, 5, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"truncated.*train_regressor"):
            load_regressor(path)


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
    return Frame(image, k / 30, k * 33_000_000)


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
    seen = [tracker.track(frame(x, y, size, k=k)).motion for k in range(12)]
    assert any(seen)


def test_windows_leave_no_place_and_size_out() -> None:
    boxes = search_boxes(640, 480)
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
    back = [tracker.track(frame(k=k)).motion for k in range(8, 20)]
    assert back[-1] is not None
    assert tracker.track(frame(None, k=20)).motion is None  # lost at once
    assert (
        tracker.track(frame(330, 250, k=21)).motion is not None or tracker.track(frame(330, 250, k=22)).motion
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 2), (30, 30)])
def test_odd_pictures_are_no_face(tracker: RegressorTracker, shape: tuple[int, int]) -> None:
    track = tracker.track(Frame(np.zeros((*shape, 3), np.uint8), 0.0, 0))
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
    for k in range(1, 80):
        track = tracker.track(frame(k=k))
    assert not track.calibrating
    assert tracker.neutral is not None
    brow = ARKIT_INDEX["browInnerUp"]
    assert tracker.neutral.expression[brow] == pytest.approx(0.3, abs=0.01)
    kept = tracker.driver_neutral
    network.extra = {"browInnerUp": 0.1}
    tracker.retake_neutral()
    for k in range(80, 160):
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
    assert tracker_names() == ("mediapipe", "regressor")
    with pytest.raises(DriverError, match=r"hat.*mediapipe, regressor"):
        make_tracker("hat")


def test_a_broken_mediapipe_leaves_the_regressor() -> None:
    program = (
        "import sys; sys.modules['mediapipe'] = None\n"
        "from engines.errors import DriverError\n"
        "from streamer.trackers import make_tracker\n"
        "import streamer.trackers.regressor\n"
        "try:\n    make_tracker('mediapipe')\n"
        "except DriverError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--tracker regressor" in done.stdout


@pytest.mark.skipif(not WEIGHTS_PATH.is_file(), reason="the regressor has no weights yet")
def test_a_real_face_is_read_from_its_pixels() -> None:
    image = np.ascontiguousarray(data.astronaut())
    detector = LandmarkDetector(video=False)
    truth = detector.detect(image)[0].points_px
    detector.close()
    with make_tracker("regressor") as tracker:
        tracks = [tracker.track(Frame(image, k / 30, 0)) for k in range(10)]
        empty = tracker.track(Frame(np.full_like(image, 60), 11 / 30, 0))
    assert tracks[-1].motion is not None
    assert tracks[-1].landmarks_px is not None
    miss = np.linalg.norm((tracks[-1].landmarks_px - truth)[:SKIN_LANDMARKS, :2], axis=1).mean()
    assert miss < 0.06 * face_extent(truth)[2]
    assert tracks[-1].motion.expression[ARKIT_INDEX["mouthSmileLeft"]] > 0.3
    assert empty.motion is None
