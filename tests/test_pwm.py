"""`pwm`: the guidance, modules and losses of paper 002, how its networks begin, learn and serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_generator import moved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators.networked.blueprint import load_networks, warped
from engines.generators.networked.discriminators import MultiScaleDiscriminator, folded
from engines.generators.networked.layers import doubled, leaky, resized_like
from engines.generators.networked.lesson import Describe, Lesson
from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.generators.pwm.blueprint import PwmBlueprint, first_codes
from engines.generators.pwm.face_mesh import face_triangles, on_face
from engines.generators.pwm.networks import (
    PAPER,
    TOLD,
    Drawn,
    FirstModule,
    PwmConfig,
    PwmNetworks,
    WarpingModule,
    everywhere,
)
from engines.generators.registry import GENERATORS
from engines.head.model import Part, load_head_model
from engines.raster.gbuffer import draw_ids, front_facing
from engines.renderer import Aspect, Renderer
from scripts import train
from scripts.codes_picture import codes_of, codes_picture, colours_of
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

MODEL = load_head_model()
TABLES = HeadTables.of(MODEL)
TINY = PwmConfig((8, 8, 7, 6, 6), 6, 4)
CPU = torch.device("cpu")
PX = 32

# what is left out → (channels of the guide, channels beside the photo), as table 1 of the paper has its rows
GUIDANCE: dict[tuple[str, ...], tuple[int, int]] = {
    (): (2 + 4, 4),
    ("codes",): (2, 0),
    ("displacement",): (4, 4),
    ("displacement", "codes"): (3, 3),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to share among cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def surface(window_px: int = PX, turned: float = 0.0, shift: tuple[float, float] = (0, 0)) -> Surface:
    """The mean head on the grid of a window, half as fine, turned by radians, shifted in pixels."""
    px = window_px // 2
    c, s = np.cos(turned), np.sin(turned)
    points = MODEL.mean_hu @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T * (px / 3)
    points[:, :2] += px / 2 + np.array(shift)
    points = points.astype(np.float32)
    triangle, _ = draw_ids(MODEL, points, px / 3, px, px)
    return Surface(torch.from_numpy(triangle)[None], torch.from_numpy(points)[None])


def scene_of(posed: Surface, own: Surface, px: int = PX) -> Scene:
    alpha = torch.rand(1, 1, px, px)
    photo = torch.cat([torch.rand(1, 3, px, px) * alpha, alpha], 1)
    return Scene(
        TABLES, Size(px // 2, px // 2), Picture(photo), posed, own,
        torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 65), torch.zeros(1, 65),
    )  # fmt: skip


def lesson(step: int = 0, px: int = PX) -> Lesson:
    scene = scene_of(surface(px, 0.3), surface(px), px)
    truth = Picture(torch.rand(1, 4, px, px), alpha="beside")
    return Lesson(scene, truth, Picture(torch.rand(1, 3, px, px)), torch.tensor([0.5]), step)


def blueprint(without: Sequence[str] = (), px: int = PX) -> PwmBlueprint:
    return PwmBlueprint(TINY, without, px)


def shaken(network: nn.Module) -> nn.Module:
    """With weights that are set to nothing special."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return network


# --- § 3.2: guidance ----------------------------------------------------------------------------------


