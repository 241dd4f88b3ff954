"""The torch drawing is OpenCV's, stage by stage: look-ups, filters, the rasteriser, and whole pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_generator import moved
from test_networked import Laying, Warper, weights_of
from torch import Tensor

from engines.compile.torch_engine import TorchEngine
from engines.device import filters
from engines.device.enrolled import MisfitError, head_of
from engines.device.geometric import draw_geometric
from engines.device.packet import Layout
from engines.device.rasteriser import rasterise_fixed
from engines.device.sampling import Patch, bilinear, bilinear_bytes, bytes_at, packed, resized
from engines.device.sizes import Person, Sizes, grids
from engines.device.telling import ellipse_spans
from engines.device.twins import Prepared, Twin, twin_of
from engines.device.warp import Seen
from engines.enrollment import Enrollment
from engines.errors import EngineError
from engines.generators.generator import Generator
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.window import WindowGenerator
from engines.generators.visavis.generator import VisavisGenerator
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.native.kernels import Kernels
from engines.native.loader import Loader
from engines.picture.moving_box import whole
from engines.raster.gbuffer import GBuffer, rasterise, rasterise_triangles
from engines.raster.gbuffer_torch import TorchMesh, visible_triangles
from engines.raster.pose import head_viewport, pose_head

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
MODEL = load_head_model()
CPU = torch.device("cpu")
BOUND = 2  # of 255: docs/architecture.md


def nobody() -> Kernels:
    raise EngineError("OpenCV draws")


@pytest.fixture(autouse=True)
def opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV draws, not the kernels compiled for this computer: they round a few pixels otherwise too."""
    loader = Loader(nobody)
    assert loader.wait(60)
    monkeypatch.setattr("engines.native.loader._loader", loader)


