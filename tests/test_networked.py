"""Generators with networks: what they see, where it is put, and that training and calls see alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_generator import moved
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from engines.compile.weights import NetworkKind, WeightsHeader, arrays_of, save_weights
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators.networked import base
from engines.generators.networked.blueprint import Blueprint, Made, config_of, load_networks, warped
from engines.generators.networked.discriminators import folded, load_folded
from engines.generators.networked.lesson import Judges, Lesson
from engines.generators.networked.paste import Paste, premultiplied
from engines.generators.networked.picture import Picture, Size, Tint
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS, windowed
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.raster.conditioning import computed_flow, computed_occlusion, face_mask, pncc, rendered_face
from engines.raster.gbuffer import GBuffer, Viewport, rasterise, rasterise_triangles
from engines.raster.pose import head_viewport, head_window, pose_head
from engines.renderer import Aspect, Renderer
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

U8 = NDArray[np.uint8]
MODEL = load_head_model()


@dataclass(frozen=True)
class Widths:
    """Of the toy below."""

    width: int = 4


class Unmoved(nn.Module):
    """Draws the photo through a flow of its own, which is nothing until it learns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flow = nn.Conv2d(6, width, 3, 1, 1)
        self.last = nn.Conv2d(width, 2, 3, 1, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, photo: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        own = flow + self.last(torch.relu(self.flow(torch.cat([photo, flow], 1))))
        return warped(photo, own), own


class Warper(Blueprint[Widths]):
    """The computed flow and nothing else."""

    kind = NetworkKind("warper", 1, "scripts.train")
    config_type = Widths
    window = Size(96, 128)
    past = 2

    def networks(self) -> nn.Module:
        return Unmoved(self.config.width)

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        assert scene.motions.shape[1] == 3
        return scene.photo_at(self.window), scene.flow()

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        return {"l1": (lesson.over(made.rgba) - lesson.truth_at(self.window)).abs().mean()}


class Laying(Warper):
    """The same with eyes and mouth over the photo."""

    laid = ("warped",)


class Adding(nn.Module):
    """Nothing, until it has learnt something."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Conv2d(6, 4, 1)
        nn.init.zeros_(self.more.weight)
        nn.init.zeros_(self.more.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, picture: Tensor, where: Tensor) -> Tensor:
        large = nn.functional.interpolate(where.permute(0, 3, 1, 2), size=picture.shape[2:])
        return picture + self.more(torch.cat([picture, large], 1))


class Completer(Blueprint[Widths]):
    """The base's picture and nothing else."""

    kind = NetworkKind("completer", 1, "scripts.train")
    config_type = Widths
    window = Size(192, 256)
    base = "geometric"

    def networks(self) -> nn.Module:
        return Adding()

    def inputs(self, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        assert scene.picture is not None
        assert scene.where is not None
        return scene.picture.at(self.window), scene.where

    def losses(self, made: Made, lesson: Lesson, judges: Judges) -> dict[str, Tensor]:
        return {"l1": (lesson.over(made.rgba) - lesson.truth_at(self.window)).abs().mean()}


def weights_of(blueprint: type[Blueprint[Widths]], path: Path) -> Path:
    torch.manual_seed(0)
    header = WeightsHeader(blueprint.kind.name, blueprint.kind.version, {"width": 5}, "MIT")
    save_weights(path, arrays_of(blueprint(Widths(5)).networks(), np.float32), header)
    return path


@pytest.fixture
def warper(tmp_path: Path) -> WindowGenerator:
    return WindowGenerator(Warper, MODEL, weights=weights_of(Warper, tmp_path / "warper.safetensors"))


def seen(e: Enrollment, motion: Motion, window: Viewport) -> GBuffer:
    return rasterise_triangles(MODEL, pose_head(MODEL, e, motion, window), window)


# --- the grid of triangles -------------------------------------------------------------------------


def test_triangles_show_what_the_gbuffer_shows(astronaut: Enrollment) -> None:
    """Drawn in one pass by the rasteriser, or looked up through the triangle of each pixel: the same picture."""
    window = head_window(astronaut, 160, 160)
    motion = moved(astronaut.motion, yaw=15, jawOpen=0.6)
    found = seen(astronaut, motion, window)
    drawn = rasterise(MODEL, pose_head(MODEL, astronaut, motion, window), window, 160)
    assert found.triangle is not None
    assert ((found.triangle >= 0) == (found.part > 0)).all()
    assert (found.part == drawn.part).mean() > 0.999
    both = (found.part > 0) & (found.part == drawn.part)
    assert np.abs(found.uv - drawn.uv)[both].max(-1).mean() < 2e-4
    assert np.abs(found.depth_px - drawn.depth_px)[both].mean() < 0.1


def test_a_window_of_another_shape_shows_the_same_head(astronaut: Enrollment) -> None:
    square, wide = head_window(astronaut, 128, 128), head_window(astronaut, 160, 128)
    assert square == head_viewport(astronaut, 128)
    assert wide.scale == square.scale
    a, b = (seen(astronaut, astronaut.motion, w).part for w in (square, wide))
    assert (b[:, 16:-16] == a).mean() > 0.999


def test_a_mesh_is_told_in_another_viewport(astronaut: Enrollment) -> None:
    here, there = head_window(astronaut, 96, 128), head_viewport(astronaut, 300)
    motion = moved(astronaut.motion, yaw=12)
    direct, told = (pose_head(MODEL, astronaut, motion, v) for v in (here, there))
    again = told.seen_in(there, here)
    assert np.abs(again.vertices_px - direct.vertices_px)[:, :2].max() < 0.01
    assert np.abs(again.landmarks_px - direct.landmarks_px)[:, :2].max() < 0.01
    assert again.pose.scale == pytest.approx(direct.pose.scale)
    assert again.pose.shift[:2] == pytest.approx(direct.pose.shift[:2])


# --- what networks see -----------------------------------------------------------------------------


def scene_of(e: Enrollment, motion: Motion, warper: WindowGenerator) -> tuple[Scene, GBuffer]:
    found: list[Scene] = []
    inputs = warper.blueprint.inputs

    def watch(networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        found.append(scene)
        return inputs(networks, scene)

    warper.blueprint.inputs = watch
    window = warper.window(e, head_viewport(e, 256))
    gbuffer = seen(e, motion, window)
    warper.render(warper.prepare(e, head_viewport(e, 256)), gbuffer, MotionWindow((motion,) * 3, 2))
    return found[-1], gbuffer


@pytest.mark.slow
def test_lookups_are_those_of_the_conditioning(astronaut: Enrollment, warper: WindowGenerator) -> None:
    """Train and serve alike: in torch by triangle what NumPy looks up in UV maps."""
    scene, gbuffer = scene_of(astronaut, moved(astronaut.motion, yaw=15, jawOpen=0.4), warper)
    covered = gbuffer.part > 0
    # UV seams and borders of parts: there a UV map blends what lies on both sides
    inner = torch.nn.functional.max_pool2d(torch.from_numpy(~covered)[None].float(), 5, 1, 2)[0].numpy() == 0
    sides = np.array([scene.size.width_px, scene.size.height_px], np.float32)
    pairs = {
        "flow": (scene.flow(), computed_flow(astronaut.uv_position_px, gbuffer) / sides, 0.004),
        "occlusion": (
            scene.occlusion(),
            computed_occlusion(astronaut.uv_visibility, gbuffer)[..., None],
            0.01,
        ),
        "colour": (scene.rendered_face(), rendered_face(astronaut.uv_colour, gbuffer), 0.01),
        "pncc": (scene.pncc(), pncc(astronaut.uv_pncc, gbuffer), 0.01),
        "mask": (scene.mask(), face_mask(gbuffer)[..., None], 1e-6),
    }
    for name, (ours, theirs, bound) in pairs.items():
        found = ours[0].permute(1, 2, 0).numpy()
        assert found.shape == theirs.shape, name
        assert np.abs(found - theirs)[inner].mean() < bound, name
        assert np.abs(found[~covered]).max() == 0, name


@pytest.mark.slow
def test_training_and_calls_see_the_same_photo(
    astronaut: Enrollment, warper: WindowGenerator, drawn_pairs: Path
) -> None:
    """In its window, finer than that, in crops, and with its own background."""
    blueprint = Warper()
    store = Store(drawn_pairs, blueprint, torch.device("cpu"))
    lesson = lesson_of(store.gather(store.train[:1], None), HeadTables.of(MODEL), blueprint)
    live, _ = scene_of(astronaut, astronaut.motion, warper)
    place = torch.tensor([[[0.2, 0, 0], [0, 0.2, 0.1]]])
    for size in (Warper.window, Size(192, 256)):
        views = [
            (
                scene.photo_at(size),
                scene.photo.crop(place, size),
                replace(scene.photo, alpha="beside").at(size),
            )
            for scene in (live, lesson.scene)
        ]
        for ours, theirs in zip(*views, strict=True):
            assert float((ours - theirs).abs().mean()) < 3 / 255
    assert live.photo_at(Warper.window) is live.photo_at(Warper.window)


@pytest.mark.slow
def test_at_the_photos_own_pose_nothing_moves(astronaut: Enrollment, warper: WindowGenerator) -> None:
    scene, _ = scene_of(astronaut, astronaut.motion, warper)
    assert float(scene.flow().abs().max()) < 1e-5
    assert torch.equal(scene.pncc(), scene.own_pncc())
    by_triangle = scene.occlusion_by_triangle()
    assert torch.equal(by_triangle, scene.covered())
    turned, _ = scene_of(astronaut, moved(astronaut.motion, yaw=25), warper)
    hidden = turned.covered() - turned.occlusion_by_triangle()
    assert 0.02 < float(hidden.mean()) < 0.4
    # both answers agree where the texels are sure
    sure = (turned.occlusion() < 0.02) & (turned.covered() > 0)
    assert float(hidden[sure].mean()) > 0.6


@pytest.mark.slow
def test_codes_are_tied_across_seams_and_learn(astronaut: Enrollment, warper: WindowGenerator) -> None:
    scene, _ = scene_of(astronaut, moved(astronaut.motion, yaw=10), warper)
    codes = torch.zeros(MODEL.vertex_count, 4, requires_grad=True)
    scene.codes(codes).sum().backward()
    assert codes.grad is not None
    reached = codes.grad.abs().sum(1) > 0
    assert reached.any()
    # only the first of the vertices at one place has a code
    assert (MODEL.weld[np.flatnonzero(reached.numpy())] == np.flatnonzero(reached.numpy())).all()
    one = scene.codes(torch.ones(MODEL.vertex_count, 1))
    assert torch.allclose(one, scene.covered(), atol=1e-5)


def test_every_vertex_has_one_in_the_mirror() -> None:
    tables = HeadTables.of(MODEL)
    mirrored = MODEL.mean_hu[tables.mirror.numpy()] * np.array([-1, 1, 1])
    off = np.linalg.norm(mirrored - MODEL.mean_hu, axis=1)
    assert np.median(off) < 0.02
    assert torch.equal(tables.weld[tables.mirror], tables.mirror)


# --- pictures through windows ----------------------------------------------------------------------


def test_a_picture_is_seen_through_its_window_and_in_a_mirror() -> None:
    ramp = torch.arange(64.0)[None, None, None].expand(2, 1, 64, 64) / 64
    window = torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0]]).expand(2, 2, 3)  # the right half's middle
    flip = torch.tensor([False, True])
    found = Picture(ramp, window, flip).at(Size(32, 32))
    assert found.shape == (2, 1, 32, 32)
    assert found[0, 0, 0, 0] == pytest.approx(32 / 64, abs=0.01)
    assert torch.allclose(found[1], found[0].flip(-1), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (24, 20), (64, 64)])