def test_the_displacement_is_source_minus_driver_on_the_drivers_mesh() -> None:
    """V_{d→s} = P(M_s) − P(M_d), in shares of the window; 0 where there is no mesh."""
    posed = surface()
    own = replace(posed, corners=posed.corners + torch.tensor([4.0, -3.0, 9.0]))
    own = replace(
        own, triangle=torch.full_like(own.triangle, -1)
    )  # what the source's own picture shows does not count
    drawing = blueprint(["codes"])
    scene = scene_of(posed, own)
    (guide,) = drawing.inputs(drawing.networks(), scene)
    covered = scene.covered().expand(-1, 2, -1, -1)
    wanted = torch.tensor([8 / PX, -6 / PX])[None, :, None, None] * covered / TOLD
    assert guide.shape == (1, 2, PX // 2, PX // 2)
    assert 0.1 < float(covered.mean()) < 0.9
    assert torch.allclose(guide, wanted, atol=1e-4)


@pytest.mark.parametrize("turned", [0.0, 1.2, np.pi])
def test_back_faces_are_culled(turned: float) -> None:
    drawn = surface(turned=turned)
    shown = drawn.triangle[drawn.triangle >= 0].unique().numpy()
    facing = front_facing(drawn.corners[0].numpy(), MODEL.triangles)
    assert facing[shown].all()
    assert 0.2 < facing.mean() < 0.8


def test_codes_are_rasterised_on_the_driver_and_on_the_source() -> None:
    """d numbers of each vertex: the target's guide, the source's lie beside the photo."""
    drawing = blueprint(["displacement"])
    networks = drawing.networks()
    assert networks.codes is not None
    assert networks.codes.shape == (MODEL.vertex_count, TINY.codes)
    scene = scene_of(surface(turned=0.6), surface())
    (guide,) = drawing.inputs(networks, scene)
    (photo,) = drawing.photo_inputs(networks, scene)
    assert torch.equal(guide, scene.codes(networks.codes))
    assert torch.equal(photo[:, :4], scene.photo_at(drawing.window))
    beside = F.interpolate(scene.own_codes(networks.codes), (PX, PX), mode="bilinear")
    assert torch.equal(photo[:, 4:], beside)
    # by hand, at one pixel of each
    for drawn, where in ((scene.own, scene.own_codes(networks.codes)), (scene.posed, guide)):
        row = column = PX // 4
        corners = MODEL.triangles[int(drawn.triangle[0, row, column])]
        at = torch.cat([drawn.corners[0, corners, :2], torch.ones(3, 1)], 1)
        share = torch.linalg.solve(at.T, torch.tensor([column + 0.5, row + 0.5, 1.0]))
        wanted = share @ networks.codes[MODEL.weld[corners]]
        assert torch.allclose(where[0, :, row, column], wanted, atol=1e-4)


@pytest.mark.parametrize("of", ["guide", "photo"])
def test_codes_learn_through_the_rasteriser(of: str) -> None:
    drawing = blueprint(["displacement"])
    networks = drawing.networks()
    scene = scene_of(surface(), surface())
    seen = drawing.inputs(networks, scene) if of == "guide" else drawing.photo_inputs(networks, scene)
    assert networks.codes is not None
    (slope,) = torch.autograd.grad(seen[0].square().sum(), networks.codes)
    assert int((slope.abs().sum(1) > 0).sum()) > 100


def test_codes_begin_as_waves_that_neighbours_share() -> None:
    codes = first_codes(16)
    edges = torch.from_numpy(MODEL.triangles[:, :2].astype(np.int64))
    near = (codes[edges[:, 0]] - codes[edges[:, 1]]).abs().mean()
    far = (codes[edges[:, 0]] - codes[edges[:, 1].flip(0)]).abs().mean()
    assert codes.abs().max() <= 1
    assert float(codes.std(0).min()) > 0.2
    assert near < 0.25 * far


@pytest.mark.parametrize("without", GUIDANCE)
def test_what_is_left_out_is_the_row_of_the_table(without: tuple[str, ...]) -> None:
    """PWM + both, + geom. disp., + neural codes, + NMFC: the mean head's coordinates, also beside the photo."""
    drawing = blueprint(without)
    networks = drawing.networks()
    scene = scene_of(surface(turned=0.4), surface())
    guide, beside = GUIDANCE[without]
    (seen,), (photo,) = drawing.inputs(networks, scene), drawing.photo_inputs(networks, scene)
    assert seen.shape == (1, guide, PX // 2, PX // 2)
    assert photo.shape == (1, 4 + beside, PX, PX)
    assert (networks.codes is None) == ("codes" in without)
    assert networks.first.moves == ("displacement" not in without)
    if "displacement" not in without:
        assert torch.equal(seen[:, :2], scene.flow() / TOLD)
    elif "codes" in without:
        assert torch.equal(seen, scene.pncc())
        wanted = F.interpolate(scene.own_pncc(), (PX, PX), mode="bilinear", align_corners=False)
        assert torch.equal(photo[:, 4:], wanted)
    made = drawing.make(networks, scene)
    assert made.rgba.shape == (1, 4, PX, PX)


def test_a_face_is_what_a_face_model_has() -> None:
    """For the rows (BFM): forehead to chin; no neck, ears, back of the head, teeth or shoulders."""
    face = face_triangles(MODEL)
    landmarks = MODEL.landmarks(MODEL.mean_hu)
    middle = MODEL.mean_hu[MODEL.triangles].mean(1)

    def at(place: np.ndarray) -> bool:
        skin = np.flatnonzero((MODEL.part == Part.SKIN) | (MODEL.part == Part.EYE))
        return bool(face[skin[np.linalg.norm(middle[skin] - place, axis=1).argmin()]])

    nose_tip, chin, forehead, cheek = (landmarks[k] for k in (1, 199, 151, 50))
    assert all(at(p) for p in (nose_tip, chin, forehead, cheek))
    back, top = middle[middle[:, 2].argmax()], middle[middle[:, 1].argmin()]
    assert not at(back)
    assert not at(top)
    assert not face[np.isin(MODEL.part, [Part.MOUTH, Part.TEETH, Part.TONGUE, Part.BODY])].any()
    assert 0.1 < face.mean() < 0.6


@pytest.mark.parametrize("without", [("codes",), ("displacement",), ("displacement", "codes")])
def test_of_a_face_nothing_beyond_it_guides(without: tuple[str, ...]) -> None:
    whole, face = blueprint(without), blueprint([*without, "whole_head"])
    networks = whole.networks()
    scene = scene_of(surface(turned=0.4), surface())
    shown, own = on_face(MODEL, scene.posed.triangle), on_face(MODEL, scene.own.triangle)
    assert 0.02 < float(shown.mean()) < float(scene.covered().mean()) - 0.05
    (all_of_it,), (seen,) = whole.inputs(networks, scene), face.inputs(networks, scene)
    assert torch.equal(seen, all_of_it * shown)
    (photo,) = face.photo_inputs(networks, scene)
    (all_photo,) = whole.photo_inputs(networks, scene)
    assert torch.equal(photo[:, :4], all_photo[:, :4])
    if photo.shape[1] > 4:
        far = F.interpolate(own, (PX, PX), mode="bilinear", align_corners=False) == 0
        assert not (photo[:, 4:] * far).any()
        assert (all_photo[:, 4:] * far).any()


# --- § 3.3: the networks ------------------------------------------------------------------------------


def of_size(config: PwmConfig, beside: int = 16) -> tuple[list[tuple[int, ...]], Drawn, float, float]:
    """(shapes of F_s, what is drawn, GFLOP of a photo, of a frame) at 256 pixels, counting convolutions."""
    with torch.device("meta"), torch.no_grad():
        networks = PwmNetworks(config, 2 + beside, beside, torch.zeros(9, 16)).eval()
        photo, guide = torch.zeros(1, 4 + beside, 256, 256), torch.zeros(1, 2 + beside, 128, 128)
        with FlopCounterMode(display=False) as once:
            features = networks.encoder(photo)
        with FlopCounterMode(display=False) as frame:
            drawn = networks(guide, *features)
    shapes = [tuple(f.shape[1:]) for f in features]
    return shapes, drawn, once.get_total_flops() / 1e9, frame.get_total_flops() / 1e9


@pytest.mark.slow
def test_the_papers_size() -> None:
    """Five levels (§ 3.4), D at all but the finest, d = 16; at width 1 what we take for the paper's."""
    shapes, drawn, once, frame = of_size(PAPER)
    assert shapes == [(512, 16, 16), (512, 32, 32), (256, 64, 64), (128, 128, 128), (64, 256, 256)]
    assert [tuple(d.shape) for d in drawn.displacements] == [(1, 2, s, s) for s in (16, 32, 64, 128)]
    assert drawn.rgba.shape == (1, 4, 256, 256)
    assert PAPER.codes == PwmConfig().codes == 16
    assert once == pytest.approx(32.25, abs=0.01)
    assert frame == pytest.approx(68.38, abs=0.01)


@pytest.mark.slow
def test_what_ships_is_small_enough_for_a_call() -> None:
    shapes, drawn, once, frame = of_size(PwmConfig())
    assert [s[1] for s in shapes] == [16, 32, 64, 128, 256]
    assert len(drawn.displacements) == 4
    assert frame < 8
    assert once < 8


@pytest.mark.parametrize("without", GUIDANCE)
def test_spectral_norm_is_on_every_convolution(without: tuple[str, ...]) -> None:
    """§ 3.4: "for all convolutional layers in the model (including discriminator)"; folded, it is in the weights."""
    drawing = blueprint(without)
    for network in (drawing.networks(), *drawing.discriminators().values()):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        assert len(layers) > 5
        assert all(parametrize.is_parametrized(layer, "weight") for layer in layers)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn_like(p))
        for _ in range(60):  # as often as it takes the norm to be found
            for layer in layers:
                _ = layer.weight
        for layer in (m for m in folded(network).modules() if isinstance(m, nn.Conv2d)):
            norm = float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2))
            assert norm == pytest.approx(1, abs=0.03)


