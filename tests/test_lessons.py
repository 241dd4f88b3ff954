"""What training sees is what a call sees: batches looked up in torch against the NumPy that serves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from items import tiny_item
from numpy.typing import NDArray
from test_generator import moved
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engines.enrollment import Enrollment
from engines.generators.networked.boxes import Window, cut_box
from engines.generators.networked.lesson import Lesson
from engines.generators.networked.picture import Picture, Size, sampled
from engines.generators.networked.surface import HeadTables
from engines.generators.visavis import inputs, sight
from engines.generators.visavis.blueprint import LossWeights, VisavisBlueprint
from engines.geometry import rotation_matrix, rotation_vector
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_descriptor import describe, mirror_matrix
from engines.motion_descriptor import in_window as numpy_in_window
from engines.raster.gbuffer import GBuffer, rasterise
from engines.raster.pose import head_viewport, head_window, photo_viewport, pose_head, pose_in_viewport
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.item import load_item, save_item
from scripts.generators.judges import lent
from scripts.generators.lessons import in_window, lesson_of
from scripts.generators.store import Batch, Store
from scripts.people.recognition import five_points

MODEL = load_head_model()
TABLES = HeadTables.of(MODEL)
CPU = torch.device("cpu")
ROW = 3  # of ada's pairs
VISAVIS = VisavisBlueprint()


class Coin:
    """A generator of random numbers whose coin always falls on one side and whose colours are as they were."""

    def random(self, count: int) -> NDArray[np.float64]:
        return np.zeros(count)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.zeros(shape)


class Coloured(Coin):
    """The same, and colours change."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return np.full(shape, high / 2)


@pytest.fixture(scope="module")
def store(drawn_pairs: Path) -> Store:
    return Store(drawn_pairs, VISAVIS, CPU)


@pytest.fixture(scope="module")
def batch(store: Store) -> Batch:
    return store.gather(store.train[[ROW, ROW - 2]], None)


@pytest.fixture(scope="module")
def mirrored(store: Store) -> Batch:
    return store.gather(store.train[[ROW, ROW - 2]], Coin())  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def motion(astronaut: Enrollment) -> Motion:
    return moved(astronaut.motion, yaw=4 * ROW, jawOpen=0.2 * ROW)  # as `drawn_pairs` has it


@pytest.fixture(scope="module")
def gbuffer(astronaut: Enrollment, motion: Motion) -> GBuffer:
    viewport = head_viewport(astronaut, 512)
    return rasterise(MODEL, pose_head(MODEL, astronaut, motion, viewport), viewport, 160)


def lesson(batch: Batch) -> Lesson:
    return lesson_of(batch, TABLES, VISAVIS)


def of_first(x: Tensor) -> NDArray[np.float32]:
    """(h, w, C) of the first row."""
    return x[0].permute(1, 2, 0).float().numpy()


def off(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float32) - theirs.astype(np.float32)).mean())


# --- as a call -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_guides_are_those_of_a_call(batch: Batch, astronaut: Enrollment, gbuffer: GBuffer) -> None:
    window = Window.of(astronaut, gbuffer.viewport)
    theirs = inputs.head_guide(*inputs.guides(inputs.prepare_guides(astronaut), gbuffer, window))
    ours = of_first(sight.head_guide(lesson(batch).scene))
    # the stored colours went through a JPEG; on the border of parts either may win
    for name, channels, bound in (("I_r", slice(0, 3), 0.012), ("PNCC", slice(3, 6), 0.004),
                                  ("O_c", slice(6, 7), 0.004), ("parts", slice(7, 10), 0.002)):  # fmt: skip
        assert off(ours[..., channels], theirs[..., channels]) < bound, name
    assert theirs[..., 7:].mean() > 0.1


@pytest.mark.slow
def test_pictures_are_those_of_a_call(batch: Batch, astronaut: Enrollment, gbuffer: GBuffer) -> None:
    viewport, window = gbuffer.viewport, Window.of(astronaut, gbuffer.viewport)
    item_picture = of_first(batch["picture"]).astype(np.uint8)
    low = inputs.low_picture(item_picture, window).astype(np.float32) / 255
    scene = lesson(batch).scene
    assert scene.picture is not None
    assert off(of_first(scene.picture.at(VISAVIS.window)), low) < 0.005
    own = rasterise(MODEL, pose_head(MODEL, astronaut, astronaut.motion, viewport), viewport, 160)
    theirs = inputs.photo_input(astronaut, viewport, inputs.prepare_guides(astronaut), own, window)
    ours = of_first(sight.photo_input(scene))
    assert off(ours, theirs.astype(np.float32) / 255) < 0.012


