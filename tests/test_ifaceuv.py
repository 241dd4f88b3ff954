"""IFaceUV (paper 000): each equation is what the module says, its networks learn, and it serves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from items import tiny_item
from test_generator import moved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from engines.compile.network import source_digest
from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.enrollment import Enrollment
from engines.generators import networked
from engines.generators.ifaceuv import blueprint as module
from engines.generators.ifaceuv.blueprint import IFaceUvBlueprint, looked_up, overlaid, texture_of, unlike
from engines.generators.ifaceuv.networks import KIND, PAPER, Decoder, IFaceUvNetworks, Widths, spread
from engines.generators.networked.blueprint import Made, warped
from engines.generators.networked.layers import AdaIn, normed
from engines.generators.networked.lesson import Describe, Lesson
from engines.generators.networked.picture import Size
from engines.generators.networked.surface import HeadTables
from engines.generators.networked.window import WindowGenerator
from engines.generators.registry import GENERATORS
from engines.head.model import Part, load_head_model
from engines.raster.conditioning import HEAD_PARTS
from engines.renderer import Renderer
from scripts.generators.item import save_item
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

CPU = torch.device("cpu")
DRAWN = {Part.EYE, Part.MOUTH, Part.TEETH, Part.TONGUE}
SHOWN = HEAD_PARTS - DRAWN
TINY = Widths(
    code=16, warp_down=(4, 4, 6, 6, 8, 8), warp_up=(8, 6, 6), texture=(4, 6, 8, 8), edit=(4, 6, 8, 8), blocks=1,
    edge=3,
)  # fmt: skip
SMALL_PX = 64
TABLES = HeadTables.of(load_head_model())
PARTS = ("refinement", "consistency", "window", "computed_flow")


@dataclass(frozen=True)
class Blurs:
    """A judge whose features are the picture at 1/2 … 1/16."""

    @property
    def describe(self) -> dict[str, Describe]:
        return {}

    @staticmethod
    def perceptual(pictures: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(pictures, 2**k) for k in (1, 2, 3, 4)]

    @staticmethod
    def distance(made: Tensor, truth: Tensor) -> Tensor:
        return (made - truth).abs().mean((1, 2, 3))


@dataclass(frozen=True)
class Nothing:
    """Where the perceptual network is not installed."""

    perceptual: None = None

    @property
    def describe(self) -> dict[str, Describe]:
        return {}

    @staticmethod
    def distance(made: Tensor, truth: Tensor) -> Tensor:
        raise AssertionError


class Mirror:
    """A generator of random numbers that mirrors all rows and leaves their colours."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


def small(*without: str) -> IFaceUvBlueprint:
    return IFaceUvBlueprint(TINY, without, SMALL_PX)


def awake(blueprint: IFaceUvBlueprint, seed: int = 3) -> IFaceUvNetworks:
    """Networks whose last layers say something."""
    torch.manual_seed(seed)
    networks = blueprint.networks()
    for decoder in (networks.warp, networks.texture, networks.edit):
        nn.init.normal_(decoder.last.weight, std=0.05)
    return networks.eval()


@pytest.fixture(scope="module")
def store(drawn_pairs: Path) -> Store:
    return Store(drawn_pairs, small(), CPU)