def first(image: NDArray[np.generic]) -> Tensor:
    """(h, w, C) → (1, C, h, w) float."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).float()


def last(values: Tensor) -> F32:
    return values[0].permute(1, 2, 0).numpy()


RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (37, 41, 4)).astype(np.uint8)
FLOATS = RANDOM.random((37, 41, 4)).astype(np.float32)
X, Y = RANDOM.uniform(-3, 44, (2, 30, 33)).astype(np.float32)

# --- look-ups and filters ---------------------------------------------------------------------------


def test_look_ups_are_opencvs() -> None:
    wanted = cv2.remap(BYTES, X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    x, y = torch.from_numpy(X)[None], torch.from_numpy(Y)[None]
    pixels = packed(torch.from_numpy(BYTES)[None])
    found = last(bilinear_bytes(pixels, BYTES.shape[:2], x, y).round())
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() < 1e-3
    wanted = cv2.remap(FLOATS, X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(last(bilinear(first(FLOATS), x, y)) - wanted).max() < 1e-5
    wanted = cv2.remap(FLOATS, X, Y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    assert np.abs(last(bilinear(first(FLOATS), x, y, beyond="zeros")) - wanted).max() < 1e-5


@pytest.mark.parametrize("size", [(118, 130), (41, 90), (20, 64)])
def test_bytes_are_enlarged_to_the_last_bit(size: tuple[int, int]) -> None:
    wanted = cv2.resize(BYTES, size[::-1], interpolation=cv2.INTER_LINEAR)
    y, x = (
        ((torch.arange(n) + 0.5).double() * (of / n) - 0.5)[None]
        for n, of in zip(size, BYTES.shape[:2], strict=True)
    )
    none = torch.zeros(1, 1, dtype=torch.float64)
    rows, columns = ((none, none + of - 1) for of in BYTES.shape[:2])
    assert np.array_equal(last(bytes_at(first(BYTES), x, y, columns, rows)), wanted)
    wanted = cv2.resize(FLOATS, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(last(resized(first(FLOATS), *size)) - wanted).max() < 1e-5


def test_a_box_is_enlarged_as_if_it_were_all_there_is() -> None:
    box = np.s_[5:20, 8:30]
    wanted = cv2.resize(BYTES[box], (70, 44), interpolation=cv2.INTER_LINEAR)
    x = ((torch.arange(70) + 0.5).double() * (22 / 70) - 0.5 + 8)[None]
    y = ((torch.arange(44) + 0.5).double() * (15 / 44) - 0.5 + 5)[None]
    ends = [tuple(torch.tensor([[e]]) for e in pair) for pair in ((8, 29), (5, 19))]
    assert np.array_equal(last(bytes_at(first(BYTES), x, y, ends[0], ends[1])), wanted)  # pyright: ignore[reportArgumentType]


def both(rows: F32, columns: F32) -> F32:
    found = filters.filtered(first(FLOATS), torch.from_numpy(rows), torch.from_numpy(columns))
    return last(found)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda n: filters.gaussian(n, 1.5), lambda x: cv2.GaussianBlur(x, (0, 0), 1.5)),
        (lambda n: filters.gaussian(n, 1.0, 5), lambda x: cv2.GaussianBlur(x, (5, 5), 1.0)),
        (lambda n: filters.mean(n, 5), lambda x: cv2.blur(x, (5, 5))),
        (lambda n: filters.area(n, n // 2), lambda x: cv2.resize(x, (20, 18), interpolation=cv2.INTER_AREA)),
        (lambda n: filters.area(n, n // 3), lambda x: cv2.resize(x, (13, 12), interpolation=cv2.INTER_AREA)),
        (lambda n: filters.linear(n, 2 * n), lambda x: cv2.resize(x, (82, 74))),
    ],
)  # fmt: skip
def test_filters_are_opencvs(ours: Any, theirs: Any) -> None:
    assert np.abs(both(ours(37), ours(41)) - theirs(FLOATS)).max() < 1e-5


@pytest.mark.parametrize("side", [2, 3, 5])
def test_the_most_and_the_least_around_are_opencvs(side: int) -> None:
    kernel = np.ones((side, side), np.uint8)
    assert np.array_equal(last(filters.most(first(FLOATS), side)), cv2.dilate(FLOATS, kernel))
    assert np.array_equal(last(filters.least(first(FLOATS), side)), cv2.erode(FLOATS, kernel))


@pytest.mark.parametrize("side", [1, 3, 5, 7, 9])
def test_the_most_within_an_ellipse_is_opencvs(side: int) -> None:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    spans = torch.from_numpy(ellipse_spans(side, 6))[None]
    found = last(filters.ellipse_most(first(FLOATS), spans))
    assert np.array_equal(found, cv2.dilate(FLOATS, kernel))


def test_a_patch_is_read_and_written_where_it_lies() -> None:
    picture = torch.rand(2, 4, 20, 24)
    patch = Patch(torch.tensor([[3.0, 2.0], [14.0, 10.0]]), 10, 20, 24)
    read = patch.read(picture)
    assert torch.equal(read[0], picture[0, :, 2:12, 3:13])
    assert torch.equal(read[1], picture[1, :, 10:20, 14:24])
    written = patch.written(picture, read[:, :3] + 1)
    wanted = picture.clone()
    wanted[0, :3, 2:12, 3:13] += 1
    wanted[1, :3, 10:20, 14:24] += 1
    assert torch.equal(written, wanted)
    inside = patch.within(torch.tensor([[4.0, 3.0, 6.0, 5.0], [14, 10, 24, 12]]))
    assert int(inside[0].sum()) == 4
    assert bool(inside[0, 0, 1:3, 1:3].all())
    assert int(inside[1].sum()) == 20


# --- the rasteriser ---------------------------------------------------------------------------------


def some_triangles(count: int, seed: int) -> F32:
    random = np.random.default_rng(seed)
    middle = random.uniform(-4, 36, (count, 1, 3))
    return (middle + random.normal(0, 5, (count, 3, 3))).astype(np.float32)


def test_the_fixed_rasteriser_shows_what_the_other_shows() -> None:
    corners = torch.from_numpy(np.stack([some_triangles(60, seed) for seed in range(3)]))
    drawn = rasterise_fixed(corners, torch.ones(1, 60, dtype=torch.bool), 32, 30, 20000)
    mesh = TorchMesh.of(np.arange(180).reshape(60, 3), np.zeros((180, 2)), np.ones(60, np.uint8))
    wanted = visible_triangles(corners.reshape(3, 180, 3), mesh, 32, 30, cull=True)
    assert torch.equal(drawn.triangle, wanted)
    assert not drawn.full.any()
    assert int((wanted >= 0).sum()) > 700
    shown = wanted >= 0
    assert torch.allclose(drawn.weight.sum(3)[shown], torch.ones(int(shown.sum())), atol=1e-4)
    assert float(drawn.weight[~shown].abs().max()) == 0
    assert float(drawn.depth[shown].max()) < 100 < float(drawn.depth[~shown].min())


def test_a_pixel_whose_middle_lies_on_an_edge_is_drawn() -> None:
    """Two triangles that share a diagonal through middles, and end on middles."""
    a, b, c, d = ([x, y, 1.0] for x, y in ((2.5, 2.5), (9.5, 2.5), (2.5, 9.5), (9.5, 9.5)))
    corners = torch.tensor([[[a, c, b], [b, c, d]]])
    drawn = rasterise_fixed(corners, torch.ones(1, 2, dtype=torch.bool), 12, 12, 400)
    assert bool((drawn.triangle[0, 2:10, 2:10] >= 0).all())
    assert int((drawn.triangle >= 0).sum()) == 64
    # of two that are equally near the first
    assert drawn.triangle[0, 4, 7] == 0


def test_who_has_no_room_says_so_and_the_others_are_drawn() -> None:
    corners = torch.from_numpy(np.stack([some_triangles(60, 0), some_triangles(60, 1)]))
    corners[1] *= 0.1
    all_of_them = torch.ones(1, 60, dtype=torch.bool)
    wanted = rasterise_fixed(corners, all_of_them, 32, 30, 20000)
    drawn = rasterise_fixed(corners, all_of_them, 32, 30, 600)
    assert drawn.full.tolist() == [True, False]
    assert torch.equal(drawn.triangle[1], wanted.triangle[1])


def test_triangles_that_are_not_chosen_or_have_no_place_are_not_drawn() -> None:
    corners = torch.from_numpy(some_triangles(60, 0))[None]
    chosen = (torch.arange(60) % 2 == 0)[None]
    drawn = rasterise_fixed(corners, chosen, 32, 30, 20000)
    assert bool((drawn.triangle[drawn.triangle >= 0] % 2 == 0).all())
    corners[0, ::4, 0, 0] = torch.nan
    drawn = rasterise_fixed(corners, chosen, 32, 30, 20000)
    assert bool((drawn.triangle[drawn.triangle >= 0] % 4 == 2).all())
    assert torch.isfinite(drawn.depth).all()


# --- whole pictures ---------------------------------------------------------------------------------


def motions_of(rest: Motion) -> list[Motion]:
    """At rest; turned, with the mouth open; a blink under way and one that is over; a look aside."""
    shut = replace(rest, closure=np.ones(3, np.float32))
    return [
        rest,
        moved(rest, yaw=18, pitch=6, jawOpen=0.7, mouthSmileLeft=0.6),
        moved(rest, yaw=-30, gaze=0.2, eyeBlinkLeft=0.8, eyeBlinkRight=0.5),
        shut,
    ]


def prepared(generator: Generator[Any], e: Enrollment, size: int) -> Prepared[Any]:
    viewport = whole(head_viewport(e, size)).of(head_viewport(e, size))
    triangles = np.arange(len(MODEL.triangles))
    return Prepared(
        generator.prepare(e, viewport), viewport, viewport, generator.window(e, viewport), triangles
    )


def ours(twin: Twin[Any, Any], e: Enrollment, motions: MotionWindow) -> F32:
    layout = Layout(twin.fields())
    mesh = pose_head(MODEL, e, motions.now, twin.prepared.viewport)
    frame = np.zeros(layout.size, np.uint8)
    layout.pack(twin.tell(mesh, motions), frame)
    with torch.inference_mode():
        picture, full = twin.draw()(twin.person(), layout.unpack(torch.from_numpy(frame)[None]))
    assert not full.any()
    return last(picture)


def theirs(generator: Generator[Any], e: Enrollment, box: Prepared[Any], motions: MotionWindow) -> U8:
    mesh = pose_head(MODEL, e, motions.now, box.viewport)
    return generator.render(box.cache, gbuffer_of(generator, box, mesh), motions)


def gbuffer_of(generator: Generator[Any], box: Prepared[Any], mesh: Any) -> GBuffer:
    if box.window is None:
        return rasterise(MODEL, mesh, box.viewport, generator.config.grid_px)
    return rasterise_triangles(MODEL, mesh.seen_in(box.there, box.window), box.window)


@pytest.mark.slow
def test_the_geometric_picture_is_opencvs_within_the_bound(astronaut: Enrollment) -> None:
    """From the same G-buffer; so nothing but the rasteriser can be other in a frame."""
    generator = GeometricGenerator(MODEL)
    box = prepared(generator, astronaut, 256)
    twin = twin_of(generator, MODEL, box, CPU)
    assert twin is not None
    at, layout, person = grids(Sizes(256, 256), CPU), Layout(twin.fields()), twin.person()
    assert isinstance(person, Person)
    for motion in motions_of(astronaut.motion):
        mesh = pose_head(MODEL, astronaut, motion, box.viewport)
        g = rasterise(MODEL, mesh, box.viewport, generator.config.grid_px)
        wanted = generator.draw(box.cache, g, motion)
        frame = np.zeros(layout.size, np.uint8)
        layout.pack(twin.tell(mesh, MotionWindow.of(motion)), frame)
        seen = Seen(
            torch.from_numpy(g.uv)[None], torch.from_numpy(g.part).long()[None, None],
            torch.from_numpy(g.depth_px)[None, None], torch.zeros(1, dtype=torch.bool),
        )  # fmt: skip
        with torch.inference_mode():
            told = layout.unpack(torch.from_numpy(frame)[None])
            drawn = draw_geometric(head_of(MODEL), person, told, at, seen)
        assert np.abs(last(drawn.picture) - wanted.picture).max() <= BOUND
        assert np.abs(last(drawn.warped.flow) - wanted.flow).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", [GeometricGenerator, VisavisGenerator])
def test_pictures_from_the_posed_mesh_are_opencvs_but_for_single_pixels(
    astronaut: Enrollment, kind: type[Any]
) -> None:
    """Both rasterisers may show another triangle where two meet; what follows is a few pixels along contours."""
    generator = kind(MODEL) if kind is GeometricGenerator else kind(MODEL, engines=[TorchEngine()])
    box = prepared(generator, astronaut, 256)
    assert generator.wait_until_compiled(60)
    twin = twin_of(generator, MODEL, box, CPU)
    assert twin is not None
    for motion in motions_of(astronaut.motion):
        window = MotionWindow.of(motion)
        off = np.abs(ours(twin, astronaut, window) - theirs(generator, astronaut, box, window))
        assert (off > BOUND).mean() < 2e-4
        assert off.mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Warper, Laying])
def test_a_generator_that_is_its_blueprint_alone_is_drawn_alike(
    astronaut: Enrollment, tmp_path: Path, kind: type[Warper]
) -> None:
    weights = weights_of(kind, tmp_path / "warper.safetensors")
    generator = WindowGenerator(kind, MODEL, weights=weights, engines=[TorchEngine()])
    box = prepared(generator, astronaut, 256)
    assert generator.wait_until_compiled(60)
    twin = twin_of(generator, MODEL, box, CPU)
    assert twin is not None
    rest = astronaut.motion
    for motion in motions_of(rest):
        window = MotionWindow((rest, rest, motion), past=2)
        off = np.abs(ours(twin, astronaut, window) - theirs(generator, astronaut, box, window))
        assert (off > BOUND).mean() < 2e-4


def test_a_face_that_is_too_large_is_for_the_cpu(astronaut: Enrollment) -> None:
    generator = GeometricGenerator(MODEL)
    box = prepared(generator, astronaut, 128)
    twin = twin_of(generator, MODEL, box, CPU)
    assert twin is not None
    motion = astronaut.motion
    near = replace(motion, translation_hu=motion.translation_hu * np.float32(0.3))
    mesh = pose_head(MODEL, astronaut, near, box.viewport)
    with pytest.raises(MisfitError, match="there is room for"):
        twin.tell(mesh, MotionWindow.of(near))


def test_a_generator_without_a_twin_is_drawn_on_the_cpu(astronaut: Enrollment) -> None:
    class Another(GeometricGenerator):
        pass

    generator = Another(MODEL)
    assert twin_of(generator, MODEL, prepared(generator, astronaut, 64), CPU) is None
