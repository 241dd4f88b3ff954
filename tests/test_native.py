"""The compiled drawing: each kernel draws what its Python original draws, and nobody misses it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import AT_LAST_S
from numpy.typing import NDArray

from engines.compile.names import PRECISION_SETTING
from engines.enrollment import Enrollment
from engines.errors import EngineError
from engines.generators.geometric.generator import GeometricGenerator, draw_layers
from engines.generators.networked.blend import blend_box, blend_window, move
from engines.generators.networked.boxes import TurnedBox, Window, cut_box, where_in_photo
from engines.generators.visavis import inputs
from engines.generators.visavis.compiled import Compiled, can_draw
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.native import build as building
from engines.native import loader
from engines.native.kernels import Crop, Kernels
from engines.native.loader import SETTING, Loader, make_kernels
from engines.picture.composite import composite
from engines.raster import gbuffer as grids
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, rasterise
from engines.raster.pose import head_viewport, pose_head, wide_viewport
from engines.renderer import Renderer
from streamer.check import doctor

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

ROOT = Path(__file__).parent.parent
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in building.COMPILERS),
    reason="no C compiler: apt-get install gcc libc6-dev",
)


def _refusing() -> Kernels:
    raise EngineError("not in this test")


@pytest.fixture
def by_opencv(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it has OpenCV draw from here on."""
    settled = Loader(_refusing)
    assert settled.wait(10)
    return lambda: monkeypatch.setattr(loader, "_loader", settled)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """The ones that this process draws with."""
    assert loader.wait_for_kernels()
    found = loader.kernels()
    assert found is not None, loader.refusal()
    return found


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


def _turned(rest: Motion, yaw: float, pitch: float, **expression: float) -> Motion:
    beta = rest.expression.copy()
    for name, value in expression.items():
        beta[ARKIT_INDEX[name]] = value
    turn = rotation_matrix(rotation_from_degrees(yaw, pitch, 0)) @ rotation_matrix(rest.rotation_rad)
    return replace(rest, rotation_rad=rotation_vector(turn).astype(np.float32), expression=beta)


MOTIONS = {
    "at rest": (0.0, 0.0, {}),
    "turned": (24.0, 6.0, {}),
    "turned back": (-28.0, -9.0, {"jawOpen": 0.8}),
    "down, speaking": (3.0, 14.0, {"jawOpen": 0.4, "mouthFunnel": 0.7}),
    "blinking": (-8.0, 0.0, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}),
}
VIEWS: dict[str, Callable[[Enrollment], Viewport]] = {
    "square": lambda e: head_viewport(e, 512),
    "wide": lambda e: wide_viewport(e, 640, 360),
    "odd": lambda e: replace(head_viewport(e, 300), width_px=287, height_px=233),
}


def _mesh(model: HeadModel, e: Enrollment, view: Viewport, which: str) -> tuple[HeadMesh, Motion]:
    yaw, pitch, expression = MOTIONS[which]
    motion = _turned(e.motion, yaw, pitch, **expression)
    return pose_head(model, e, motion, view), motion


def _differ(a: NDArray[np.generic], b: NDArray[np.generic], by: float) -> float:
    """Share of values that differ by more."""
    return float((np.abs(a.astype(np.float64) - b.astype(np.float64)) > by).mean())


# --- each kernel against its original ---------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("which", MOTIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_heads_are_rasterised_alike(
    kernels: Kernels,
    model: HeadModel,
    astronaut: Enrollment,
    by_opencv: Callable[[], None],
    which: str,
    view: str,
) -> None:
    viewport = VIEWS[view](astronaut)
    mesh, _ = _mesh(model, astronaut, viewport, which)
    chosen = grids.seen_triangles(model, [mesh], viewport)
    ours = [rasterise(model, mesh, viewport, 160, k) for k in (None, chosen)]
    by_opencv()
    theirs = [rasterise(model, mesh, viewport, 160, k) for k in (None, chosen)]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.part > 0).mean() > 0.1
        assert (a.part != b.part).sum() <= 2  # a pixel's middle on an edge
        same = a.part == b.part
        assert (
            _differ(a.uv[same] * 512, b.uv[same] * 512, 0.1) < 0.001
        )  # texels; of two at one depth either may win
        assert np.abs(a.depth_px - b.depth_px)[same].max() < 0.05