def test_a_picture_is_averaged_where_it_shrinks(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 64, 64)
    found = Picture(noise).at(Size(*size))
    assert float(found.mean()) == pytest.approx(float(noise.mean()), abs=0.02)
    if size[0] < 64:
        assert float(found.std()) < 0.75 * float(noise.std())


@pytest.mark.parametrize("width", [96, 128, 160])
def test_a_window_of_another_shape_is_as_sharp(width: int) -> None:
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 512, 512)
    square, other = (torch.tensor([[[0.75 * w / 128, 0, 0], [0, 0.75, 0]]]) for w in (128, width))
    found = Picture(noise, other).at(Size(width, 128))
    whole = Picture(noise, square).at(Size(128, 128))
    cut, edge = min(width, 128), (128 - min(width, 128)) // 2
    middle = (width - cut) // 2
    assert torch.allclose(found[..., middle : middle + cut], whole[..., edge : edge + cut], atol=1e-5)


def test_colours_are_tinted_within_their_alpha() -> None:
    rgba = torch.tensor([0.4, 0.2, 0.1, 0.5]).reshape(1, 4, 1, 1)
    tint = Tint(torch.full((1, 3), 2.0), torch.full((1, 3), 0.1))
    found = Picture(rgba, tint=tint).at(Size(1, 1)).flatten()
    assert found.tolist() == pytest.approx([0.5, 0.45, 0.25, 0.5])
    straight = Picture(rgba, tint=tint, alpha="straight").at(Size(1, 1)).flatten()
    assert straight.tolist() == pytest.approx([0.45, 0.25, 0.15, 0.5])
    beside = Picture(rgba, tint=tint, alpha="beside").at(Size(1, 1)).flatten()
    assert beside.tolist() == pytest.approx([0.9, 0.5, 0.3, 0.5])


