"""`idmatch`: each equation that its docstring numbers, its sizes and losses, and that it learns and serves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import AT_LAST_S
from numpy.typing import NDArray
from test_generator import moved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.enrollment import Enrollment
from engines.generators.idmatch import correspondence as c
from engines.generators.idmatch.blueprint import IdmatchBlueprint, cycle
from engines.generators.idmatch.networks import FULL_SIZE, Drawn, IdmatchConfig, IdmatchNetworks, Kept, Up
from engines.generators.networked.blueprint import Made, warped
from engines.generators.networked.layers import doubled, leaky
from engines.generators.networked.lesson import Lesson
from engines.generators.networked.parts import mouth_mask
from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.raster.gbuffer import Viewport, rasterise_triangles
from engines.raster.pose import head_window, pose_head
from engines.raster.resample import resample
from engines.renderer import Aspect, Renderer
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.judges import Judges
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

MODEL = load_head_model()
TINY = IdmatchConfig((4, 4, 6, 8), (4, 6, 8, 10), (4, 4, 4), 64, 1)
NO_JUDGES = Judges(None, {}, {})


def scene_of(e: Enrollment, motion: Motion, size: int) -> Scene:
    """The photo driven by `motion`, as a call sees it."""
    window = head_window(e, size, size)

    def surface(m: Motion, window: Viewport) -> Surface:
        drawn = rasterise_triangles(MODEL, pose_head(MODEL, e, m, window), window)
        assert drawn.triangle is not None
        triangle, corners = torch.from_numpy(drawn.triangle), torch.from_numpy(drawn.mesh.vertices_px)
        return Surface(triangle[None], corners[None])

    def channels_first(image: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])

    rgba = resample(np.dstack([e.photo, e.matte]), window, 0, (size, size))
    return Scene(
        HeadTables.of(MODEL), Size(size, size), Picture(channels_first(rgba), alpha="straight"),
        surface(motion, window), surface(e.motion, window),
        channels_first(np.dstack([e.uv_colour, e.uv_visibility])),
        torch.zeros(1, 1, 65), torch.zeros(1, 65),
    )  # fmt: skip


@pytest.fixture(scope="module")
def turned(astronaut: Enrollment) -> Scene:
    return scene_of(astronaut, moved(astronaut.motion, yaw=12, jawOpen=0.4), 256)


@pytest.fixture(scope="module")
def still(astronaut: Enrollment) -> Scene:
    return scene_of(astronaut, astronaut.motion, 256)


@pytest.fixture(scope="module")
def lesson(astronaut: Enrollment) -> Lesson:
    """In a window of 64 pixels, of which the truth is noise."""
    rng = torch.Generator().manual_seed(1)
    scene = scene_of(astronaut, moved(astronaut.motion, yaw=12, jawOpen=0.4), 64)
    truth, background = torch.rand(1, 4, 64, 64, generator=rng), torch.rand(1, 3, 64, 64, generator=rng)
    return Lesson(scene, Picture(truth, alpha="beside"), Picture(background), torch.full((1,), 0.5))


def shaken(networks: nn.Module, seed: int = 2) -> nn.Module:
    """With layers that begin at zero a little off it."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in networks.parameters():
            if not p.any():
                p.copy_(0.05 * torch.randn(p.shape, generator=rng))
    return networks


@dataclass
class Run:
    """A blueprint of a 64 px window with networks that have learned something, and what they make of a lesson."""

    blueprint: IdmatchBlueprint
    networks: IdmatchNetworks
    made: Made
    photo: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    kept: Kept


def saying(run: Run, layer: str, bias: float) -> Drawn:
    """What is drawn when one layer says a number everywhere."""
    networks = copy.deepcopy(run.networks)
    nn.init.zeros_(getattr(networks, layer).weight)
    nn.init.constant_(getattr(networks, layer).bias, bias)
    return networks(*run.inputs, run.kept)


def run_of(lesson: Lesson, without: Sequence[str] = ()) -> Run:
    torch.manual_seed(0)
    blueprint = IdmatchBlueprint(TINY, without, 64)
    networks = shaken(blueprint.networks())
    assert isinstance(networks, IdmatchNetworks)
    photo, inputs = (
        blueprint.photo_inputs(networks, lesson.scene),
        blueprint.inputs(networks, lesson.scene),
    )
    kept = Kept(*blueprint.encode(networks, photo))
    return Run(blueprint, networks, blueprint.draw(networks, inputs, kept), photo, inputs, kept)