def test_the_norm_is_put_on_once() -> None:
    layer = everywhere(everywhere(nn.Sequential(nn.Conv2d(2, 3, 3))))[0]  # pyright: ignore[reportIndexIssue]
    assert len(list(layer.parametrizations.weight)) == 1


def test_the_encoder_is_normed_where_it_is_coarse_and_keeps_colours_where_it_is_fine() -> None:
    encoder = PwmNetworks(TINY, 2, 0).encoder.eval()
    photo = torch.rand(1, 4, 64, 64)
    bright, dark = encoder(photo), encoder(0.5 * photo)
    assert [f.shape[2] for f in bright] == [4, 8, 16, 32, 64]
    for a, b in zip(bright[:-1], dark[:-1], strict=True):
        assert torch.allclose(a, b, atol=0.02)
    assert torch.allclose(bright[-1][:, :4], photo, atol=2e-3)
    assert torch.allclose(dark[-1], 0.5 * bright[-1], atol=1e-5)


def test_the_first_module_warps_by_the_displacement_beside_the_original() -> None:
    module = shaken(FirstModule(5, moves=True))
    assert isinstance(module, FirstModule)
    features, guide = torch.rand(1, 5, 8, 8), torch.randn(1, 6, 32, 32)
    flow = F.avg_pool2d(guide[:, :2], 4) * TOLD  # resized to match
    wanted = leaky(module.join(torch.cat([warped(features, flow), features], 1)))
    assert torch.allclose(module(features, guide), wanted, atol=1e-6)
    assert not torch.allclose(module(features, guide), module(features, 0 * guide), atol=1e-2)


