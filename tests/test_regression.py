"""Training the regressor: mirroring, samples of the crop cache, losses, correlation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from network_numbers import say
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from engines.geometry import rotation_from_degrees, rotation_matrix, yaw_pitch_roll_deg
from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import INPUT_PX, SKIN_LANDMARKS, CropBox, face_extent, move_points
from engines.head.regressor.network import RegressorNet
from engines.head.regressor.prediction import SCALE_PX_PER_HU, FaceBasis, Layout, face_basis, rotation_from_6d
from engines.motion import ARKIT_INDEX, ARKIT_NAMES
from scripts.people.tracks import Tracked, is_held_out
from scripts.regressor import crops as cropping
from scripts.regressor.crops import Crops, background_box, read_cache, write_cache
from scripts.regressor.no_faces import clouds, invented, letters, shapes, shuffled
from scripts.regressor.regression import (
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
from scripts.regressor.table import within_clips
from scripts.regressor.task import RegressorTask
from scripts.training.loop import CHECKPOINT, train
from scripts.training.state import Settings
from scripts.training.table import read_table

U8 = NDArray[np.uint8]


def test_both_readings_of_six_numbers_agree() -> None:
    m = rotation_matrix(np.array([0.3, -0.8, 0.2]))
    six = np.concatenate([m[:, 0] * 3, m[:, 1] + m[:, 0]])
    assert np.allclose(rotation_from_6d(six), m)
    assert np.allclose(rotation_from_6d_torch(torch.from_numpy(six)[None])[0].numpy(), m)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


@pytest.fixture(scope="module")
def basis(model: HeadModel) -> FaceBasis:
    return face_basis(model, 5)


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


@pytest.mark.parametrize("make", [clouds, shapes, letters, invented])
def test_made_up_pictures_are_varied_and_repeatable(make: Callable[[int, np.random.Generator], U8]) -> None:
    pictures = [make(64, np.random.default_rng(seed)) for seed in range(6)]
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 6
    assert max(p.std() for p in pictures) > 20
    assert (make(64, np.random.default_rng(3)) == pictures[3]).all()


def test_a_shuffled_crop_keeps_its_pieces_but_not_their_places() -> None:
    crop = np.kron(np.arange(16).reshape(4, 4), np.ones((30, 30))).astype(np.uint8)[..., None].repeat(3, 2)
    others = [shuffled(crop, np.random.default_rng(seed)) for seed in range(5)]
    assert all(o.shape == crop.shape and set(np.unique(o)) == set(range(16)) for o in others)
    assert all((o != crop).any() for o in others)


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
    # one of 52 coefficients off by 0.5, one spread: Huber ½, weight 8; and 0.25 / 52 for its size
    assert cost(put("expression", 0.5)) == pytest.approx({"expression": 4 / 52, "small": 0.25 / 52})
    assert cost(put("gaze", 0.1)) == pytest.approx({"gaze": 16 * 0.1 / 4}, rel=1e-4)
    assert cost(put("closure", 0.6)) == pytest.approx({"closure": 12 * 0.36 / 3})
    # undecided about the crop without a face: ln 2 over three rows
    assert cost(put("confidence", 0.0, rows=slice(2, 3))) == pytest.approx({"confidence": np.log(2) / 3})


def test_correlation_within_clips_ignores_each_clips_own_level() -> None:
    item = np.array([0, 0, 0, 1, 1, 1], np.int32)
    want = np.array([0.0, 1, 2, 10, 11, 12])
    assert within_clips(want + np.array([5, 5, 5, -9, -9, -9]), want, item) == pytest.approx(1)
    assert within_clips(np.array([2.0, 1, 0, 12, 11, 10]), want, item) == pytest.approx(-1)


# --- the training --------------------------------------------------------------------------------


def a_few_faces(basis: FaceBasis) -> Samples:
    """Three people to train on, one crop each."""
    one = one_face(basis)
    subjects = [n for n in (f"p{k}" for k in range(20)) if not is_held_out(n)][:3]
    c, three = one.crops, np.arange(3, dtype=np.int32)
    crops = Crops(
        c.jpegs * 3, c.points_px.repeat(3, 0), c.scores.repeat(3, 0), three, np.zeros(3, np.int32),
        c.box_px.repeat(3, 0), subjects, subjects, ["clip"] * 3, c.backgrounds,
    )  # fmt: skip
    labels = Labels(**{name: getattr(one.labels, name).repeat(3, 0) for name in Labels.__slots__})
    return Samples(crops, labels, basis, one.mirror)


@pytest.mark.slow
def test_the_regressor_too_goes_on_after_a_cut(basis: FaceBasis, tmp_path: Path) -> None:
    samples, cpu = a_few_faces(basis), torch.device("cpu")

    def trained(folder: str, steps: int, resume: str | None = None, workers: int = 1) -> RegressorNet:
        settings = Settings(batch=4, steps=steps, workers=workers)
        task = RegressorTask(samples, settings, cpu, bf16=False)
        checkpoint = tmp_path / resume / CHECKPOINT if resume else None
        net = train(task, settings, tmp_path / folder, resume=checkpoint, say=lambda _: None).average
        assert isinstance(net, RegressorNet)
        return net

    whole = trained("whole", 4)
    trained("cut", 2)
    rest = trained("cut", 4, resume="cut", workers=2)
    for a, b in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    columns = read_table(tmp_path / "whole" / "log.csv")[0]
    assert {"total", "3d", "expression", "confidence", "per_s"} <= set(columns)


def test_the_regressors_rate_falls_with_the_time_budget(basis: FaceBasis) -> None:
    settings = Settings(minutes=10, rate=1.0)
    task = RegressorTask(a_few_faces(basis), settings, torch.device("cpu"), bf16=False)
    assert task.rate(0, 0) == pytest.approx(1 / 300)
    assert [round(task.rate(1000, spent), 3) for spent in (0, 0.5, 1)] == [1, 0.51, 0.02]