@pytest.fixture(scope="module")
def run(lesson: Lesson) -> Run:
    return run_of(lesson)


# --- (1) keys ----------------------------------------------------------------------------------------


def test_a_key_is_the_embedding_and_what_the_encoder_adds(run: Run) -> None:
    guide, around, embedded = run.inputs[1:]
    encoder = run.networks.key_encoder
    places = c.cell_places(around) + around
    codes, covered = c.in_cells(guide)
    fine = F.interpolate(2 * places - 1, size=guide.shape[2:], mode="bilinear", align_corners=False)
    learned = encoder.to_key(leaky(encoder.pyramid(torch.cat([guide, fine], 1))[-1]))
    torch.testing.assert_close(embedded, encoder.embedding(codes, covered, places))
    both = embedded + learned
    torch.testing.assert_close(run.made.stages["keys"], F.normalize(both, dim=1), rtol=1e-4, atol=1e-4)
    assert both.shape[1] == TINY.key
    assert learned.any()


def test_one_encoder_serves_both_pncc(run: Run) -> None:
    own = run.photo[1]
    still = torch.zeros_like(run.inputs[2])
    embedded = run.networks.key_encoder.embed(own, c.cell_places(still))
    drawn = run.networks(run.photo[0], own, still, embedded, run.kept)
    torch.testing.assert_close(drawn.keys, run.kept.keys)


def test_at_first_a_key_is_the_embedding_alone(still: Scene) -> None:
    networks = IdmatchNetworks(TINY)
    _, own = IdmatchBlueprint(TINY).photo_inputs(networks, still)
    places = c.cell_places(torch.zeros(1, 1, 32, 32))
    embedded = networks.key_encoder.embedding(*c.in_cells(own), places)
    torch.testing.assert_close(networks.key_encoder(own, places, embedded), F.normalize(embedded, dim=1))


def test_a_cell_has_the_mean_code_of_what_is_covered() -> None:
    guide = torch.zeros(1, 4, 8, 16)
    guide[:, :, 2, 3] = torch.tensor([0.2, 0.4, 0.6, 1.0])
    guide[:, :, 5, 3] = torch.tensor([0.4, 0.4, 0.2, 1.0])
    codes, covered = c.in_cells(guide)
    torch.testing.assert_close(codes[0, :, 0, 0], torch.tensor([0.3, 0.4, 0.4]))
    torch.testing.assert_close(covered, torch.tensor([2 / 64, 0.0]).reshape(1, 1, 1, 2))
    assert not codes[..., 1].any()


def test_a_cosine_falls_like_a_bell_with_the_distance() -> None:
    """exp(−(4 d)² / 2) of codes on the head, of places beyond it; on a coarser grid as much wider as its cells are."""
    embedding = c.Embedding(128)
    steps = torch.arange(32) * 0.01
    none, here = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    for axis in range(3):
        codes = torch.full((1, 3, 32, 32), 0.4)
        codes[0, axis] += steps
        keys = embedding(codes, here, torch.rand(1, 2, 32, 32))
        cosines = (keys[0, :, 0, :1] * keys[0, :, 0]).sum(0)
        torch.testing.assert_close(cosines[:12], (-((4 * steps[:12]) ** 2) / 2).exp(), atol=0.01, rtol=0)
    for cells, wider in ((32, 1.0), (16, 2.0)):
        places = c.cell_places(torch.zeros(1, 1, cells, cells))
        keys = embedding(torch.rand(1, 3, cells, cells), none[..., :cells, :cells], places)
        cosines = (keys[0, :, 5, :1] * keys[0, :, 5]).sum(0)
        away = 2 * (places[0, 0, 0] - places[0, 0, 0, 0])
        expected = (-((4 * away[:3] / wider) ** 2) / 2).exp()
        torch.testing.assert_close(cosines[:3], expected, atol=0.02, rtol=0)