def test_the_first_module_of_codes_does_not_warp() -> None:
    module = shaken(FirstModule(5, moves=False))
    assert isinstance(module, FirstModule)
    features, guide = torch.rand(1, 5, 8, 8), torch.randn(1, 6, 32, 32)
    assert torch.equal(module(features, guide), leaky(module.join(features)))
    assert torch.equal(module(features, guide), module(features, 0 * guide))


@pytest.mark.parametrize("moves", [True, False])
def test_a_module_estimates_warps_and_joins(moves: bool) -> None:
    """§ 3.3: SPADE of F_r by the resized guide → D; D warps F_s of the next level; the other route beside it."""
    module = shaken(WarpingModule(7, 6, 5, 6, moves=moves, passes=True, estimates=True))
    assert isinstance(module, WarpingModule)
    assert module.displacement is not None
    x, guide, finer = torch.rand(1, 7, 8, 8), torch.randn(1, 5, 32, 32), torch.rand(1, 6, 16, 16)
    small = F.avg_pool2d(guide, 4)
    hidden = F.relu(module.spade.shared(small))
    m = F.instance_norm(x) * (1 + module.spade.gamma(hidden)) + module.spade.beta(hidden)
    flow = module.displacement(m) / 8  # twice 1/16
    large = F.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)
    route = doubled(module.route(leaky(m)))
    wanted = leaky(module.join(torch.cat([route, warped(finer, large)], 1)))
    found, estimated = module(x, guide, finer, torch.ones(1, 2, 4, 4))  # of its own it needs no other's
    assert estimated is not None
    assert torch.allclose(estimated, flow, atol=1e-5)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_each_displacement_is_estimated_from_what_the_one_before_re_aligned() -> None:
    drawing = blueprint()
    networks = drawing.networks()
    shaken(networks).eval()
    scene = scene_of(surface(turned=0.5), surface())
    inputs, features = (
        drawing.inputs(networks, scene),
        networks.encoder(*drawing.photo_inputs(networks, scene)),
    )
    before = networks(*inputs, *features).displacements
    assert len(before) == 4
    with torch.no_grad():
        second = networks.warping[1]
        assert isinstance(second, WarpingModule)
        assert second.displacement is not None
        assert second.displacement.bias is not None
        second.displacement.bias += 1.0
    after = networks(*inputs, *features).displacements
    assert torch.equal(before[0], after[0])
    for k in (1, 2, 3):
        assert not torch.allclose(before[k], after[k], atol=1e-4)
    # and of each level's own features
    for k in range(5):
        other = [0.5 * f if n == k else f for n, f in enumerate(features)]
        changed = networks(*inputs, *other)
        same = [torch.equal(a, b) for a, b in zip(after, changed.displacements, strict=True)]
        assert same == [n < k for n in range(4)]