@pytest.mark.slow
def test_motion_and_where_are_those_of_a_call(
    batch: Batch, astronaut: Enrollment, motion: Motion, drawn_pairs: Path
) -> None:
    viewport = head_viewport(astronaut, 512)
    poses = [pose_in_viewport(astronaut, m, viewport) for m in (astronaut.motion, motion)]
    theirs = inputs.motion_vector(astronaut.motion, motion, *poses)
    scene = lesson(batch).scene
    ours = sight.motion_vector(scene.own_motion, scene.motion)[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-3
    item = load_item(drawn_pairs / "ada_01.safetensors")
    assert np.array_equal(sight.where_in_photo(scene)[0].numpy(), item.where[ROW].astype(np.float32))


@pytest.mark.slow
def test_crops_are_those_of_a_call(
    batch: Batch, astronaut: Enrollment, motion: Motion, gbuffer: GBuffer
) -> None:
    viewport = gbuffer.viewport
    mesh, own = (pose_head(MODEL, astronaut, m, viewport) for m in (motion, astronaut.motion))
    scene = lesson(batch).scene
    assert scene.picture is not None
    places, own_places = sight.crops(scene), sight.crops(scene, own=True)
    picture = np.ascontiguousarray(of_first(batch["picture"])[..., :3].astype(np.uint8))
    boxes = [(inputs.mouth_box(mesh), inputs.MOUTH_PX, False)]
    boxes += [(box, inputs.EYE_PX, k == 1) for k, box in enumerate(inputs.eye_boxes(mesh))]
    ours = [
        scene.picture.crop(places.mouth, sight.MOUTH)[:1, :3],
        *scene.picture.crop(places.eyes, sight.EYE)[:2, :3].split(1),
    ]
    parts = [
        sight.part_crop(scene, places.mouth, sight.MOUTH)[:1],
        *sight.part_crop(scene, places.eyes, sight.EYE)[:2].split(1),
    ]
    for crop, seen, (box, side, turned) in zip(ours, parts, boxes, strict=True):
        cut = cut_box(picture, box, side, mirrored=turned).astype(np.float32) / 255
        assert off(of_first(crop), cut) < 0.006
        part = inputs.part_crop(gbuffer, box, side, mirrored=turned)
        assert (seen[0].numpy() == part).mean() > 0.97
    mouth, eyes = inputs.photo_crops(astronaut, viewport, own)
    photo = Picture(batch["photo"], scene.photo.window, alpha="beside")
    found = photo.crop(own_places.mouth, sight.MOUTH)[:1, :3]
    assert off(of_first(found), mouth.astype(np.float32) / 255) < 0.02
    for k, found in enumerate(photo.crop(own_places.eyes, sight.EYE)[:2, :3].split(1)):
        assert off(of_first(found), eyes[k].astype(np.float32) / 255) < 0.02


def test_descriptors_are_told_in_the_window_as_numpy_does(astronaut: Enrollment) -> None:
    motion = moved(astronaut.motion, yaw=20, gaze=0.1)
    told = describe(motion, pose_in_viewport(astronaut, motion, photo_viewport(astronaut)))
    crop = torch.tensor([astronaut.crop_px], dtype=torch.float32)
    ours = in_window(torch.from_numpy(told)[None], crop)[0].numpy()
    left, top, side = astronaut.crop_px
    theirs = numpy_in_window(
        told, np.array([left + side / 2, top + side / 2], np.float32), np.array(side, np.float32)
    )
    assert np.abs(ours - theirs).max() < 1e-5
    # and as a call does, in a window of another shape
    window = head_window(astronaut, 96, 128)
    live = describe(motion, pose_in_viewport(astronaut, motion, window))
    live = numpy_in_window(live, np.array([48, 64], np.float32), np.array(128, np.float32))
    assert np.abs(ours - live).max() < 1e-4


def test_points_of_the_true_face_lie_where_the_window_shows_them(
    store: Store, drawn_pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a window of another shape, and in a mirror: there each point tells where it is stored."""
    blueprint = VisavisBlueprint()
    monkeypatch.setattr(blueprint, "window", Size(72, 96))
    item = load_item(drawn_pairs / "ada_01.safetensors")
    stored = torch.from_numpy(five_points(item.landmarks_px[item.target[ROW]])).float()
    step = (torch.arange(512) + 0.5) / 512
    telling = torch.stack([step.expand(512, 512), step[:, None].expand(512, 512)])[None]
    for flip in (False, True):
        given = store.gather(store.train[[ROW]], Coin() if flip else None)  # pyright: ignore[reportArgumentType]
        assert bool(given["flip"][0]) is flip
        size = Size(216, 288)
        lesson = lesson_of(given, TABLES, blueprint)
        shown = replace(lesson.truth, pixels=telling).at(size)[0] * 512
        found = torch.stack([shown[:, int(y), int(x)] for x, y in lesson.points_at(size)[0].tolist()])
        # eyes, nose, mouth corners: right and left as the mirror shows them
        expected = stored[[1, 0, 2, 4, 3]] if flip else stored
        assert torch.allclose(found, expected, atol=1.5)
        assert float((expected[0] - expected[1]).norm()) > 40


def test_rotations_compose_as_matrices_do() -> None:
    rng = np.random.default_rng(3)
    own, target = rng.normal(0, 0.7, (2, 5, 65)).astype(np.float32)
    found = sight.motion_vector(torch.from_numpy(own), torch.from_numpy(target)).numpy()[:, 118:121] / 2
    for k in range(5):
        turn = rotation_matrix(target[k, 59:62]) @ rotation_matrix(own[k, 59:62]).T
        assert np.abs(found[k] - rotation_vector(turn)).max() < 1e-4


# --- in a mirror -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mirrored_batch_is_the_batch_in_a_mirror(batch: Batch, mirrored: Batch) -> None:
    """What is mirrored must still fit: the crops lie where the mirrored window says."""
    plain, turned = lesson(batch), lesson(mirrored)
    size = VISAVIS.window
    assert mirrored["flip"].all()
    for ours, theirs in (
        (turned.truth_at(size), plain.truth_at(size)),
        (turned.background_at(size), plain.background_at(size)),
        (turned.scene.photo_at(size), plain.scene.photo_at(size)),
        (turned.scene.mask(), plain.scene.mask()),
        (turned.scene.rendered_face(), plain.scene.rendered_face()),
        (turned.scene.occlusion(), plain.scene.occlusion()),
        (turned.scene.occlusion_by_triangle(), plain.scene.occlusion_by_triangle()),
    ):
        assert float((ours - theirs.flip(-1)).abs().max()) < 1e-3
    flow, expected = turned.scene.flow(), plain.scene.flow().flip(-1) * torch.tensor([-1.0, 1])[:, None, None]
    assert torch.allclose(flow, expected, atol=1e-4)
    # PNCC's x runs across the head
    pncc, before = turned.scene.pncc(), plain.scene.pncc().flip(-1)
    covered = turned.scene.covered()
    assert torch.allclose(pncc[:, 1:], before[:, 1:], atol=1e-4)
    assert torch.allclose(pncc[:, :1], (1 - before[:, :1]) * covered, atol=1e-4)
    assert torch.allclose(
        turned.scene.motions, plain.scene.motions @ torch.from_numpy(mirror_matrix()), atol=1e-6
    )
    for a, b in zip(
        (sight.crops(turned.scene), sight.crops(turned.scene, own=True)),
        (sight.crops(plain.scene), sight.crops(plain.scene, own=True)),
        strict=True,
    ):
        assert torch.allclose(  # right and left eye change places, not looks
            turned.truth.crop(a.eyes, sight.EYE),
            plain.truth.crop(b.eyes, sight.EYE).unflatten(0, (-1, 2)).flip(1).flatten(0, 1),
            atol=0.01,
        )
        mouth = plain.truth.crop(b.mouth, sight.MOUTH).flip(-1)
        assert float((turned.truth.crop(a.mouth, sight.MOUTH) - mouth).abs().mean()) < 0.01


@pytest.mark.slow
def test_codes_in_a_mirror_are_the_mirror_vertices_and_learn(batch: Batch, mirrored: Batch) -> None:
    codes = torch.randn(MODEL.vertex_count, 3, generator=torch.Generator().manual_seed(1))
    symmetric = (codes[TABLES.weld] + codes[TABLES.mirror]) / 2
    symmetric = (symmetric + symmetric[TABLES.mirror]) / 2
    plain, turned = lesson(batch).scene, lesson(mirrored).scene
    found, expected = turned.codes(symmetric), plain.codes(symmetric).flip(-1)
    assert float((found - expected).abs().mean()) < 0.02
    lopsided = codes.clone()
    lopsided[torch.from_numpy(MODEL.mean_hu[:, 0] < 0)] += 5
    right, left = (s.codes(lopsided).flatten(1).std() for s in (turned, plain))
    assert torch.isclose(right, left, rtol=0.1)
    learning = codes.clone().requires_grad_()
    turned.codes(learning).square().sum().backward()
    assert learning.grad is not None
    assert (learning.grad.abs().sum(1) > 0).sum() > 1000


# --- the way back ------------------------------------------------------------------------------------


class Returning(VisavisBlueprint):
    """Learns from the way back too, by several moments."""

    base = None
    past = 2

    def looks_back(self) -> bool:
        return True


def test_the_way_back_is_seen_as_the_pair_the_other_way_round_is(tmp_path: Path) -> None:
    """Mirrored and tinted as its row is."""
    crops = np.array([[40, 30, 400], [60, 70, 380], [20, 90, 410]], np.float32)
    item, blueprint = tiny_item("ada_01", seed=3, crop_px=crops), Returning()
    save_item(tmp_path / "ada_01.safetensors", item)
    held = Store(tmp_path, blueprint, CPU)
    ways = list(zip(item.source.tolist(), item.target.tolist(), strict=True))
    rng: Any = Coloured()
    there, back = (
        lesson_of(held.gather(np.array([(0, ways.index(w)) for w in some]), rng), TABLES, blueprint)
        for some in ([(0, 1), (2, 1)], [(1, 0), (1, 2)])
    )
    assert there.back is not None
    ours, theirs = there.back, back.scene
    assert torch.equal(ours.photo_at(blueprint.window), theirs.photo_at(blueprint.window))
    assert torch.equal(ours.maps, theirs.maps)
    assert torch.equal(ours.motions, theirs.motions)
    assert torch.equal(ours.own_motion, theirs.own_motion)
    assert torch.equal(ours.own_pncc(), theirs.own_pncc())
    assert ours.past == 2
    assert ours.tint is not None
    assert torch.equal(ours.pncc(), ours.own_pncc())  # no head is posed for it
    assert not torch.equal(there.scene.photo_at(blueprint.window), ours.photo_at(blueprint.window))
    assert lesson_of(held.gather(held.train[:1], None), TABLES, VisavisBlueprint()).back is None


# --- windows of any shape --------------------------------------------------------------------------


def test_pictures_are_sampled_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 4, 32, 40), dtype=torch.uint8, generator=generator)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    grid = torch.rand(4, 9, 7, 2, generator=generator) * 2.4 - 1.2
    expected = torch.nn.functional.grid_sample(
        pixels.repeat_interleave(2, 0).float() / 255, grid, "bilinear", "border", align_corners=False
    )
    assert torch.allclose(sampled(pixels, grid), expected, atol=1e-5)


@pytest.mark.slow
def test_a_wide_window_shows_the_square_one_and_more(store: Store, batch: Batch) -> None:
    blueprint = VisavisBlueprint()
    blueprint.window = blueprint.raster = Size(192, 128)  # pyright: ignore[reportAttributeAccessIssue]
    row = store.train[[ROW]]
    wide_batch = Store(store.folder, blueprint, CPU).gather(row, None)
    wide, square = lesson_of(wide_batch, TABLES, blueprint), lesson(batch)
    inner = slice(32, -32)
    for name in ("truth_at", "background_at"):
        ours, theirs = getattr(wide, name)(blueprint.window), getattr(square, name)(VISAVIS.window)
        assert float((ours[:1, ..., inner] - theirs[:1]).abs().mean()) < 0.01, name
    drawn = wide.scene.mask()[..., inner]
    seen = square.scene.thinned(VISAVIS.window).mask()[:1]
    assert float((drawn - seen).abs().mean()) < 0.02
    assert torch.allclose(wide.scene.motions, square.scene.motions[:1])


# --- on a GPU --------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Notes what a step could not do on a GPU without waiting for it or reading main memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        waits = (
            "_local_scalar_dense",
            "nonzero",
            "lift_fresh",
            "linalg_inv",
            "is_nonzero",
            "masked_select",
            "unique",
        )
        if any(w in name for w in waits):
            self.found.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_a_step_waits_for_nothing(store: Store, mirrored: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it could not be recorded as a CUDA graph. Constants are put on the device in the first steps."""
    monkeypatch.setattr(VisavisBlueprint, "weights", LossWeights(adversarial_from=0))
    task = BlueprintTask(VisavisBlueprint(), CPU, lent(CPU, perceptual=False))
    networks = task.networks()
    task.outcome(networks, mirrored, 0)
    with Waits() as waits:
        outcome = task.outcome(networks, mirrored, 1)
    assert outcome.fakes
    assert not waits.found
    with Waits() as waits:
        assert mirrored["crop"].new_tensor([1.0]).item() == 1
    assert len(waits.found) == 2