def test_code_counts_on_the_head_and_place_beyond() -> None:
    embedding = c.Embedding(8 * 4)
    codes, places = torch.rand(1, 3, 2, 2), torch.rand(1, 2, 2, 2)
    found = embedding(codes, torch.tensor([[[[1.0, 0.0], [0.25, 1.0]]]]), places)
    lengths = [half.norm(dim=1)[0] for half in found.chunk(2, 1)]
    torch.testing.assert_close(lengths[0], torch.tensor([[1, 0], [0.25, 1]]))
    torch.testing.assert_close(lengths[1], torch.tensor([[0, 1], [0.75, 0]]))


def test_beyond_the_head_the_flow_around_counts() -> None:
    covered, flow = torch.zeros(1, 1, 32, 32), torch.zeros(1, 2, 32, 32)
    covered[..., 10:16, 10:16] = 1
    flow[:, 0, 10:16, 10:16], flow[:, 1, 10:16, 10:16] = 0.1, -0.05
    found = c.around(flow + 7 * (1 - covered), covered)
    torch.testing.assert_close(found * covered, flow)
    beside, far = found[0, :, 13, 17], found[0, :, 30, 30]
    assert 0.05 < beside[0] < 0.1
    torch.testing.assert_close(beside[1], -beside[0] / 2)
    assert float(far.abs().max()) < 1e-3
    assert not c.around(flow, torch.zeros_like(covered)).any()


# --- (2) the softmax ---------------------------------------------------------------------------------


def test_shares_are_the_softmax_of_the_cosine_at_its_temperature(run: Run) -> None:
    keys, own = run.made.stages["keys"], run.kept.keys
    cosines = F.cosine_similarity(keys.flatten(2)[..., :, None], own.flatten(2)[..., None, :], dim=1)
    torch.testing.assert_close(c.similarity(keys, own), (cosines - 1) / 0.01, rtol=1e-3, atol=1e-2)
    shares = (cosines / 0.01).softmax(2)
    cells = F.avg_pool2d(run.photo[0], 8)
    brought = (cells.flatten(2) @ shares.transpose(1, 2)).reshape(cells.shape)
    torch.testing.assert_close(run.made.stages["gathered"], brought, rtol=1e-3, atol=1e-3)


def test_no_share_is_a_number_that_a_cpu_is_slow_in() -> None:
    """Below 1.2e-38 a product takes it a hundred times as long; an eighth of all shares were."""
    keys = c.unit(torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1)))
    similar = c.similarity(keys, keys)
    for over in (1, 2):
        for found in (similar, similar - 90):  # also where nothing is like it
            shares = c.shares_of(found, over)
            assert float(shares.min()) >= torch.finfo(torch.float32).tiny
            assert float(shares.min()) < 1e-20
            torch.testing.assert_close(shares, found.softmax(over))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_mixed_precision_moves_no_place(turned: Scene, kind: torch.dtype) -> None:
    networks = shaken(IdmatchNetworks(TINY))
    blueprint = IdmatchBlueprint(TINY)
    with torch.no_grad():
        expected = blueprint.make(networks, turned)
        with torch.autocast("cpu", kind):
            found = blueprint.make(networks, turned)
    assert found.flow is not None
    assert expected.flow is not None
    assert torch.isfinite(found.rgba).all()
    # what the encoder adds is rounded, what it is softmaxed by is not
    assert float((found.stages["coarse"] - expected.stages["coarse"]).abs().mean() * 256) < 0.1
    with torch.autocast("cpu", kind):
        again = c.similarity(expected.stages["keys"], expected.stages["own_keys"])
    torch.testing.assert_close(again, c.similarity(expected.stages["keys"], expected.stages["own_keys"]))


# --- (3) and (4): what is gathered, and where from ---------------------------------------------------


def test_what_is_gathered_is_the_mean_by_shares() -> None:
    shares = torch.rand(2, 6, 6).softmax(2)
    values = torch.rand(2, 5, 2, 3)
    expected = torch.einsum("bij,bcj->bci", shares, values.flatten(2)).reshape(values.shape)
    torch.testing.assert_close(c.gathered(shares, values), expected)


def test_features_are_gathered_with_the_photo(run: Run) -> None:
    seen: list[Tensor] = []
    hook = run.networks.enter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run.blueprint.draw(run.networks, run.inputs, run.kept)
    hook.remove()
    shares = c.similarity(run.made.stages["keys"], run.kept.keys).softmax(2)
    expected = torch.cat(
        [
            c.gathered(shares, run.kept.values),
            c.gathered(shares, F.avg_pool2d(run.photo[0], 8)),
            F.avg_pool2d(run.inputs[1], 8),
        ],
        1,
    )
    torch.testing.assert_close(seen[0], expected)