@pytest.fixture(scope="module")
def lesson(store: Store) -> Lesson:
    """Two rows of the drawn pairs, 64 pixels high, without what no paper has: drawn eyes and mouth over it."""
    found = lesson_of(store.gather(store.train[[3, 6]], None), TABLES, small())
    found.scene.openings = None
    return found


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All ways between three frames of nothing in particular."""
    folder = tmp_path_factory.mktemp("noise")
    save_item(folder / "ada_01.safetensors", tiny_item("ada_01", seed=4))
    return Store(folder, small(), CPU)


def drawn(blueprint: IFaceUvBlueprint, networks: IFaceUvNetworks, lesson: Lesson) -> Made:
    with torch.no_grad():
        return blueprint.make(networks, lesson.scene)


# --- sizes -----------------------------------------------------------------------------------------


def gflop(run: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize(
    ("widths", "once", "frame"), [(PAPER, 32.56, 136.96), (Widths(), 0.82, 4.19)], ids=["paper", "shipped"]
)
def test_stages_have_their_sizes_and_cost_what_is_said(widths: Widths, once: float, frame: float) -> None:
    blueprint, w = IFaceUvBlueprint(widths), widths
    with torch.device("meta"):
        networks = blueprint.networks()
        photo, texture = (torch.empty(1, 4, 256, 256) for _ in range(2))
        z = networks.motion(torch.empty(1, 5, 65))
        warp, seen = networks.seen_by_warp(photo), networks.seen_by_texture(photo, texture)
        edit = networks.edit_encoder(torch.empty(1, 12, 256, 256))
        flow, added = networks.warp(warp, z), networks.refine(seen, z)
        spent_once = gflop(lambda: (networks.seen_by_warp(photo), networks.seen_by_texture(photo, texture)))
        spent = gflop(
            lambda: (
                networks.warp(warp, z),
                networks.refine(seen, z),
                networks.finish(photo, photo, photo, z),
            )
        )
    assert z.shape == (1, 256)
    assert flow.shape == (1, 2, 64, 64)
    assert added.shape == (1, 3, 256, 256)
    assert [tuple(x.shape[1:]) for x in warp] == [
        (w.warp_down[k], 256 // 2**k, 256 // 2**k) for k in (2, 3, 4, 5)
    ]
    for maps, its in ((seen, w.texture), (edit, w.edit)):
        assert [tuple(x.shape[1:]) for x in maps] == [
            (its[k], 256 // 2**k, 256 // 2**k) for k in (0, 1, 2, 3)
        ]
    assert spent_once == pytest.approx(once, abs=0.01)
    assert spent == pytest.approx(frame, abs=0.01)
    assert spent < 8 or widths is PAPER


def test_the_papers_widths_are_those_of_the_work_it_builds_on() -> None:
    assert asdict(PAPER) == {
        "code": 256, "warp_down": (32, 64, 128, 256, 256, 256), "warp_up": (256, 256, 128),
        "texture": (64, 128, 256, 256), "edit": (64, 128, 256, 256), "blocks": 2, "edge": 7,
    }  # fmt: skip
    assert IFaceUvBlueprint.window == Size(256, 256)


# --- eqs. 1 to 3: motion ---------------------------------------------------------------------------


def test_the_window_of_motions_ends_with_the_one_to_draw(noise: Store) -> None:
    """Eqs. 1 and 2, causal; without the window one moment."""
    seen = lesson_of(noise.gather(noise.train[:2], None), TABLES, small()).scene
    assert (IFaceUvBlueprint.past, IFaceUvBlueprint.ahead) == (4, 0)
    told = small().inputs(nn.Module(), seen)[6]
    assert told.shape == (2, 5, 65)
    assert torch.equal(told, seen.motions)
    one = small("window").inputs(nn.Module(), seen)[6]
    assert torch.equal(one, seen.motions[:, 4:].repeat(1, 5, 1))
    assert not torch.equal(one, told)
    assert small().networks().motion(told).shape == (2, 16)


def test_every_moment_counts(lesson: Lesson) -> None:
    networks = awake(small())
    told = lesson.scene.motions.clone()
    z = networks.motion(told)
    for moment in range(5):
        other = told.clone()
        other[:, moment] += 1
        assert not torch.allclose(networks.motion(other), z)


def test_z_enters_by_adain_alone(lesson: Lesson) -> None:
    """Eq. 3: with scale and bias that do not hear z, all networks draw the same for every z."""
    networks = awake(small())
    maps = [torch.randn(1, c, s, s) for c, s in ((4, 64), (6, 32), (8, 16), (8, 8))]
    warp = [torch.randn(1, c, s, s) for c, s in ((6, 16), (6, 8), (8, 4), (8, 2))]
    photo, behind, combined = torch.rand(3, 1, 4, 64, 64)

    def all_three(z: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (
                networks.warp(warp, z),
                networks.refine(maps, z),
                networks.finish(photo, behind, combined, z),
            )

    a, b = torch.randn(2, 1, 16).unbind(0)
    for ours, theirs in zip(all_three(a), all_three(b), strict=True):
        assert not torch.allclose(ours, theirs)
    count = 0
    for layer in networks.modules():
        if isinstance(layer, AdaIn):
            count += 1
            nn.init.zeros_(layer.scale.weight)
            nn.init.zeros_(layer.bias.weight)
    # each of three levels of the flow has two, each residual block of three levels of both others has two
    assert count == 3 * 2 + 2 * 3 * TINY.blocks * 2
    for ours, theirs in zip(all_three(a), all_three(b), strict=True):
        assert torch.equal(ours, theirs)


def test_a_residual_block_norms_then_scales_and_biases() -> None:
    torch.manual_seed(1)
    decoder, z = Decoder(3, (4, 6), 5, 1, 3), torch.randn(2, 5)
    low, high = torch.randn(2, 6, 8, 8) * 3, torch.randn(2, 4, 16, 16)
    block: Any = decoder.residual[0][0]  # pyright: ignore[reportIndexIssue]

    def adain(layer: AdaIn, x: Tensor) -> Tensor:
        return layer.scale(z)[..., None, None] * normed(x) + layer.bias(z)[..., None, None]

    y = F.leaky_relu(adain(block.first_norm, block.first(low)), 0.2)
    y = low + F.leaky_relu(adain(block.second_norm, block.second(y)), 0.2)
    up: Any = decoder.up[0]
    y = F.leaky_relu(up.norm(up.conv(y)), 0.2)
    y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False) + high
    nn.init.normal_(decoder.last.weight)
    assert torch.allclose(decoder([high, low], z), decoder.last(y).tanh(), atol=1e-5)


# --- eq. 4: the photo warped -----------------------------------------------------------------------


def test_the_photo_is_warped_by_what_the_network_adds_to_the_computed_flow(lesson: Lesson) -> None:
    blueprint, networks = small(), awake(small())
    made = drawn(blueprint, networks, lesson)
    assert made.flow is not None
    assert made.flow.shape == (2, 2, SMALL_PX // 4, SMALL_PX // 4)
    photo = lesson.scene.photo_at(blueprint.window)
    assert torch.equal(made.stages["warped"], warped(photo, made.flow))
    coarse = lesson.scene.thinned(Size(16, 16))
    start = spread(coarse.flow(), coarse.covered(), 16)
    features = blueprint.encode(networks, blueprint.photo_inputs(networks, lesson.scene))
    with torch.no_grad():
        added = networks.warp(features[:4], networks.motion(lesson.scene.motions))
    assert torch.allclose(made.flow, start + added, atol=1e-6)
    assert float(added.abs().mean()) > 1e-4
    assert float(start.abs().mean()) > 1e-3


def test_without_the_computed_flow_the_photo_stays_where_it_is_at_first(lesson: Lesson) -> None:
    blueprint = small("computed_flow")
    made = drawn(blueprint, blueprint.networks(), lesson)
    assert made.flow is not None
    assert not made.flow.any()
    assert torch.allclose(made.stages["warped"], lesson.scene.photo_at(blueprint.window), atol=1e-5)
    with_it = drawn(small(), small().networks(), lesson).flow
    assert with_it is not None
    assert with_it.any()


def test_an_engine_is_kept_by_the_code_of_functions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of classes alone: what carries the flow runs in the served module."""
    read, original = list[str](), Path.read_bytes

    def watch(path: Path) -> bytes:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", watch)
    source_digest(small().networks())
    assert {"networks.py", "layers.py", "beyond.py"} <= set(read)
    assert all((Path(networked.__file__).parent / name).is_file() or name == "networks.py" for name in read)