@needs_compiler
@pytest.mark.parametrize("which", MOTIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_layers_are_drawn_alike(
    kernels: Kernels,
    model: HeadModel,
    astronaut: Enrollment,
    by_opencv: Callable[[], None],
    which: str,
    view: str,
) -> None:
    viewport = VIEWS[view](astronaut)
    mesh, _ = _mesh(model, astronaut, viewport, which)
    generator = GeometricGenerator(model)
    cache = generator.prepare(astronaut, viewport)
    gbuffer = rasterise(model, mesh, viewport, 160)
    ours = draw_layers(cache, gbuffer)
    by_opencv()
    theirs = draw_layers(cache, gbuffer)
    assert np.abs(ours.flow - theirs.flow).max() < 2e-3
    assert np.abs(ours.seen - theirs.seen).max() < 1e-4
    # where head and body meet, a pixel may fall to the other one
    assert (np.abs(ours.picture.astype(int) - theirs.picture).max(-1) > 2).sum() <= 0.001 * ours.picture[
        ..., 0
    ].size
    assert _differ(ours.picture, theirs.picture, 0) < 0.03


def _drawn(
    model: HeadModel, e: Enrollment, viewport: Viewport, which: str
) -> tuple[U8, F32, GBuffer, Window, HeadMesh]:
    mesh, motion = _mesh(model, e, viewport, which)
    generator = GeometricGenerator(model)
    gbuffer = rasterise(model, mesh, viewport, 160)
    layers = generator.draw(generator.prepare(e, viewport), gbuffer, motion)
    return layers.picture, layers.flow, gbuffer, Window.of(e, viewport), mesh


@needs_compiler
@pytest.mark.parametrize("which", ["at rest", "turned back"])
@pytest.mark.parametrize("view", ["square", "wide"])
def test_networks_see_the_same(
    kernels: Kernels, model: HeadModel, astronaut: Enrollment, which: str, view: str
) -> None:
    viewport = VIEWS[view](astronaut)
    picture, flow, gbuffer, window, mesh = _drawn(model, astronaut, viewport, which)
    prepared = inputs.prepare_guides(astronaut)
    low, guide, where = Compiled(kernels).see_head(picture, flow, prepared, gbuffer, window)
    colours, part = inputs.guides(prepared, gbuffer, window)
    expected = inputs.head_guide(colours, part).transpose(2, 0, 1)
    assert low.shape == (1, 4, 128, 128)
    assert guide.shape == (1, 10, 128, 128)
    assert where.shape == (1, 32, 32, 2)
    assert np.array_equal(guide[0, 7:].numpy(), expected[7:])
    assert guide[0, 7:].sum() > 500
    assert _differ(guide[0, :7].numpy() * 255, expected[:7] * 255, 1.01) == 0
    assert _differ(guide[0, :7].numpy(), expected[:7], 1e-6) < 0.01  # cut off, not rounded: 1 more or less
    assert np.abs(where[0].numpy() - where_in_photo(flow, gbuffer, window)).max() < 1e-5
    small = inputs.low_picture(picture, window).transpose(2, 0, 1).astype(np.float32)
    assert np.abs(low[0].numpy() * 255 - small).max() < 1.01
    boxes = [
        (inputs.mouth_box(mesh), False, 96),
        *zip(inputs.eye_boxes(mesh), (False, True), (64, 64), strict=True),
    ]
    for box, mirrored, size in boxes:
        for scale in (1.0, 3.7):  # a large crop is averaged
            box = replace(box, side_px=box.side_px * scale)
            if size == 96:
                crop, parts = Compiled(kernels).see_mouth(picture, gbuffer, box)
                masks = inputs.mouth_guide(inputs.part_crop(gbuffer, box, size))
            else:
                crop, parts = Compiled(kernels).see_eye(picture, gbuffer, box, mirrored=mirrored)
                masks = inputs.eye_guide(inputs.part_crop(gbuffer, box, size, mirrored=mirrored))
            expected = cut_box(picture, box, size, mirrored=mirrored)[..., :3].transpose(2, 0, 1)
            assert np.abs(crop[0].numpy() * 255 - expected).max() < 2.01
            assert _differ(parts[0].numpy(), masks.transpose(2, 0, 1), 0) < 0.004


@needs_compiler
@pytest.mark.parametrize("view", ["square", "wide"])
@pytest.mark.parametrize("strength", [0.0, 0.003, 0.03])
def test_what_networks_say_is_blended_alike(
    kernels: Kernels, astronaut: Enrollment, view: str, strength: float
) -> None:
    viewport = VIEWS[view](astronaut)
    window = Window.of(astronaut, viewport)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (viewport.height_px, viewport.width_px, 4), dtype=np.uint8)
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 2), np.uint8)
    flow = cv2.GaussianBlur(rng.normal(size=(64, 64, 2)).astype(np.float32), (0, 0), 4) * np.float32(
        8 * strength
    )
    flow[:20] = 0
    layers = cv2.GaussianBlur(rng.random((128, 128, 9)).astype(np.float32), (0, 0), 3)
    layers = np.clip((layers - 0.48) * 20, 0, 1).transpose(2, 0, 1).copy()
    layers[:, :40] = 0
    expected = move(picture, flow, window).copy()
    moved = Compiled(kernels).complete(
        picture, window, torch.from_numpy(flow.transpose(2, 0, 1)[None].copy()), None
    )
    assert (strength > 0) == (not np.array_equal(expected, picture))
    assert np.abs(moved.astype(int) - expected).max() <= 1
    both = Compiled(kernels).complete(
        picture,
        window,
        torch.from_numpy(flow.transpose(2, 0, 1)[None].copy()),
        torch.from_numpy(layers[None]),
    )
    as_bytes = np.asarray(cv2.convertScaleAbs(layers.reshape(-1, 128), alpha=255), np.uint8)
    blend_window(expected, as_bytes.reshape(9, 128, 128), window)
    assert not np.array_equal(both, moved)
    assert np.abs(both.astype(int) - expected).max() <= 3
    assert _differ(both, expected, 1) < 0.01