def test_a_flow_is_from_where_less_where() -> None:
    """In shares of the sides of a window of 3 × 2 cells; answers shift what is found."""
    places = c.cell_places(torch.zeros(1, 1, 2, 3))
    torch.testing.assert_close(places[0, :, 1, 2], torch.tensor([5 / 6, 3 / 4]))
    shares = torch.eye(6)[[5, 1, 2, 3, 4, 5]][None]
    flow = c.flow_of(shares, torch.zeros(1, 2, 2, 3), places)
    torch.testing.assert_close(flow[0, :, 0, 0], torch.tensor([2 / 3, 1 / 2]))
    assert not flow.flatten(2)[..., 1:].abs().gt(1e-6).any()
    answered = torch.zeros(1, 2, 2, 3)
    answered[0, :, 1, 2] = torch.tensor([0.1, -0.2])
    flow = c.flow_of(shares, answered, places)
    torch.testing.assert_close(flow[0, :, 0, 0], torch.tensor([2 / 3 + 0.1, 1 / 2 - 0.2]))
    # shares that were rounded shift no place
    torch.testing.assert_close(c.flow_of(1.01 * shares, answered, places), 1.01 * flow)


def test_answers_are_solved_for() -> None:
    """After eight rounds of y ← y + (x − A y)."""
    places = c.cell_places(torch.zeros(1, 1, 2, 3))
    shares = (torch.eye(6) * 3).softmax(1)[None].requires_grad_(True)
    answered = c.answers(shares, places)
    x, y, a = places.flatten(2)[0].T, places.flatten(2)[0].T, shares[0].detach()
    for _ in range(8):
        y = y + x - a @ y
    torch.testing.assert_close((places + answered)[0].flatten(1).T, y)
    assert float((a @ y - x).abs().max()) < 0.01 < float((a @ x - x).abs().max())
    assert not answered.requires_grad


def test_at_the_photos_own_pose_nothing_moves(still: Scene) -> None:
    blueprint = IdmatchBlueprint(TINY)
    networks = IdmatchNetworks(TINY)
    with torch.no_grad():
        made = blueprint.make(networks, still)
        kept = Kept(*blueprint.encode(networks, blueprint.photo_inputs(networks, still)))
    assert float(made.stages["coarse"].abs().mean() * 256) < 0.1
    # which the places alone would not give
    shares = c.similarity(kept.keys, kept.keys).softmax(2)
    plain = c.flow_of(shares, torch.zeros_like(kept.answered), c.cell_places(kept.keys))
    assert float(plain.abs().mean() * 256) > 0.3


def test_fresh_keys_find_where_the_head_was(turned: Scene) -> None:
    """Within about a pixel where the photo shows the place; nothing has been learned."""
    with torch.no_grad():
        made = IdmatchBlueprint(TINY).make(IdmatchNetworks(TINY), turned)
    coarse = turned.thinned(Size(32, 32))
    shown = coarse.occlusion() > 0.7
    off = (256 * (made.stages["coarse"] - coarse.flow())).norm(dim=1, keepdim=True)[shown]
    moves = (256 * coarse.flow()).norm(dim=1, keepdim=True)[shown]
    assert float(off.mean()) < 1.5 < 4 < float(moves.mean())


# --- (5), (6) and (7): the generator -----------------------------------------------------------------


def test_the_flow_is_completed_at_a_quarter(run: Run) -> None:
    stages = run.made.stages
    assert run.made.flow is not None
    assert run.made.flow.shape == (1, 2, 16, 16)
    torch.testing.assert_close(run.made.flow, doubled(stages["coarse"]) + stages["residual"])
    torch.testing.assert_close(stages["warped"], warped(run.photo[0], run.made.flow))
    for bias in (0.5, 100.0):
        residual = saying(run, "to_flow", bias).residual
        torch.testing.assert_close(residual, torch.full_like(residual, 0.05 * float(np.tanh(bias))))