def test_a_flow_is_kept_where_it_is_known_and_fades_beyond() -> None:
    covered = torch.zeros(1, 1, 64, 64)
    covered[..., 24:40, 24:40] = 1
    flow = torch.tensor([0.2, -0.1])[None, :, None, None] * covered
    found = spread(flow, covered, 64)
    assert torch.equal(found * covered, flow)
    near, far = found[0, :, 32, 22], found[0, :, 32, 1]
    assert torch.allclose(near, torch.tensor([0.2, -0.1]), rtol=0.05)
    assert float(far[0]) < 0.5 * float(near[0])
    assert not spread(torch.zeros_like(flow), torch.zeros_like(covered), 64).any()


# --- eqs. 5 and 6: the texture ---------------------------------------------------------------------


def test_the_refined_texture_is_rendered(lesson: Lesson) -> None:
    """R(M, Î_uv) is R(M, I_uv) and R of what was added; 0 where there is no head."""
    blueprint, networks = small(), awake(small())
    scene, made = lesson.scene, drawn(small(), awake(small()), lesson)
    raw, rendered, covered = made.stages["raw"], made.stages["rendered"], scene.mask(SHOWN)
    assert torch.equal(raw, torch.cat([scene.rendered_face() * covered, covered], 1))
    for parts in ({Part.EYE}, DRAWN - {Part.EYE}):
        assert scene.mask(parts).any()
    assert torch.equal(covered, scene.covered() - scene.mask(DRAWN))
    grid = scene.uv()
    added = F.grid_sample(made.stages["added"], grid, "bilinear", "border", align_corners=False)
    assert torch.allclose(rendered[:, :3], raw[:, :3] + added * covered, atol=1e-6)
    assert torch.equal(rendered[:, 3:], covered)
    assert float((rendered - raw).abs().mean()) > 1e-3
    assert not (rendered * (1 - covered)).any()
    # of a texture as large as the window: as if it were rendered whole
    texture = texture_of(scene, blueprint.window)[:, :3]
    whole = scene.rendered(texture + made.stages["added"])
    assert torch.allclose((looked_up(texture, grid) + added) * covered, whole * covered, atol=1e-5)
    assert networks.texture.last.out_channels == 3


