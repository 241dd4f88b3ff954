"""Eyes and mouth over a warped photo: calls and training lay the same, where the head model has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_generator import moved
from test_networked import MODEL, Laying, Warper, seen, weights_of

from engines.enrollment import Enrollment
from engines.generators.geometric.patch import Box, Patch, layered
from engines.generators.networked.blueprint import laid_over, warped
from engines.generators.networked.openings import Openings
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


def openings_of(e: Enrollment, motion: Motion, side_px: int = 256) -> list[Patch]:
    viewport = head_viewport(e, side_px)
    mesh = pose_head(MODEL, e, motion, viewport)
    return [p for p in Openings.of(MODEL, e, viewport).drawn(mesh, viewport, motion) if p is not None]


@pytest.mark.slow
@pytest.mark.parametrize("blink", [0.0, 1.0])
def test_a_call_lays_what_the_head_model_has_between_lids_and_lips(
    astronaut: Enrollment, tmp_path: Path, blink: float
) -> None:
    motion = moved(astronaut.motion, yaw=8, jawOpen=0.6, eyeBlinkLeft=blink, eyeBlinkRight=blink)
    plain, laid = (drawn(kind, astronaut, motion, tmp_path).astype(int) for kind in (Warper, Laying))
    found = openings_of(astronaut, motion)
    assert len(found) == 3
    changed = np.abs(laid - plain).max(2) > 0
    for patch in found:
        x0, y0, x1, y1 = patch.box
        whole = patch.alpha[..., 0] > 0.99
        assert whole.sum() > 20
        assert (
            np.abs(laid[y0:y1, x0:x1, :3] - patch.colour)[whole].max() <= 4
        )  # the rest is what engines round
        changed[y0:y1, x0:x1] = False
    x0, y0, x1, y1 = found[2].box
    assert np.abs(plain[y0:y1, x0:x1, :3] - found[2].colour)[found[2].alpha[..., 0] > 0.99].mean() > 20
    assert not changed.any()
    assert np.array_equal(plain[..., 3], laid[..., 3])


@pytest.mark.slow
def test_eyes_turn_with_the_gaze(astronaut: Enrollment) -> None:
    rest, aside = astronaut.motion, replace(astronaut.motion, gaze_rad=astronaut.motion.gaze_rad + 0.3)
    (a, *_), (b, *_) = (openings_of(astronaut, m) for m in (rest, aside))
    assert a.box == b.box
    assert np.array_equal(a.alpha, b.alpha)
    assert np.abs(a.colour - b.colour).max() > 30


@pytest.mark.slow
def test_training_lays_the_same(astronaut: Enrollment, drawn_pairs: Path) -> None:
    """In pairs it lies where a call has it, and over the photo that the flow has warped."""
    blueprint = Laying()
    store = Store(drawn_pairs, blueprint, torch.device("cpu"))
    lesson = lesson_of(store.gather(store.train[2:4], None), HeadTables.of(MODEL), blueprint)
    scene = lesson.scene
    assert scene.openings is not None
    inside = scene.openings.at(blueprint.window)
    networks = blueprint.networks()
    made = blueprint.make(networks, scene)
    assert made.flow is not None
    moved_photo = warped(scene.photo_at(blueprint.window), made.flow)
    within = (inside[:, 3:] > 0.99).expand(-1, 3, -1, -1)
    assert within.any()
    assert torch.allclose(made.rgba[:, :3][within], inside[:, :3][within], atol=0.01)
    beyond = (inside[:, 3:] == 0).expand(-1, 4, -1, -1)
    assert torch.equal(made.rgba[beyond], moved_photo[beyond])
    assert torch.equal(blueprint.moved(scene, made.flow), laid_over(moved_photo, inside))


@pytest.mark.slow
def test_pairs_hold_what_a_call_lays(astronaut: Enrollment) -> None:
    motion = moved(astronaut.motion, yaw=8, jawOpen=0.6)
    viewport = head_viewport(astronaut, 512)
    mesh = pose_head(MODEL, astronaut, motion, viewport)
    stored = Openings.of(MODEL, astronaut, viewport).picture(mesh, viewport, motion).astype(int)
    for patch in openings_of(astronaut, motion, 512):
        x0, y0, x1, y1 = patch.box
        assert np.abs(stored[y0:y1, x0:x1, :3] - patch.colour).max() <= 1
        assert np.abs(stored[y0:y1, x0:x1, 3] - 255 * patch.alpha[..., 0]).max() <= 1
        stored[y0:y1, x0:x1] = 0
    assert not stored.any()


def flat(box: Box, grey: float, alpha: float) -> Patch:
    high, wide = box[3] - box[1], box[2] - box[0]
    return Patch(box, np.full((high, wide, 3), grey, np.float32), np.full((high, wide, 1), alpha, np.float32))


def test_what_lies_beyond_a_picture_is_cut() -> None:
    whole, part = np.full((8, 9, 4), 100, np.uint8), np.full((3, 4, 4), 100, np.float32)
    flat((3, 2, 7, 6), 50, 0.5).over(whole)
    assert (whole[..., :3] == 100).all()
    assert (whole[2:6, 3:7, 3] == 178).all()  # half of what was there, half opaque
    patch = flat((3, 2, 7, 6), 70, 0.5)
    patch.over(whole)
    patch.over(part, left=5, top=4)
    patch.over(part, left=40, top=40)
    assert (whole[2:6, 3:7, :3] == 120).all()
    assert (whole[2:6, 3:7, 3] == 217).all()
    assert (whole[:2] == 100).all()
    assert (part[:2, :2, :3] == 120).all()
    assert (part[2:] == 100).all()


def test_patches_in_layers_are_one_over_the_other() -> None:
    below, above = flat((1, 1, 5, 4), 60, 0.5), flat((3, 2, 8, 7), 30, 0.25)
    one, after = (np.full((9, 9, 4), 200, np.float32) for _ in range(2))
    for patch in (below, above):
        patch.over(after)
    both = layered([below, above])
    assert both is not None
    assert both.box == (1, 1, 8, 7)
    both.over(one)
    assert np.abs(one - after).max() < 1e-3
    assert layered([]) is None
    assert layered([above]) is above


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
        scene.openings = Picture(inside)
        laid = blueprint.make(networks, scene)
    # an empty photo: what is laid is all that there is
    for drawn, without in [
        (laid.rgba, plain.rgba),
        *((laid.stages[s], plain.stages[s]) for s in blueprint.laid),
    ]:
        assert torch.allclose(drawn - without, inside, atol=1e-5)


def test_all_five_papers_lay_it() -> None:
    assert set(PAPERS) == {"ifaceuv", "multiguidance", "pwm", "pncc", "idmatch"}