# --- where it is put -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [200, 512])
def test_a_picture_unchanged_is_put_back_where_it_was(astronaut: Enrollment, side: int) -> None:
    viewport, window = head_viewport(astronaut, side), head_window(astronaut, 96, 128)
    paste = Paste.of(astronaut, viewport, window)
    still = premultiplied(astronaut, viewport)
    nothing = np.zeros((128, 96, 4), np.float32), np.zeros((32, 24, 2), np.float32)
    assert np.abs(paste.draw_warped(*nothing).astype(int) - still).max() <= 1
    low = (premultiplied(astronaut, window) / 255).astype(np.float32)
    blurred = paste.draw(low)
    assert blurred.shape == still.shape
    assert 0.1 < np.abs(blurred.astype(int) - still).mean() < 8  # in place, only not as sharp


def test_a_flow_moves_the_full_picture(astronaut: Enrollment) -> None:
    viewport, window = head_viewport(astronaut, 256), head_window(astronaut, 128, 128)
    paste = Paste.of(astronaut, viewport, window)
    flow = np.zeros((32, 32, 2), np.float32)
    flow[..., 0] = 8 / 256
    found = paste.draw_warped(np.zeros((128, 128, 4), np.float32), flow).astype(int)
    still = premultiplied(astronaut, viewport).astype(int)
    assert np.abs(found[32:-32, 32:-40] - still[32:-32, 40:-32]).max() <= 1