def test_without_refinement_the_photos_texture_is_rendered(lesson: Lesson) -> None:
    blueprint = small("refinement")
    made = drawn(blueprint, awake(blueprint), lesson)
    assert torch.equal(made.stages["rendered"], made.stages["raw"])
    assert "added" not in made.stages
    assert not blueprint.looks_back()


def test_the_refinement_sees_photo_texture_and_motion(lesson: Lesson) -> None:
    """Eq. 5; and of the photo f^Warp sees the picture alone."""
    blueprint, networks = small(), awake(small())
    photo, plain, texture = blueprint.photo_inputs(networks, lesson.scene)
    assert torch.equal(photo, plain)
    assert texture.shape == (2, 4, SMALL_PX, SMALL_PX)
    z = networks.motion(lesson.scene.motions)

    def added(photo: Tensor, texture: Tensor, z: Tensor) -> Tensor:
        with torch.no_grad():
            return networks.refine(blueprint.encode(networks, (photo, photo, texture))[4:], z)

    first = added(photo, texture, z)
    assert not torch.allclose(added(photo.flip(-1), texture, z), first, atol=1e-4)
    assert not torch.allclose(added(photo, texture.flip(-1), z), first, atol=1e-4)
    assert not torch.allclose(added(photo, texture, z + 1), first, atol=1e-4)
    with torch.no_grad():
        a, b = (blueprint.encode(networks, (photo, photo, t))[:4] for t in (texture, texture.flip(-1)))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_texture_is_the_photos_maps_with_what_it_shows(noise: Store) -> None:
    batch = noise.gather(noise.train[:2], None)
    batch |= {"gain": torch.full((2, 3), 0.5), "offset": torch.full((2, 3), 0.1)}
    found = texture_of(lesson_of(batch, TABLES, small()).scene, Size(SMALL_PX, SMALL_PX))
    mean = F.avg_pool2d(batch["maps"].float() / 255, 8)
    wanted = torch.cat([mean[:, :3] * 0.5 + 0.1, mean[:, 3:]], 1)
    # in the middle of the eight by eight patches of such a map
    assert torch.allclose(found[..., 4::8, 4::8], wanted[..., 4::8, 4::8], atol=0.02)