@pytest.mark.parametrize("without", [(), ("displacement", "codes")])
def test_one_level_estimates_once_for_all_that_is_finer(without: tuple[str, ...]) -> None:
    """§ 4.5: against five levels, a displacement of one scale, from features that were never re-aligned."""
    drawing = blueprint([*without, "progressive"])
    networks = drawing.networks()
    shaken(networks).eval()
    assert [module.displacement is not None for module in networks.warping] == [False, False, True, False]
    assert not networks.first.moves
    scene = scene_of(surface(turned=0.5), surface())
    made = drawing.make(networks, scene)
    assert list(made.stages) == ["D1", "warped"]
    assert made.stages["D1"].shape == (1, 2, PX // 4, PX // 4)
    given: list[tuple[Tensor | None, Tensor | None]] = []

    def hook(_: nn.Module, told: tuple[Tensor | None, ...], found: tuple[Tensor, Tensor | None]) -> None:
        given.append((told[3], found[1]))

    for module in networks.warping:
        module.register_forward_hook(hook)
    drawing.make(networks, scene)
    assert given[0] == (None, None)
    assert given[1] == (None, None)
    assert given[2][0] is None
    assert given[3][0] is given[2][1] is given[3][1]


@pytest.mark.parametrize("passes", [True, False])
def test_a_module_that_estimates_nothing_warps_by_what_it_is_given(passes: bool) -> None:
    module = WarpingModule(7, 6, 5, 6, moves=True, passes=passes, estimates=False)
    x, guide, finer = torch.rand(1, 7, 8, 8), torch.randn(1, 5, 32, 32), torch.rand(1, 6, 16, 16)
    flow = torch.randn(1, 2, 8, 8) * 0.1
    route = doubled(module.route(leaky(module.spade(x, guide))))
    for given, seen in ((None, finer), (flow, warped(finer, flow))):
        found, told = module(x, guide, finer, given)
        assert told is given
        assert torch.allclose(found, leaky(module.join(torch.cat([route, seen], 1))), atol=1e-6)


# --- how it begins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", GUIDANCE)
@pytest.mark.parametrize("px", [32, 48])
def test_the_first_picture_is_the_photo_warped_by_the_computed_displacement(
    without: tuple[str, ...], px: int
) -> None:
    """At every level D is the guide's; where codes alone guide it is 0, and the photo stands still."""
    drawing = blueprint(without, px)
    networks = drawing.networks().eval()
    scene = scene_of(surface(px, 0.5), surface(px), px)
    made = drawing.make(networks, scene)
    (guide,) = drawing.inputs(networks, scene)
    moves = float("displacement" not in without)
    wanted = guide[:, :2] * TOLD * moves
    assert bool(wanted.abs().max() > 0.02) == bool(moves)
    assert made.flow is not None
    assert made.flow is made.stages["D4"]  # the last, with which the photo itself is warped
    for k in range(4):
        flow = made.stages[f"D{k + 1}"]
        assert torch.allclose(flow, resized_like(wanted, flow), atol=1e-5)
    photo = scene.photo_at(drawing.window)
    assert torch.allclose(made.rgba, warped(photo, wanted), atol=1e-3)
    assert torch.equal(made.stages["warped"], warped(photo, made.flow))


class Eye:
    """A stand-in for the perceptual network: two maps, of which one is at half the size."""

    @property
    def describe(self) -> dict[str, Describe]:
        return {}

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def perceptual(self, pictures: Tensor) -> list[Tensor]:
        self.seen.append(tuple(pictures.shape[2:]))
        return [pictures[:, :2] * 3, F.avg_pool2d(pictures, 2) ** 2]

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        return (made - truth).abs().mean((1, 2, 3))


class Blind:
    """No perceptual network."""

    perceptual = None

    @property
    def describe(self) -> dict[str, Describe]:
        return {}

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        raise AssertionError


def at_first(without: Sequence[str]) -> set[str]:
    """The way of RGBA, and of the displacement that warps it."""
    level = 2 if "progressive" in without else 3
    own = [
        "displacement",
        "spade.beta",
        "spade.gamma",
        *([] if "displacement" in without else ["spade.shared"]),
    ]
    return {"encoder.first", "warping.3.join", "last", *(f"warping.{level}.{name}" for name in own)}


@pytest.mark.parametrize("without", [*GUIDANCE, ("progressive",), ("displacement", "codes", "progressive")])
def test_gradient_reaches_every_parameter(without: tuple[str, ...]) -> None:
    """At first only what the first picture is made of (`at_first`), the rest is not looked at; after one step all."""
    drawing = blueprint(without, 64)
    networks = drawing.networks()
    given = lesson(px=64)
    optimiser = torch.optim.SGD(networks.parameters(), 0.05)

    def unreached() -> set[str]:
        optimiser.zero_grad()
        torch.stack(list(drawing.outcome(networks, given, Eye()).losses.values())).sum().backward()
        return {n for n, p in networks.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}

    first = {n for n, _ in networks.named_parameters()} - unreached()
    assert {n.split(".parametrizations")[0].removesuffix(".bias") for n in first} == at_first(without)
    optimiser.step()
    assert unreached() == set()


# --- supplement: losses -------------------------------------------------------------------------------


def test_losses_are_those_of_the_supplement_for_both_pictures() -> None:
    """Eq. 1 on three scales, for I_o and, 1.4, for I_w; and the matte."""
    drawing, given, eye = blueprint(), lesson(), Eye()
    networks = shaken(drawing.networks()).eval()
    made = drawing.make(networks, given.scene)
    losses = drawing.losses(made, given, eye)
    assert set(losses) == {"perceptual_output", "perceptual_warped", "matte"}
    truth = given.truth_at(drawing.window)
    back = given.background_at(drawing.window)
    assert made.flow is not None
    for name, rgba in (
        ("output", made.rgba), ("warped", warped(given.scene.photo_at(drawing.window), made.flow)),
    ):  # fmt: skip
        a, b, total = rgba[:, :3] + (1 - rgba[:, 3:]) * back, truth, torch.zeros(())
        for _ in range(3):
            total = total + (a - b).abs().mean() + 0.01 * 3 * (a - b)[:, :2].abs().mean()
            total = total + 0.01 * (F.avg_pool2d(a, 2) ** 2 - F.avg_pool2d(b, 2) ** 2).abs().mean()
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        assert float(losses[f"perceptual_{name}"]) == pytest.approx(
            0.5 * float(total), rel=1e-4
        )  # sharpness 0.5
    matte = (made.rgba[:, 3:] - given.matte_at(drawing.window)).abs().mean()
    assert float(losses["matte"]) == pytest.approx(0.3 * float(matte), rel=1e-4)
    assert set(eye.seen) == {(32, 32), (16, 16), (8, 8)}


def test_without_the_perceptual_network_the_picture_itself_teaches() -> None:
    drawing, given = blueprint(), lesson()
    losses = drawing.losses(drawing.make(drawing.networks(), given.scene), given, Blind())
    assert all(float(value) > 0 for value in losses.values())


def test_discriminators_of_three_scales_see_both_pictures() -> None:
    """Eq. 2 to 4 and 1.4: I_o and I_w against I_d; the sums are `hinge_…` and `feature_matching` of the loop."""
    drawing = blueprint()
    begins = drawing.weights.adversarial_from
    given = lesson(begins)
    networks = drawing.networks()
    made = drawing.make(networks, given.scene)
    fakes, reals = drawing.shown(made, given)
    truth = given.truth_at(drawing.window)
    assert torch.equal(
        fakes["picture"], torch.cat([given.over(made.rgba), given.over(made.stages["warped"])])
    )
    assert torch.equal(reals["picture"], torch.cat([truth, truth]))
    assert fakes["picture"].requires_grad
    early = lesson(begins - 1)
    assert drawing.shown(drawing.make(networks, early.scene), early) == ({}, {})
    assert drawing.phase(begins) != drawing.phase(begins - 1)
    assert drawing.teaching.counts_from > begins
    assert drawing.teaching.adversarial > 0
    assert drawing.teaching.matching > 0
    judges = drawing.discriminators()
    assert set(judges) == set(fakes)
    judge = judges["picture"]
    assert isinstance(judge, MultiScaleDiscriminator)
    verdict, features = judge(truth)
    assert verdict.shape == (1, 8 * 8 + 4 * 4 + 2 * 2)
    assert len(features) == 9


def test_mixed_precision_keeps_displacements_whole() -> None:
    drawing, given = blueprint(), lesson()
    networks = drawing.networks()
    with torch.autocast("cpu", torch.bfloat16):
        outcome = drawing.outcome(networks, given, Eye())
        made = drawing.make(networks, given.scene)
    torch.stack(list(outcome.losses.values())).sum().backward()
    assert made.rgba.dtype == torch.float32
    assert all(stage.dtype == torch.float32 for stage in made.stages.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in networks.parameters())
    plain = drawing.make(networks, given.scene)
    assert torch.allclose(made.stages["D4"], plain.stages["D4"], atol=0.003)


# --- sizes, weights, serving --------------------------------------------------------------------------


def test_widths_too_small_for_a_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 4"):
        PwmConfig((8, 8, 8, 8, 4))
    with pytest.raises(ValueError, match="more than 4"):
        PwmConfig(hidden=4)


def test_the_command_line_chooses_guidance_and_widths() -> None:
    told = ["widths=9,8,8,7,6", "hidden=5", "codes=3"]
    made = train.blueprint_of("pwm", "displacement,progressive", told, 64)
    assert isinstance(made, PwmBlueprint)
    assert made.config == PwmConfig((9, 8, 8, 7, 6), 5, 3)
    networks = made.networks()
    assert networks.codes is not None
    assert networks.codes.shape[1] == 3
    assert [tuple(f.shape[1:]) for f in networks.encoder(torch.rand(1, 7, 64, 64))] == [
        (9, 4, 4), (8, 8, 8), (8, 16, 16), (7, 32, 32), (6, 64, 64)
    ]  # fmt: skip
    for without, config, size, message in (
        ("guidance", [], None, "no part guidance"),
        ("", ["hidden=3"], None, "more than 4"),
        ("", [], 100, "multiple of 16 px high, 32 or more; 100"),
    ):
        with pytest.raises(train.TrainingError, match=message):
            train.blueprint_of("pwm", without, config, size)
    # what changes shapes cannot be left out of networks that have learned
    assert GENERATORS["pwm"].switches == ("whole_head",)
    assert PwmBlueprint.switches == ("displacement", "codes", "whole_head", "progressive")


def saved(path: Path, without: Sequence[str] = (), px: int = 64) -> Path:
    drawing = blueprint(without, px)
    networks = drawing.networks()
    with torch.no_grad():
        networks.last.bias += 0.02  # pyright: ignore
        networks.warping[2].displacement.bias += 0.1  # pyright: ignore
    notes = {"without": sorted(drawing.without), "height_px": px}
    header = WeightsHeader("pwm", drawing.kind.version, drawing.config_dict(), "MIT", notes=notes)
    save_weights(path, arrays_of(folded(networks), np.float16), header)
    return path


@pytest.mark.parametrize("without", [*GUIDANCE, ("progressive", "whole_head")])
def test_weights_say_which_guidance_they_learned(without: tuple[str, ...], tmp_path: Path) -> None:
    path = saved(tmp_path / "pwm.safetensors", without)
    found, networks, _ = load_networks(PwmBlueprint, path, ("whole_head",))
    assert found.without == {*without, "whole_head"}
    assert (found.config, found.window) == (TINY, Size(64, 64))
    scene = scene_of(surface(64, 0.3), surface(64), 64)
    made = found.make(networks, scene)
    assert made.rgba.shape == (1, 4, 64, 64)
    with pytest.raises(WeightsError, match="do not fit"):
        load_networks(PwmBlueprint, path, ("codes",) if "codes" not in without else ("displacement", "x"))


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("displacement", "codes", "progressive")])
def test_engines_draw_the_same_picture(without: tuple[str, ...]) -> None:
    drawing = blueprint(without, 64)
    networks = folded(shaken(drawing.networks())).eval()
    (served,) = drawing.served(networks)
    torch.manual_seed(1)
    seen = tuple(torch.rand_like(x) for x in served.example)
    expected = TorchEngine().compile(served.module, served.example, "fp32")(*seen)
    found = OpenVinoEngine().compile(served.module, served.example, "fp32")(*seen)
    assert expected[0].shape == (1, 4, 64, 64)
    for a, b in zip(expected, found, strict=True):
        assert float((a - b).abs().max()) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_it_draws_through_the_renderer(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: Aspect
) -> None:
    """Fresh networks draw the photo moved by geometry: a turned head is nearer to `geometric` than to the photo."""
    path = saved(tmp_path / "pwm.safetensors", px=128)
    monkeypatch.setattr(PwmBlueprint, "weights_path", lambda: path)
    renderer = Renderer(astronaut, generator="pwm", size_px=256, aspect=aspect)
    assert renderer.notice is None
    assert renderer.wait_until_compiled()
    assert renderer.generator_name == "pwm"
    motion = moved(astronaut.motion, yaw=12)
    still, turned = (renderer.render(m).astype(int) for m in (astronaut.motion, motion))
    floor = Renderer(astronaut, generator="geometric", size_px=256, aspect=aspect).render(motion)
    assert np.abs(turned - still).mean() > 1.2 * np.abs(turned - floor).mean()


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("displacement",)])
def test_it_learns_a_clip(drawn_pairs: Path, without: tuple[str, ...]) -> None:
    """Of pairs whose frames are darker than the photo: within 120 steps most of what is off is gone."""
    drawing = PwmBlueprint(PwmConfig((16, 16, 16, 12, 12), 12, 6), without, 64)
    store = Store(drawn_pairs, drawing, CPU)
    task = BlueprintTask(drawing, CPU, Blind())  # pyright: ignore[reportArgumentType]
    batch = store.gather(store.train[:4], None)
    networks = task.networks()
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)

    def psnr_db() -> float:
        given = lesson_of(batch, TABLES, drawing)
        with torch.no_grad():
            made = drawing.make(networks.eval(), given.scene)
        networks.train()
        off = given.over(made.rgba.clamp(0, 1)) - given.truth_at(drawing.window)
        return float(-10 * off.square().mean().log10())

    before = psnr_db()
    for step in range(120):
        optimiser.zero_grad()
        losses = task.outcome(networks, batch, step).losses
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert psnr_db() > max(before + 6, 22)


