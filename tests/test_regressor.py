"""The regressor: crop geometry, what its numbers mean, the network and its weights file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_numbers import say

from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.errors import WeightsError
from engines.geometry import rotation_matrix
from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import (
    CROP_PER_FACE,
    INPUT_PX,
    SKIN_LANDMARKS,
    CropBox,
    box_around,
    cut,
    face_extent,
    move_points,
)
from engines.head.regressor.file import KIND, load_regressor, save_regressor
from engines.head.regressor.network import NetShape, RegressorNet, as_input, without_norm
from engines.head.regressor.prediction import (
    FaceBasis,
    Layout,
    face_basis,
    place_head,
    read_output,
    rotation_from_6d,
)

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
    save_regressor(path, net, "MIT", {"minutes": 1.0})
    loaded = load_regressor(path)
    assert loaded.shape == TINY
    x = torch.rand(1, 3, INPUT_PX, INPUT_PX)
    assert torch.allclose(loaded(x), net(x), atol=2e-3)  # float16
    assert list(tmp_path.iterdir()) == [path]
    _, about = load_weights(path, KIND)
    assert (about.licence, about.notes) == ("MIT", {"minutes": 1.0})


@pytest.mark.parametrize(
    "change", [{"widths": [4]}, {"widths": [4, 4, 4, 8, 9]}, {"widths": 4}, {"hidden": None}, {"detail": 3}]
)
def test_a_shape_that_the_tensors_do_not_have_names_the_fix(
    tmp_path: Path, change: dict[str, object]
) -> None:
    header = WeightsHeader(KIND.name, KIND.version, asdict(TINY) | change, "MIT")
    save_weights(tmp_path / "r", arrays_of(tiny_net(), np.float16), header)
    with pytest.raises(WeightsError, match=r"do not fit.*scripts\.train_regressor"):
        load_regressor(tmp_path / "r")