def test_a_mirrored_row_has_the_texture_of_the_row(store: Store) -> None:
    """The atlas is not mirrored: nor are photo and motion as the refinement sees them."""
    blueprint, networks = small(), awake(small())
    rows, mirror = store.train[[3, 6]], Mirror()
    plain = lesson_of(store.gather(rows, None), TABLES, blueprint)
    turned = lesson_of(store.gather(rows, mirror), TABLES, blueprint)  # pyright: ignore[reportArgumentType]
    assert turned.scene.flip is not None
    assert turned.scene.flip.all()
    a, b = (drawn(blueprint, networks, x) for x in (plain, turned))
    assert torch.allclose(a.stages["added"], b.stages["added"], atol=1e-4)
    assert float((a.stages["rendered"] - b.stages["rendered"].flip(-1)).abs().mean()) < 1e-3
    assert not torch.allclose(a.stages["rendered"], b.stages["rendered"], atol=0.05)
    assert torch.equal(
        blueprint.refined(networks, turned.scene), texture_of(turned.scene, blueprint.window)[:, :3]
        + drawn(blueprint, networks, turned).stages["added"]
    )  # fmt: skip


# --- eq. 7: one over the other ---------------------------------------------------------------------


def test_the_rendered_head_lies_over_the_warped_photo(lesson: Lesson) -> None:
    mask = torch.tensor([1.0, 0, 1, 0]).reshape(1, 1, 1, 4)
    moved = torch.tensor([0.2, 0.2, 0.2, 0.5]).reshape(1, 4, 1, 1).expand(1, 4, 1, 4)
    rendered = torch.full((1, 3, 1, 4), 0.8) * mask
    found = overlaid(moved, rendered, mask)
    assert torch.allclose(found[0, :3, 0], torch.tensor([0.4, 0.2, 0.4, 0.2]).expand(3, 4))
    assert torch.equal(found[:, 3:], moved[:, 3:])
    blueprint, networks = small(), awake(small())
    stages = drawn(blueprint, networks, lesson).stages
    rgb = stages["rendered"][:, :3]
    assert torch.equal(stages["combined"], overlaid(stages["warped"], rgb, lesson.scene.mask(SHOWN)))


# --- eq. 10: the last picture ----------------------------------------------------------------------


def test_the_editor_changes_the_combined_picture_by_all_that_it_sees(lesson: Lesson) -> None:
    blueprint = small()
    fresh = drawn(blueprint, blueprint.networks(), lesson)
    assert torch.equal(fresh.rgba, fresh.stages["combined"])
    networks = awake(blueprint)
    made = drawn(blueprint, networks, lesson)
    photo, z = lesson.scene.photo_at(blueprint.window), networks.motion(lesson.scene.motions)
    seen = (photo, made.stages["warped"], made.stages["combined"])
    with torch.no_grad():
        assert torch.equal(made.rgba, networks.finish(*seen, z))
        for k in range(3):
            other = [x.flip(-1) if n == k else x for n, x in enumerate(seen)]
            change = networks.finish(*other, z) - other[2] - (made.rgba - seen[2])  # pyright: ignore[reportCallIssue]
            assert float(change.abs().mean()) > 1e-4, k
        assert not torch.allclose(networks.finish(*seen, z + 1), made.rgba, atol=1e-4)


# --- eqs. 4, 8, 9, 11 and 12: losses ---------------------------------------------------------------


def test_pictures_are_compared_on_all_levels() -> None:
    """L1, each level with its weight; features less where the truth is not sharp."""
    a, b, truth = torch.rand(3, 2, 3, 32, 32)
    sharp = torch.tensor([1.0, 0.3])
    found = unlike(Blurs(), [a, b], truth, sharp)
    for picture, ours in zip((a, b), found, strict=True):
        levels = [(picture - truth).abs().mean((1, 2, 3))]
        levels += [
            sharp * (F.avg_pool2d(picture, 2**k) - F.avg_pool2d(truth, 2**k)).abs().mean((1, 2, 3))
            for k in (1, 2, 3, 4)
        ]
        wanted = sum(w * x for w, x in zip(module.LEVELS, levels, strict=True))
        assert isinstance(wanted, Tensor)
        assert torch.allclose(ours, wanted.mean())
    assert module.LEVELS == (1.0, 0.025, 0.015, 0.015, 0.02)
    alone = unlike(Nothing(), [a], truth, sharp)[0]
    assert torch.allclose(alone, (a - truth).abs().mean())