@needs_compiler
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("centre", [(200.0, 180.0), (3.0, 250.0), (-80.0, 20.0)])
@pytest.mark.parametrize("side", [30.0, 140.0])
def test_crops_are_blended_alike(
    kernels: Kernels, mirrored: bool, centre: tuple[float, float], side: float
) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (300, 400, 4), dtype=np.uint8)
    picture = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    picture[..., 3] = np.clip(picture[..., 3].astype(int) * 2 - 80, 0, 255)
    layers = cv2.GaussianBlur(rng.random((96, 96, 7)).astype(np.float32), (0, 0), 3).transpose(2, 0, 1).copy()
    layers *= np.minimum(
        1, np.hypot(*np.mgrid[-48:48, -48:48]) < 44
    )  # as those of a path, nothing at the rim
    box = TurnedBox(np.array(centre), side, 0.3)
    ours, theirs = picture.copy(), picture.copy()
    Compiled(kernels).paint(ours, torch.from_numpy(layers), box, mirrored=mirrored)
    blend_box(
        theirs,
        cv2.convertScaleAbs(layers.reshape(-1, 96), alpha=255).reshape(7, 96, 96),
        box,
        mirrored=mirrored,
    )
    inside = centre[0] > -side / 2  # of the crop the picture has some
    assert np.array_equal(ours, picture) is not inside
    assert np.abs(ours.astype(int) - theirs).max() <= 3
    assert _differ(ours, theirs, 1) < 0.01
    assert np.array_equal(ours[..., 3], picture[..., 3])


@needs_compiler
@pytest.mark.parametrize("generator", ["geometric", "visavis"])
@pytest.mark.parametrize(("size_px", "aspect"), [(512, "1:1"), (256, "1:1"), (360, "16:9")])
def test_a_call_draws_the_same(
    kernels: Kernels,
    astronaut: Enrollment,
    by_opencv: Callable[[], None],
    generator: str,
    size_px: int,
    aspect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PRECISION_SETTING, "fp32")  # of whole numbers the nearest may be another

    def drawn() -> list[U8]:
        renderer = Renderer(astronaut, generator=generator, size_px=size_px, aspect=aspect)  # pyright: ignore[reportArgumentType]
        assert renderer.wait_until_compiled()
        return [
            renderer.render(_turned(astronaut.motion, yaw, pitch, **beta))
            for yaw, pitch, beta in MOTIONS.values()
        ]

    ours = drawn()
    by_opencv()
    for a, b in zip(ours, drawn(), strict=True):
        off = np.abs(a.astype(int) - b).max(-1)
        assert (off > 2).mean() < 0.001
        # of 255: networks make more of what is rounded otherwise
        assert off.mean() < (0.25 if generator == "visavis" else 0.05)


# --- what goes wrong --------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_no_vertex_can_hurt(kernels: Kernels, model: HeadModel, astronaut: Enrollment, odd: float) -> None:
    viewport = head_viewport(astronaut, 128)
    mesh, motion = _mesh(model, astronaut, viewport, "turned")
    vertices = mesh.vertices_px.copy()
    vertices[::7] = odd
    broken = rasterise(model, replace(mesh, vertices_px=vertices), viewport, 160)
    generator = GeometricGenerator(model)
    cache = generator.prepare(astronaut, viewport)
    assert generator.draw(cache, broken, motion).picture.shape == (128, 128, 4)
    away = rasterise(model, replace(mesh, vertices_px=mesh.vertices_px + np.float32(odd)), viewport, 160)
    assert not away.part.any()
    assert draw_layers(cache, away).picture[..., 3].max() > 0