def test_a_window_beyond_the_viewport_is_cut(astronaut: Enrollment) -> None:
    whole = head_viewport(astronaut, 256)
    corner = replace(whole, origin_x_px=whole.origin_x_px + 40 / whole.scale, width_px=100, height_px=120)
    window = head_window(astronaut, 128, 128)
    low = np.random.default_rng(0).random((128, 128, 4), dtype=np.float32)
    part, all_of_it = (Paste.of(astronaut, v, window).draw(low) for v in (corner, whole))
    assert np.abs(part.astype(int) - all_of_it[:120, 40:140]).max() <= 1
    away = replace(whole, origin_x_px=whole.origin_x_px + 9000)
    assert Paste.of(astronaut, away, window).draw(low).shape == (256, 256, 4)


# --- the generator ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_a_blueprint_alone_draws_through_the_renderer(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: Aspect
) -> None:
    monkeypatch.setattr(Warper, "weights_path", lambda: weights_of(Warper, tmp_path / "w.safetensors"))
    monkeypatch.setitem(GENERATORS, "warper", windowed(lambda: Warper))
    renderer = Renderer(
        astronaut, generator="warper", size_px=256, aspect="16:9" if aspect == "16:9" else "1:1"
    )
    assert renderer.notice is None
    assert renderer.wait_until_compiled()
    assert renderer.generator_name == "warper"
    still = renderer.render(astronaut.motion).astype(int)
    assert np.abs(still - renderer.still).mean() < 0.5
    motion = moved(astronaut.motion, yaw=12)
    turned = renderer.render(motion).astype(int)
    floor = Renderer(astronaut, generator="geometric", size_px=256, aspect=aspect).render(motion)
    assert np.abs(turned - still).mean() > 1.5 * np.abs(turned - floor).mean()