# --- codes as a picture -------------------------------------------------------------------------------


@pytest.mark.slow
def test_codes_that_differ_have_colours_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose colour is most like a code's is most like it, also of codes that t-SNE was not given."""
    monkeypatch.setattr("scripts.codes_picture._EMBEDDED", 120)
    monkeypatch.setattr("scripts.codes_picture._PERPLEXITY", 8.0)  # fewer neighbours than a heap has codes
    rng = np.random.default_rng(0)
    heap = rng.integers(4, size=400)
    codes = np.eye(8)[heap] + 0.02 * rng.normal(size=(400, 8))
    colours = colours_of(codes)
    assert colours.shape == (400, 3)
    assert (colours.min(), colours.max()) == (0, 1)
    assert np.array_equal(colours, colours_of(codes))
    off = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    off[off == 0] = np.inf  # itself, and what was given its colour
    assert (
        heap[off.argmin(1)] == heap
    ).mean() > 0.9  # a quarter by chance; the ends of each colour are cut off


@pytest.mark.slow
def test_a_picture_of_codes_shows_the_head_from_both_sides(tmp_path: Path) -> None:
    path = saved(tmp_path / "pwm.safetensors")
    picture = codes_picture(codes_of(path), MODEL, 96)
    assert picture.shape == (96, 192, 3)
    drawn = (picture != 255).any(2)
    for half in (drawn[:, :96], drawn[:, 96:]):
        assert 0.15 < half.mean() < 0.8
    assert np.abs(picture[:, :96].astype(int) - picture[:, 96:]).mean() > 10
    with pytest.raises(WeightsError, match="without codes"):
        codes_of(saved(tmp_path / "other.safetensors", ["codes"]))
