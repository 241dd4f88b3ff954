"""The mouth's inside over a warped photo: calls and training lay the same, where the head model has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_generator import moved
from test_networked import MODEL, Laying, Warper, seen, weights_of

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.geometric.mouth_inside import Inside
from engines.generators.networked.base_picture import BASE_PX, BasePicture
from engines.generators.networked.blueprint import warped
from engines.generators.networked.drawn_mouth import DrawnMouth, laid_over
from engines.generators.networked.picture import Picture
from engines.generators.networked.surface import HeadTables
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.raster.pose import head_viewport, pose_head
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

U8 = NDArray[np.uint8]
PAPERS = [n for n, entry in GENERATORS.items() if entry.blueprint is not None and entry.blueprint().laid]


def drawn(kind: type[Warper], e: Enrollment, motion: Motion, folder: Path) -> U8:
    generator = WindowGenerator(
        kind, MODEL, weights=weights_of(kind, folder / f"{kind.__name__}.safetensors")
    )
    viewport = head_viewport(e, 256)
    gbuffer = seen(e, motion, generator.window(e, viewport))
    return generator.render(generator.prepare(e, viewport), gbuffer, MotionWindow((motion,) * 3, 2))


def inside_of(e: Enrollment, motion: Motion, side_px: int = 256) -> Inside | None:
    viewport = head_viewport(e, side_px)
    mesh = pose_head(MODEL, e, motion, viewport)
    return DrawnMouth.of(MODEL, e, viewport).inside(mesh, viewport)


@pytest.mark.slow
def test_a_call_lays_what_the_head_model_has_between_the_lips(astronaut: Enrollment, tmp_path: Path) -> None:
    motion = moved(astronaut.motion, yaw=8, jawOpen=0.6)
    plain, laid = (drawn(kind, astronaut, motion, tmp_path).astype(int) for kind in (Warper, Laying))
    inside = inside_of(astronaut, motion)
    assert inside is not None
    x0, y0, x1, y1 = inside.box
    whole = inside.alpha[..., 0] > 0.99
    assert whole.sum() > 100
    assert np.abs(laid[y0:y1, x0:x1, :3] - inside.colour)[whole].max() <= 3  # the rest is what engines round
    assert np.abs(plain[y0:y1, x0:x1, :3] - inside.colour)[whole].mean() > 20
    changed = np.abs(laid - plain).max(2) > 0
    changed[y0:y1, x0:x1] = False
    assert not changed.any()
    assert np.array_equal(plain[..., 3], laid[..., 3])


@pytest.mark.slow
def test_nothing_lies_between_closed_lips(astronaut: Enrollment, tmp_path: Path) -> None:
    closed = moved(astronaut.motion, yaw=5, jawOpen=0.0)
    found = inside_of(astronaut, closed)
    assert found is None or found.alpha.max() <= 1
    assert drawn(Laying, astronaut, astronaut.motion, tmp_path).shape == (256, 256, 4)


@pytest.mark.slow
def test_training_lays_the_same(astronaut: Enrollment, drawn_pairs: Path) -> None:
    """In pairs it lies where a call has it, and over the photo that the flow has warped."""
    blueprint = Laying()
    store = Store(drawn_pairs, blueprint, torch.device("cpu"))
    lesson = lesson_of(store.gather(store.train[2:4], None), HeadTables.of(MODEL), blueprint)
    scene = lesson.scene
    assert scene.inside is not None
    inside = scene.inside.at(blueprint.window)
    networks = blueprint.networks()
    made = blueprint.make(networks, scene)
    assert made.flow is not None
    moved_photo = warped(scene.photo_at(blueprint.window), made.flow)
    within = (inside[:, 3:] > 0.99).expand(-1, 3, -1, -1)
    assert within.any()
    assert torch.allclose(made.rgba[:, :3][within], inside[:, :3][within], atol=0.01)
    beyond = (inside[:, 3:] == 0).expand(-1, 4, -1, -1)
    assert torch.equal(made.rgba[beyond], moved_photo[beyond])
    assert torch.equal(made.rgba[:, 3:], moved_photo[:, 3:])
    assert torch.equal(blueprint.moved(scene, made.flow), laid_over(moved_photo, inside))


@pytest.mark.slow
def test_pairs_hold_what_a_call_lays(astronaut: Enrollment) -> None:
    motion = moved(astronaut.motion, yaw=8, jawOpen=0.6)
    base = BasePicture(GeometricGenerator(MODEL), astronaut)
    stored = base.inside(pose_head(MODEL, astronaut, motion, base.viewport)).astype(int)
    inside = inside_of(astronaut, motion, BASE_PX)
    assert inside is not None
    x0, y0, x1, y1 = inside.box
    assert np.abs(stored[y0:y1, x0:x1, :3] - inside.colour).max() <= 1
    assert np.abs(stored[y0:y1, x0:x1, 3] - 255 * inside.alpha[..., 0]).max() <= 1
    stored[y0:y1, x0:x1] = 0
    assert not stored.any()


def test_what_lies_beyond_a_picture_is_cut() -> None:
    inside = Inside((3, 2, 7, 6), np.full((4, 4, 3), 50, np.float32), np.full((4, 4, 1), 0.5, np.float32))
    whole, part = np.full((8, 9, 4), 100, np.uint8), np.full((3, 4, 4), 100, np.float32)
    inside.paint(whole)
    assert (whole[2:6, 3:7, :3] == 100).all()
    inside = Inside(inside.box, inside.colour + 20, inside.alpha)
    inside.paint(whole)
    inside.paint(part, left=5, top=4)
    assert (whole[2:6, 3:7, :3] == 120).all()
    assert (whole[2:6, 3:7, 3] == 100).all()
    assert (whole[:2] == 100).all()
    assert (part[:2, :2, :3] == 120).all()
    assert (part[2:] == 100).all()
    inside.paint(part, left=40, top=40)


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_lays_it_in_its_stages_and_its_picture(name: str) -> None:
    entry = GENERATORS[name].blueprint
    assert entry is not None
    blueprint = entry()(height_px=128)
    size, scene = blueprint.window, blueprint.example()
    networks = blueprint.networks().eval()
    inside = torch.zeros(1, 4, size.height_px, size.width_px)
    inside[:, :, 70:80, 50:60] = torch.tensor([0.4, 0.1, 0.1, 0.5])[:, None, None]
    with torch.no_grad():
        plain = blueprint.make(networks, scene)
        scene.inside = Picture(inside)
        laid = blueprint.make(networks, scene)
    # an empty photo: what is laid is all that there is of colour
    wanted = torch.cat([inside[:, :3], torch.zeros_like(inside[:, 3:])], 1)
    for drawn, without in [
        (laid.rgba, plain.rgba),
        *((laid.stages[s], plain.stages[s]) for s in blueprint.laid),
    ]:
        assert torch.allclose(drawn - without, wanted, atol=1e-5)


def test_all_five_papers_lay_it() -> None:
    assert set(PAPERS) == {"ifaceuv", "multiguidance", "pwm", "pncc", "idmatch"}