@pytest.mark.slow
def test_motions_are_told_in_the_window_also_where_the_frame_shows_more_than_the_photo(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Warper, "weights_path", lambda: weights_of(Warper, tmp_path / "w.safetensors"))
    monkeypatch.setitem(GENERATORS, "warper", windowed(lambda: Warper))
    near = replace(astronaut, crop_px=(60.0, 0.0, 330.0))
    told: list[Tensor] = []
    inputs = Warper.inputs

    def watch(self: Warper, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        told.append(scene.motions)
        return inputs(self, networks, scene)

    monkeypatch.setattr(Warper, "inputs", watch)
    last: list[Tensor] = []
    aspects: tuple[Aspect, ...] = ("1:1", "16:9")
    for aspect in aspects:
        renderer = Renderer(near, generator="warper", size_px=128, aspect=aspect)
        for k in range(3):
            renderer.render(replace(moved(near.motion, yaw=4 * k), time_s=k / 25))
        last.append(told[-1])
    assert (last[0][0, 0] - last[0][0, 2]).abs().max() > 0.05
    assert torch.allclose(last[0], last[1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_a_base_draws_what_networks_complete(
    astronaut: Enrollment, aspect: Aspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that add nothing draw what geometry draws, and are told where it took it from."""
    path = weights_of(Completer, tmp_path / "completer.safetensors")
    monkeypatch.setattr(Completer, "weights_path", lambda: path)
    monkeypatch.setitem(GENERATORS, "completer", windowed(lambda: Completer))
    told: list[Tensor] = []
    inputs = Completer.inputs

    def watch(self: Completer, networks: nn.Module, scene: Scene) -> tuple[Tensor, ...]:
        assert scene.where is not None
        told.append(scene.where)
        return inputs(self, networks, scene)

    monkeypatch.setattr(Completer, "inputs", watch)
    near = replace(astronaut, crop_px=(60.0, 0.0, 330.0))
    drawn, floor = (
        Renderer(near, generator=name, size_px=256, aspect=aspect) for name in ("completer", "geometric")
    )
    assert drawn.notice is None
    motion = moved(near.motion, yaw=18, jawOpen=0.4)
    still, ours, theirs = (
        r.render(m).astype(int) for r, m in ((drawn, near.motion), (drawn, motion), (floor, motion))
    )
    assert np.abs(ours - theirs).mean() < 0.25 * np.abs(ours - still).mean()
    own, moved_there = told[-2], told[-1]
    centre = (torch.arange(32) + 0.5) / 16 - 1
    assert (own[0, 12:20, 12:20, 0] - centre[12:20]).abs().max() < 0.02
    assert (own - moved_there)[0, 12:20, 12:20, 0].abs().mean() > 0.01


def test_where_a_place_comes_from_is_mirrored_with_all_else() -> None:
    tables, size = HeadTables.of(MODEL), Size(4, 4)
    nothing = Scene.empty(tables, size)
    where = torch.rand(1, 32, 32, 2)
    seen = [
        Scene(
            tables, size, nothing.photo, nothing.posed, nothing.own, nothing.maps, nothing.motions,
            nothing.own_motion, flip=torch.tensor([flip]), where=where,
        ).where
        for flip in (False, True)
    ]  # fmt: skip
    assert seen[0] is not None
    assert seen[1] is not None
    assert torch.equal(seen[0], where)
    assert torch.equal(seen[1][..., 0], -where.flip(2)[..., 0])
    assert torch.equal(seen[1][..., 1], where.flip(2)[..., 1])


def test_weights_of_another_configuration_build_what_they_say(warper: WindowGenerator) -> None:
    assert warper.blueprint.config == Widths(5)
    assert config_of(Widths, {"width": 7, "height": 3}) == Widths(7)
    assert warper.config.past == 2


def test_a_part_that_nobody_has_cannot_be_left_out(tmp_path: Path) -> None:
    path = weights_of(Warper, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="warper has no part left_ear"):
        Warper(without=("left_ear",))
    with pytest.raises(WeightsError):
        WindowGenerator(Warper, replace(MODEL, name="other"), weights=path)


class Normed(Warper):
    """With a part that can be left out, of which the network's shape depends, and with spectral norm."""

    kind = NetworkKind("normed", 1, "scripts.train")
    switches = ("flow",)

    def networks(self) -> nn.Module:
        nets = Unmoved(self.config.width)
        channels = 4 if "flow" in self.without else 6
        nets.flow = nn.Conv2d(channels, self.config.width, 3, 1, 1)
        spectral_norm(nets.flow)
        return nets


def test_networks_are_built_as_they_were_trained_and_saved(tmp_path: Path) -> None:
    """With spectral norm folded, and without the parts that the training left out."""
    trained = Normed(Widths(5), ("flow",)).networks().eval()
    header = WeightsHeader("normed", 1, {"width": 5}, "MIT", notes={"without": ["flow"]})
    path = tmp_path / "normed.safetensors"
    save_weights(path, arrays_of(folded(trained), np.float32), header)
    blueprint, nets, _ = load_networks(Normed, path)
    assert blueprint.without == {"flow"}
    assert isinstance(nets, Unmoved)
    assert isinstance(trained, Unmoved)
    seen = torch.rand(1, 4, 16, 16)
    assert torch.allclose(nets.flow(seen), trained.flow(seen), atol=1e-6)
    odd = replace(header, notes={"without": 3})
    save_weights(path, arrays_of(folded(trained), np.float32), odd)
    with pytest.raises(WeightsError):
        load_networks(Normed, path)


def test_a_training_goes_on_from_weights_that_were_saved() -> None:
    """Under spectral norm too: the same is drawn at once, and the norm is a norm again."""
    trained = Normed(Widths(5)).networks().train()
    assert isinstance(trained, Unmoved)
    for _ in range(100):  # as training would: each look comes nearer to the norm
        _ = trained.flow.weight
    trained.eval()
    saved = {name: tensor.clone() for name, tensor in folded(trained).state_dict().items()}
    torch.manual_seed(7)
    again = Normed(Widths(5)).networks().train()
    assert isinstance(again, Unmoved)
    load_folded(again, saved)
    assert again.flow.training
    seen = torch.rand(1, 6, 16, 16)
    assert torch.allclose(again.flow(seen), trained.flow(seen), atol=1e-4)
    with torch.no_grad():
        again.flow.parametrizations["weight"].original.mul_(3)  # pyright: ignore
    assert torch.allclose(again.flow(seen), trained.flow(seen), atol=1e-4)
    fewer = {name: tensor for name, tensor in saved.items() if name != "flow.weight"}
    for odd in (fewer, saved | {"foreign": saved["flow.bias"]}, saved | {"flow.weight": torch.zeros(1)}):
        with pytest.raises(RuntimeError):
            load_folded(again, odd)


def test_an_engine_is_kept_for_the_parts_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ablation never runs, nor leaves behind, the engine of the whole."""

    class Switched(Warper):
        switches = ("flow",)

    keys: list[str] = []
    monkeypatch.setattr(base, "BackgroundEngine", lambda module, example, key, **_: keys.append(key))
    path = weights_of(Switched, tmp_path / "w.safetensors")
    for without in ((), ("flow",), ()):
        WindowGenerator(Switched, MODEL, weights=path, without=without).engines()
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