def test_losses_are_weighted_as_in_the_paper(lesson: Lesson) -> None:
    blueprint, networks = small(), awake(small())
    with torch.no_grad():
        losses = blueprint.outcome(networks, lesson, Blurs()).losses
        made = blueprint.make(networks, lesson.scene)
        pictures = {"warp": made.stages["warped"], "texture": made.stages["combined"], "edit": made.rgba}
        shown = [lesson.over(p) for p in pictures.values()]
        off = unlike(Blurs(), shown, lesson.truth_at(blueprint.window), lesson.sharpness)
    assert set(losses) == {"range", "warp", "texture", "consistency", "edit", "matte", "parts"}
    for (name, wanted), weight in zip(zip(pictures, off, strict=True), (2.5, 4, 4), strict=True):
        assert torch.allclose(losses[name], weight * wanted), name
    matte = (made.rgba[:, 3:] - lesson.matte_at(blueprint.window)).abs().mean()
    assert torch.allclose(losses["matte"], matte)


def test_both_ways_textures_are_to_be_the_same(noise: Store) -> None:
    """Eq. 9, for source and target: the frame that drives is enrolled too, and driven back."""
    blueprint, networks = small(), awake(small())
    item = tiny_item("ada_01", seed=4)
    ways = list(zip(item.source.tolist(), item.target.tolist(), strict=True))
    there, back = (
        lesson_of(noise.gather(np.array([(0, ways.index(way))]), None), TABLES, blueprint)
        for way in ((0, 2), (2, 0))
    )
    assert there.back is not None
    ours, theirs = (
        texture_of(x.scene, blueprint.window)[:, :3] + drawn(blueprint, networks, x).stages["added"]
        for x in (there, back)
    )
    assert torch.allclose(blueprint.refined(networks, there.back), theirs, atol=1e-5)
    losses = blueprint.outcome(networks, there, Nothing()).losses
    middle = (ours + theirs) / 2
    wanted = (ours - middle).abs().mean() + (theirs - middle).abs().mean()
    assert float(wanted) > 0.01
    assert torch.allclose(losses["consistency"], 1.0 * wanted, atol=1e-5)
    networks.zero_grad()
    losses["consistency"].backward()
    heard = {n.split(".")[0] for n, p in networks.named_parameters() if p.grad is not None and p.grad.any()}
    assert heard == {"motion", "texture_encoder", "texture"}


@pytest.mark.parametrize(
    ("part", "gone"), [("refinement", {"texture", "consistency"}), ("consistency", {"consistency"}),
                       ("window", set[str]()), ("computed_flow", set[str]())],
)  # fmt: skip
def test_what_is_left_out_has_no_loss(part: str, gone: set[str], noise: Store) -> None:
    blueprint = small(part)
    batch = noise.gather(noise.train[:1], None)
    losses = blueprint.outcome(blueprint.networks(), lesson_of(batch, TABLES, blueprint), Nothing()).losses
    assert set(losses) == {"range", "warp", "texture", "consistency", "edit", "matte", "parts"} - gone
    assert blueprint.looks_back() == ("consistency" not in gone)
    assert set(GENERATORS["ifaceuv"].switches) == set(IFaceUvBlueprint.switches) == set(PARTS)


# --- learning --------------------------------------------------------------------------------------


def test_gradient_reaches_every_parameter(lesson: Lesson) -> None:
    """After one step: the last layers are gates that are shut at first."""
    torch.manual_seed(0)
    blueprint = small()
    networks = blueprint.networks()
    optimiser = torch.optim.SGD(networks.parameters(), 1.0)
    for _ in range(2):
        optimiser.zero_grad()
        sum(blueprint.outcome(networks, lesson, Blurs()).losses.values(), torch.zeros(())).backward()
        optimiser.step()
    deaf = [n for n, p in networks.named_parameters() if p.grad is None or not p.grad.any()]
    assert not deaf
    assert all(p.isfinite().all() for p in networks.parameters())