@pytest.mark.parametrize(
    ("level", "skip", "times"), [("up4", "skip4", 4), ("up2", "skip2", 2), ("up1", "skip1", 1)]
)
def test_a_skip_is_warped_and_then_modulated_by_the_rebuilt_pncc(
    run: Run, level: str, skip: str, times: int
) -> None:
    up: Up = getattr(run.networks, level)
    features: Tensor = getattr(run.kept, skip)
    assert features.shape[2:] == (64 // times, 64 // times)
    seen: list[Tensor] = []
    hook = up.join.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run.blueprint.draw(run.networks, run.inputs, run.kept)
    hook.remove()
    width = features.shape[1]
    flow = run.made.stages["coarse"] if level == "up4" else run.made.flow
    assert flow is not None
    moved_skip = F.instance_norm(warped(features, flow))
    seen_guide = F.relu(up.spade.shared(F.avg_pool2d(run.inputs[1], times)))
    aware = moved_skip * (1 + up.spade.gamma(seen_guide)) + up.spade.beta(seen_guide)
    torch.testing.assert_close(seen[0][:, width : 2 * width], leaky(aware), rtol=1e-3, atol=1e-4)
    if level == "up1":  # the warped photo stands beside
        torch.testing.assert_close(seen[0][:, 2 * width :], run.made.stages["warped"])


def test_the_rebuilt_pncc_is_the_photos_identity_with_the_drivers_motion(run: Run, lesson: Lesson) -> None:
    photo, guide = run.inputs[:2]
    torch.testing.assert_close(guide[:, :3], lesson.scene.pncc())
    torch.testing.assert_close(guide[:, 3:], lesson.scene.covered())
    torch.testing.assert_close(photo, lesson.scene.photo_at(Size(64, 64)))
    assert run.photo[0] is photo
    own = run.photo[1]
    torch.testing.assert_close(own[:, :3], lesson.scene.own_pncc())
    assert float((own[:, 3:] - (lesson.scene.own.triangle >= 0)[:, None].float()).abs().sum()) <= 2
    assert float((own - guide).abs().mean()) > 0.01


def test_what_is_drawn_is_added_to_the_warped_photo(run: Run) -> None:
    drawn = saying(run, "to_picture", 0.1)
    torch.testing.assert_close(drawn.rgba, drawn.warped + 0.1)


def test_a_fresh_picture_is_the_photo_warped(lesson: Lesson) -> None:
    blueprint = IdmatchBlueprint(TINY, (), 64)
    made = blueprint.make(blueprint.networks(), lesson.scene)
    torch.testing.assert_close(made.rgba, made.stages["warped"])
    assert not made.stages["residual"].any()


# --- sizes -------------------------------------------------------------------------------------------


def counted(config: IdmatchConfig) -> tuple[Kept, Drawn, dict[str, float]]:
    """Shapes at a window of 256, and GFLOP of photo and frame, of convolutions alone and of all."""
    with torch.device("meta"), torch.no_grad():
        networks = IdmatchNetworks(config)
        picture, flow = torch.zeros(1, 4, 256, 256), torch.zeros(1, 2, 32, 32)
        embedded = torch.zeros(1, config.key, 32, 32)
        with FlopCounterMode(display=False) as photo:
            kept = networks.encode(picture, picture)
        with FlopCounterMode(display=False) as frame:
            drawn = networks(picture, picture, flow, embedded, kept)
    convolutions = frame.get_flop_counts()["Global"][torch.ops.aten.convolution]
    found = {"photo": photo.get_total_flops(), "frame": frame.get_total_flops(), "convolutions": convolutions}
    return kept, drawn, {name: count / 1e9 for name, count in found.items()}


def test_full_size() -> None:
    kept, drawn, gflop = counted(FULL_SIZE)
    assert {n: tuple(x.shape[1:]) for n, x in kept._asdict().items()} == {
        "keys": (256, 32, 32), "answered": (2, 32, 32), "values": (512, 32, 32),
        "skip1": (64, 256, 256), "skip2": (128, 128, 128), "skip4": (256, 64, 64),
    }  # fmt: skip
    assert {n: tuple(x.shape[1:]) for n, x in drawn._asdict().items()} == {
        "rgba": (4, 256, 256), "flow": (2, 64, 64), "warped": (4, 256, 256), "coarse": (2, 32, 32),
        "residual": (2, 64, 64), "photo": (4, 32, 32), "gathered": (4, 32, 32), "keys": (256, 32, 32),
    }  # fmt: skip
    assert gflop == pytest.approx({"photo": 49.54, "frame": 151.86, "convolutions": 150.24}, abs=0.1)


def test_what_ships_is_small() -> None:
    kept, _, gflop = counted(IdmatchConfig())
    assert gflop["convolutions"] < 8
    assert gflop["frame"] == pytest.approx(5.53, abs=0.02)
    # what an avatar keeps as fp16
    assert sum(x.numel() for x in kept) * 2 < 4.1e6


@pytest.mark.parametrize("side", [64, 128])
def test_a_small_window_has_fewer_cells(astronaut: Enrollment, side: int) -> None:
    blueprint = IdmatchBlueprint(TINY, (), side)
    made = blueprint.make(blueprint.networks(), scene_of(astronaut, astronaut.motion, side))
    assert made.rgba.shape == (1, 4, side, side)
    assert made.stages["gathered"].shape == (1, 4, side // 8, side // 8)


# --- what can be left out ----------------------------------------------------------------------------


def test_without_correspondence_the_computed_flow_brings_all(lesson: Lesson) -> None:
    run = run_of(lesson, ["correspondence"])
    flow = run.inputs[2]
    coarse = lesson.scene.thinned(Size(8, 8))
    torch.testing.assert_close(flow, c.around(coarse.flow(), coarse.covered()))
    torch.testing.assert_close(run.made.stages["coarse"], flow)
    torch.testing.assert_close(run.made.stages["gathered"], warped(F.avg_pool2d(run.photo[0], 8), flow))
    losses = run.blueprint.losses(run.made, lesson, NO_JUDGES)
    assert not {"cycle", "geometry"} & set(losses)


def test_without_skips_nothing_comes_through_them(lesson: Lesson, run: Run) -> None:
    bare = run_of(lesson, ["skips"])
    for name in ("skip1", "skip2", "skip4"):
        for found in (run, bare):
            changed = found.kept._replace(**{name: torch.randn_like(getattr(found.kept, name))})
            drawn = found.blueprint.draw(found.networks, found.inputs, changed)
            assert torch.equal(drawn.rgba, found.made.rgba) is (found is bare), name
    seen: list[Tensor] = []
    hook = bare.networks.up2.join.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    bare.blueprint.draw(bare.networks, bare.inputs, bare.kept)
    hook.remove()
    assert not seen[0][:, TINY.widths[1] :].any()


def test_the_registry_knows_its_switches() -> None:
    assert GENERATORS["idmatch"].switches == IdmatchBlueprint.switches == ("correspondence", "skips")


# --- how it learns -----------------------------------------------------------------------------------


def a_distance(made: Tensor, truth: Tensor) -> Tensor:
    return (made - truth).square().mean((1, 2, 3))


class Looking(Judges):
    """A judge of colours."""

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        return a_distance(made, truth)


LOOKING = Looking(lambda picture: [picture], {}, {})


def test_losses_are_those_that_the_docstring_lists(run: Run, lesson: Lesson) -> None:
    lesson.step = 500
    losses = run.blueprint.losses(run.made, lesson, LOOKING)
    stages, rgba = run.made.stages, run.made.rgba
    truth, behind = lesson.truth.pixels, lesson.background.pixels
    counts = 1 + 2 * lesson.scene.covered() + 6 * mouth_mask(lesson.scene)
    assert 0 < float(mouth_mask(lesson.scene).mean()) < 0.1

    def over(x: Tensor) -> Tensor:
        return x[:, :3] + (1 - x[:, 3:]) * behind

    coarse = lesson.scene.thinned(Size(8, 8))
    expected = {
        "l1": (counts * (over(rgba) - truth[:, :3]).abs()).mean(),
        "matte": 0.3 * (rgba[:, 3:] - truth[:, 3:]).abs().mean(),
        "residual": 0.2 * stages["residual"].abs().mean(),
        "warp": 0.5 * (counts * (over(stages["warped"]) - truth[:, :3]).abs()).mean(),
        "geometry": 2 * (coarse.occlusion() * (stages["coarse"] - coarse.flow()).abs()).mean(),
        "cycle": 0.1 * cycle(stages).mean(),
        "perceptual": 0.08 * 0.5 * a_distance(over(rgba), truth[:, :3]).mean(),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
        assert float(value) > 0, name
    lesson.step = 499
    assert "perceptual" not in run.blueprint.losses(run.made, lesson, LOOKING)
    assert run.blueprint.phase(499) != run.blueprint.phase(500)


def test_a_cycle_brings_the_photo_back() -> None:
    """By the softmax of the same cosines over driven places."""
    rng = torch.Generator().manual_seed(3)
    photo = torch.rand(1, 4, 2, 3, generator=rng)
    own = torch.eye(6).reshape(1, 6, 2, 3)
    order = [3, 1, 0, 2, 5, 4]
    there_and_back = {"keys": own.flatten(2)[..., order].reshape(own.shape), "own_keys": own, "cells": photo}
    assert float(cycle(there_and_back)) < 1e-5
    keys = F.normalize(torch.ones_like(own) + 0.02 * torch.randn(own.shape, generator=rng), dim=1)
    stages = {"keys": keys, "own_keys": own, "cells": photo}
    cosines = keys.flatten(2)[0].T @ own.flatten(2)[0] / 0.01
    back = cosines.softmax(0).T @ (cosines.softmax(1) @ photo.flatten(2)[0].T)
    torch.testing.assert_close(cycle(stages)[0], (back.T.reshape(photo.shape) - photo).abs().mean())
    assert float(cycle(stages)) > 1e-3


def test_the_discriminator_sees_the_rebuilt_pncc_beside(run: Run, lesson: Lesson) -> None:
    lesson.step = 1999
    assert run.blueprint.shown(run.made, lesson) == ({}, {})
    lesson.step = 2000
    fakes, reals = run.blueprint.shown(run.made, lesson)
    code = lesson.scene.pncc()
    torch.testing.assert_close(fakes["head"], torch.cat([lesson.over(run.made.rgba), code], 1))
    torch.testing.assert_close(reals["head"], torch.cat([lesson.truth_at(Size(64, 64)), code], 1))
    assert run.blueprint.phase(1999) != run.blueprint.phase(2000)
    assert run.blueprint.teaching.counts_from == 2500
    verdict, features = run.blueprint.discriminators()["head"](fakes["head"])
    assert verdict.shape[:2] == (1, 1)
    assert len(features) == 3


def test_a_gradient_reaches_everything(lesson: Lesson) -> None:
    """At first not what lies before the layers that begin at zero; after one step all."""
    torch.manual_seed(0)
    blueprint = IdmatchBlueprint(TINY, (), 64)
    networks = blueprint.networks()
    optimiser = torch.optim.SGD(networks.parameters(), 0.05)
    lesson.step = 1000

    def dry() -> set[str]:
        optimiser.zero_grad()
        outcome = blueprint.outcome(networks, lesson, LOOKING)
        torch.stack(list(outcome.losses.values())).sum().backward()
        return {n for n, p in networks.named_parameters() if p.grad is None or not p.grad.any()}

    at_first = dry()
    assert {"key_encoder.pyramid.stem.weight", "up1.rise.weight"} <= at_first
    assert not at_first & {f"{n}.weight" for n in ("to_picture", "to_flow", "key_encoder.to_key")}
    optimiser.step()
    assert not dry()


def test_what_people_look_at(run: Run, lesson: Lesson) -> None:
    columns = run.blueprint.grid(run.networks, lesson)
    assert [tuple(x.shape) for x in columns] == [(1, 3, 64, 64)] * 7
    torch.testing.assert_close(columns[2], lesson.scene.pncc())
    torch.testing.assert_close(columns[5], lesson.over(run.made.rgba))


@pytest.mark.slow
def test_it_learns_a_few_pictures(drawn_pairs: Path) -> None:
    """Two frames that are darker than the photo, driven by turns of the head and an open mouth."""
    torch.manual_seed(0)
    blueprint = IdmatchBlueprint(TINY, (), 64)
    cpu = torch.device("cpu")
    store = Store(drawn_pairs, blueprint, cpu)
    task = BlueprintTask(blueprint, cpu, NO_JUDGES)
    networks = task.networks()
    batch = store.gather(store.train[1:3], None)
    lesson = lesson_of(batch, HeadTables.of(MODEL), blueprint)
    optimiser = torch.optim.Adam(networks.parameters(), 4e-3, betas=(0.9, 0.99))

    def psnr_db() -> float:
        with torch.no_grad():
            shown = lesson.over(blueprint.make(networks, lesson.scene).rgba)
        return float(-10 * (shown - lesson.truth_at(Size(64, 64))).square().mean().log10())

    before = psnr_db()
    for step in range(80):
        optimiser.zero_grad()
        losses = task.outcome(networks, batch, step).losses
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert psnr_db() > max(before + 6, 26)


# --- how it serves -----------------------------------------------------------------------------------


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of tiny networks that draw something, where the generator looks for its own."""
    torch.manual_seed(0)
    networks = shaken(IdmatchNetworks(TINY))
    path = tmp_path / "idmatch.safetensors"
    kind = IdmatchBlueprint.kind
    header = WeightsHeader(kind.name, kind.version, IdmatchBlueprint(TINY).config_dict(), "MIT")
    save_weights(path, arrays_of(networks, np.float32), header)
    monkeypatch.setattr(IdmatchBlueprint, "weights_path", lambda: path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("learned")
def test_engines_agree() -> None:
    generator = GENERATORS["idmatch"].open(MODEL)
    assert isinstance(generator, WindowGenerator)
    ((module, example),) = generator.networks
    rng = torch.Generator().manual_seed(0)
    given = [torch.rand(x.shape, generator=rng) for x in example]
    given[3], given[4] = 0.05 * given[3], F.normalize(given[4] - 0.5, dim=1)
    given[5], given[6] = given[4].flip(3), 0.02 * given[6]
    expected = TorchEngine().compile(module, example, "fp32")(*given)
    found = OpenVinoEngine().compile(module, example, "fp32")(*given)
    assert [x.shape for x in expected] == [(1, 4, 256, 256), (1, 2, 64, 64)]
    assert float((expected[1] - found[1]).abs().max()) < 1e-3
    # of noise; a thousandth of the flow is a quarter of a pixel of it
    assert float((expected[0] - found[0]).abs().mean()) < 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("learned")
def test_an_engine_that_rounds_moves_nothing(turned: Scene) -> None:
    """OpenVINO in bfloat16, where the CPU computes in it."""
    generator = GENERATORS["idmatch"].open(MODEL)
    assert isinstance(generator, WindowGenerator)
    ((module, example),) = generator.networks
    blueprint, networks = generator.blueprint, generator.nets
    with torch.no_grad():
        kept = blueprint.encode(networks, blueprint.photo_inputs(networks, turned))
        inputs = blueprint.inputs(networks, turned)
    given = (turned.photo_at(blueprint.window), *inputs, *kept)
    expected = TorchEngine().compile(module, example, "fp32")(*given)
    found = OpenVinoEngine().compile(module, example, "bf16")(*given)
    off_px = 256 * (expected[1] - found[1]).abs()
    assert float(off_px.mean()) < 0.1
    assert float(off_px.max()) < 1.5


@pytest.mark.slow
@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_it_draws_through_the_renderer(astronaut: Enrollment, aspect: Aspect) -> None:
    renderer = Renderer(astronaut, generator="idmatch", size_px=256, aspect=aspect)
    assert renderer.notice is None
    motion = moved(astronaut.motion, yaw=12)
    pictures = [renderer.render(motion).astype(int)]
    assert renderer.wait_until_compiled(AT_LAST_S)
    pictures.append(renderer.render(motion).astype(int))
    assert renderer.generator_name == "idmatch"
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.5  # the engine may compute in bfloat16
    still = renderer.render(astronaut.motion).astype(int)
    assert np.abs(pictures[1] - still).mean() > 1


def test_what_a_photo_gives_is_kept_in_the_avatar(learned: Path, astronaut: Enrollment) -> None:
    generator = GENERATORS["idmatch"].open(MODEL)
    assert learned.exists()
    found = generator.features_of(astronaut)
    assert isinstance(generator, WindowGenerator)
    assert len(found) == 6
    assert {f.dtype for f in found.values()} == {np.dtype(np.float16)}
    kept = replace(astronaut, features=found)
    for ours, fresh in zip(generator.features(kept), generator.encode(astronaut), strict=True):
        assert float((ours[0] - torch.from_numpy(fresh)).abs().max()) < 2e-3 * max(
            1, float(np.abs(fresh).max())
        )