@pytest.mark.parametrize(
    ("left", "top", "side", "drawn"),
    [
        (0, 0, 300, True),
        (-299, 399, 300, True),  # a pixel of it
        (-300, 0, 300, False),
        (0, 400, 300, False),
        (500, 0, 300, False),
        (0, 0, 127, False),
        (-(2**40), 0, 2**41, False),
    ],
)
def test_windows_that_the_kernels_draw(left: int, top: int, side: int, drawn: bool) -> None:
    assert can_draw(Window(left, top, side), Viewport(0, 0, 1, 500, 400)) is drawn


@needs_compiler
@pytest.mark.parametrize("place", [(-299, -200), (499, 399), (-100, 350)])
def test_a_window_half_beside_the_picture(kernels: Kernels, place: tuple[int, int]) -> None:
    """Its edge goes on, as when OpenCV cuts it out."""
    rng = np.random.default_rng(2)
    picture = np.asarray(
        cv2.GaussianBlur(rng.integers(0, 256, (400, 500, 4), dtype=np.uint8), (0, 0), 3), np.uint8
    )
    window = Window(*place, 300)
    grid = (
        np.zeros((40, 50, 2), np.float32),
        np.zeros((40, 50), np.uint8),
        np.zeros((40, 50, 2), np.float32),
    )
    maps = (np.zeros((8, 8, 4), np.float32), np.zeros((8, 8, 3), np.float32))
    none = np.zeros(256, np.uint8)
    low, guide, _ = kernels.window(picture, (*place, 300), grid, maps, (none, none, none))
    assert np.abs(low * 255 - inputs.low_picture(picture, window).transpose(2, 0, 1)).max() < 1.01
    assert not guide.any()


@needs_compiler
def test_a_person_is_laid_over_a_background_to_the_bit(
    kernels: Kernels, by_opencv: Callable[[], None]
) -> None:
    """All pairs of alpha and background, and colours that are too bright for their alpha."""
    by_opencv()
    alpha, behind = np.mgrid[0:256, 0:256].astype(np.uint8)
    rng = np.random.default_rng(0)
    for colour in (np.zeros((256, 256, 3), np.uint8), rng.integers(0, 256, (256, 256, 3)).astype(np.uint8)):
        rgba = np.dstack([colour, alpha])
        background = np.repeat(behind[..., None], 3, 2)
        assert np.array_equal(kernels.over(rgba, background), composite(rgba, background))
    with pytest.raises(TypeError):
        kernels.over(rgba, background[:-1])


@needs_compiler
def test_arrays_of_another_kind_are_refused(kernels: Kernels) -> None:
    crop = Crop.of(np.eye(2, 3), 8)
    with pytest.raises(TypeError, match="takes uint8 in one piece, 256 of them, not 256 of float32"):
        kernels.crop(np.zeros((8, 8, 4), np.float32), crop)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="448 of them, not 441 of float32"):
        kernels.blend_crop(np.zeros((8, 8, 4), np.uint8), crop, np.zeros((9, 7, 7), np.float32))
    with pytest.raises(TypeError, match="in one piece"):
        kernels.crop(np.zeros((8, 8, 8), np.uint8)[..., ::2], crop)


@needs_compiler
def test_a_large_picture_has_room(
    kernels: Kernels, model: HeadModel, astronaut: Enrollment, by_opencv: Callable[[], None]
) -> None:
    """More than the first room: the call is made again with more."""
    viewport = head_viewport(astronaut, 2048)
    mesh, _ = _mesh(model, astronaut, viewport, "turned")
    cache = GeometricGenerator(model).prepare(astronaut, viewport)
    gbuffers = [rasterise(model, mesh, viewport, grid_px) for grid_px in (160, 900)]
    ours = [draw_layers(cache, g).picture for g in gbuffers]
    by_opencv()
    for picture, gbuffer in zip(ours, gbuffers, strict=True):
        theirs = draw_layers(cache, gbuffer).picture
        assert (np.abs(picture.astype(int) - theirs).max(-1) > 2).mean() < 0.003


def test_nobody_waits_for_the_compiler() -> None:
    """What draws first is OpenCV; a call finds the kernels once they are there."""
    go, made = threading.Event(), object()

    def make() -> Kernels:
        assert go.wait(60)
        return made  # pyright: ignore[reportReturnType]

    loading = Loader(make)
    assert loading.get() is None
    assert loading.get() is None
    assert not loading.wait(0)
    assert loading.refusal is None
    go.set()
    assert loading.wait(60)
    assert loading.get() is made
    assert loading.refusal is None