def test_losses_are_alike_in_mixed_precision(lesson: Lesson) -> None:
    blueprint, networks = small(), awake(small())
    with torch.no_grad():
        full = blueprint.outcome(networks, lesson, Blurs()).losses
        with torch.autocast("cpu", torch.bfloat16):
            mixed = blueprint.outcome(networks, lesson, Blurs()).losses
    for name, loss in full.items():
        assert torch.allclose(mixed[name].float(), loss, rtol=0.03, atol=2e-3), name


@pytest.mark.slow
def test_a_few_pairs_are_learnt_by_heart(store: Store) -> None:
    torch.manual_seed(0)
    blueprint = small()
    networks = blueprint.networks()
    batch = store.gather(store.train[[1, 3, 6]], None)
    optimiser = torch.optim.Adam(networks.parameters(), 3e-3)

    def decibel() -> float:
        with torch.no_grad():
            off = lesson.over(blueprint.make(networks, lesson.scene).rgba) - lesson.truth_at(blueprint.window)
        return float(-10 * off.square().mean().log10())

    lesson = lesson_of(batch, TABLES, blueprint)
    before = decibel()
    for _ in range(STEPS):
        optimiser.zero_grad()
        sum(blueprint.outcome(networks, lesson, Nothing()).losses.values(), torch.zeros(())).backward()
        optimiser.step()
    assert before < 20
    assert decibel() > 24


STEPS = 80


def test_people_see_the_stages_beside_one_another(lesson: Lesson) -> None:
    blueprint, networks = small(), awake(small())
    s = drawn(blueprint, networks, lesson).stages
    columns = blueprint.grid(networks, lesson)
    assert [c.shape for c in columns] == [(2, 3, SMALL_PX, SMALL_PX)] * 7
    assert torch.equal(columns[0], lesson.photo_over(blueprint.window))
    assert torch.equal(columns[1], lesson.truth_at(blueprint.window))
    assert torch.equal(columns[2], lesson.over(s["warped"]))
    assert torch.equal(columns[3], s["raw"][:, :3])
    assert torch.equal(columns[4], s["rendered"][:, :3])
    assert torch.equal(columns[5], lesson.over(s["combined"]))


# --- serving ---------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of tiny networks that say something, where those that ship would lie."""
    path, widths = tmp_path / "ifaceuv.safetensors", replace(TINY, code=24)
    blueprint = IFaceUvBlueprint(widths, height_px=128)
    header = WeightsHeader(
        KIND.name, KIND.version, blueprint.config_dict(), "MIT", notes={"height_px": 128, "without": []}
    )
    save_weights(path, arrays_of(awake(blueprint), np.float32), header)
    monkeypatch.setattr(IFaceUvBlueprint, "weights_path", lambda: path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_it_draws_in_a_call(weights: Path, astronaut: Enrollment, aspect: Any) -> None:
    renderer = Renderer(astronaut, generator="ifaceuv", size_px=256, aspect=aspect)
    assert renderer.notice is None
    assert renderer.generator_name == "ifaceuv"
    still, turned = (renderer.render(m) for m in (astronaut.motion, moved(astronaut.motion, yaw=12)))
    assert still.shape == (256, 256 if aspect == "1:1" else 456, 3)
    assert np.abs(still.astype(int) - turned).mean() > 0.5


@pytest.mark.slow
def test_engines_draw_the_same(weights: Path) -> None:
    generator = GENERATORS["ifaceuv"].open(load_head_model())
    assert isinstance(generator, WindowGenerator)
    ((served, example),) = generator.networks
    torch.manual_seed(2)
    given = tuple(torch.rand_like(x) * 2 - 1 if k == 3 else torch.rand_like(x) for k, x in enumerate(example))
    ours, theirs = (e().compile(served, given, "fp32")(*given) for e in (TorchEngine, OpenVinoEngine))
    assert [x.shape for x in ours] == [(1, 4, 128, 128), (1, 2, 32, 32)]
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).abs().max()) < 5e-3