def test_the_doctor_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_folder: Path) -> None:
    _compiler(monkeypatch, tmp_path, "exit 1")
    (check,) = doctor.drawing_checks()
    assert (check.status, check.detail) == ("ok", f"{tmp_path / 'my cc'} will compile it on first use")
    monkeypatch.setattr("engines.native.loader.is_whole", lambda _: True)
    assert doctor.drawing_checks()[0].detail == "compiled for this CPU"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = doctor.drawing_checks()
    assert (check.status, check.fix) == ("warn", "sudo apt-get install gcc libc6-dev")
    monkeypatch.setenv(SETTING, "off")
    assert doctor.drawing_checks()[0].fix == "unset VISAVIS_NATIVE"
    assert not own_folder.exists()  # nothing was made


def test_off_means_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "off")
    loading = Loader(make_kernels)
    assert loading.wait(60)
    assert loading.get() is None
    assert loading.refusal == "VISAVIS_NATIVE=off, so OpenCV draws"


def test_no_compiler_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(EngineError, match=r"no C compiler, so OpenCV draws, .*apt-get install gcc"):
        make_kernels()


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where libraries are kept in this test."""
    monkeypatch.setattr(building, "library_folder", lambda: tmp_path / "native")
    return tmp_path / "native"


def _compiler(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Have `script` be the compiler."""
    path = folder / "my cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", f"'{path}' -g0")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'raster.c:1: no such header' >&2; exit 1", "raster.c:1: no such header"),
        ("exit 3", "it ended with 3"),
        ("exit 0", "it ended with 0"),  # and made nothing
    ],
)
def test_a_compiler_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_folder: Path, script: str, told: str
) -> None:
    _compiler(monkeypatch, tmp_path, script)
    with pytest.raises(EngineError, match=f"could not be compiled, so OpenCV draws: {told}"):
        make_kernels()
    assert not list(own_folder.iterdir())


def test_a_compiler_that_makes_something_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_folder: Path
) -> None:
    _compiler(monkeypatch, tmp_path, 'while [ "$1" != -o ]; do shift; done; echo no library > "$2"')
    with pytest.raises(EngineError, match="does not load"):
        make_kernels()


@needs_compiler
def test_a_damaged_library_is_made_again(own_folder: Path) -> None:
    """Never loaded: half a library would end the process."""
    make_kernels()
    (path,) = own_folder.glob("*.so")
    whole = path.read_bytes()
    made = path.stat().st_mtime_ns
    make_kernels()  # kept, not compiled
    assert path.stat().st_mtime_ns == made
    for spoil in (lambda: path.write_bytes(whole[:5000]), lambda: path.with_suffix(".sha256").unlink()):
        path.unlink()  # what is loaded keeps its own
        path.write_bytes(whole)
        spoil()
        make_kernels()
        assert building.is_whole(path)
        assert len(path.read_bytes()) == len(whole)


@needs_compiler
def test_changed_sources_are_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = building.find_compiler()
    before = building.library_path(compiler)
    copied = tmp_path / "native"
    shutil.copytree(building.HERE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(building, "HERE", copied)
    assert building.library_path(compiler) == before
    with (copied / "grid.h").open("a") as file:
        file.write("// changed\n")
    assert building.library_path(compiler) != before


@needs_compiler
def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(building, "library_folder", lambda: tmp_path / "file" / "native")
    with pytest.raises(EngineError, match=r"could not be compiled, so OpenCV draws: .*Not a directory"):
        make_kernels()


@needs_compiler
def test_loading_prunes_what_is_old(own_folder: Path) -> None:
    for number in range(5):
        path = own_folder / f"old{number}.so"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        path.with_suffix(".sha256").write_text("digest")
        os.utime(path.with_suffix(".sha256"), (0, number))
    make_kernels()
    (own,) = [p for p in own_folder.glob("*.so") if not p.name.startswith("old")]
    assert {p.name for p in own_folder.glob("*.so")} == {own.name, "old2.so", "old3.so", "old4.so"}


@needs_compiler
@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "from engines.native.loader import *; assert wait_for_kernels() and kernels() is not None, refusal()"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop(SETTING, None)
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(p.suffix for p in (tmp_path / "visavis" / "native").iterdir()) == [".sha256", ".so"]


def test_files_that_cannot_be_opened_are_a_reason_and_no_traceback() -> None:
    def make() -> Kernels:
        raise OSError(24, "Too many open files")

    loading = Loader(make)
    assert loading.wait(AT_LAST_S)
    assert loading.get() is None
    assert "Too many open files" in (loading.refusal or "")
