"""pncc, paper 003: its tables row by row, its losses by their equations, what each switch leaves out; and serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from test_generator import moved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unasked import Unasked

from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.enrollment import Enrollment
from engines.generators.networked.beyond import filled
from engines.generators.networked.blueprint import Blueprint, Made
from engines.generators.networked.discriminators import PatchDiscriminator
from engines.generators.networked.layers import normed
from engines.generators.networked.lesson import Lesson
from engines.generators.networked.parts import eyes_mask, mouth_mask, parts_l1
from engines.generators.networked.picture import Size
from engines.generators.networked.surface import HeadTables
from engines.generators.pncc.blueprint import PnccBlueprint
from engines.generators.pncc.networks import AdaInBlock, Encoder, PnccConfig, PnccNetworks, SpadeBlock
from engines.generators.registry import GENERATORS
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.head.model import load_head_model
from engines.renderer import Aspect, Renderer
from scripts.generators.blueprint_task import BlueprintTask
from scripts.generators.judges import lent
from scripts.generators.lessons import lesson_of
from scripts.generators.loop import train
from scripts.generators.store import Batch, Store
from scripts.training.state import Settings

CPU = torch.device("cpu")
MODEL = load_head_model()
TABLES = HeadTables.of(MODEL)
TINY = PnccConfig((4, 6, 32), (4, 6, 32), (4, 4, 6), 12)


def tiny(*without: str) -> PnccBlueprint:
    return PnccBlueprint(TINY, without, 64)


@pytest.fixture(scope="module")
def store(drawn_pairs: Path) -> Store:
    return Store(drawn_pairs, tiny(), CPU)


@pytest.fixture(scope="module")
def batch(store: Store) -> Batch:
    return store.gather(store.train[[3, 1]], None)


@pytest.fixture
def lesson(batch: Batch) -> Lesson:
    """Without what no paper has: drawn eyes and mouth over the warped photo."""
    found = lesson_of(batch, TABLES, tiny(), 1000)
    found.scene.openings = None
    return found


def stirred(blueprint: PnccBlueprint, seed: int = 0) -> PnccNetworks:
    """Networks whose last convolutions have learned something."""
    torch.manual_seed(seed)
    networks = blueprint.networks()
    for layer in (networks.warping.flow, networks.enhancing.colour):
        nn.init.normal_(layer.weight, std=0.05)
    return networks


def features(x: Tensor) -> list[Tensor]:
    """A perceptual network of two levels."""
    return [x * 2, F.avg_pool2d(x, 2)]


def describe(pictures: Tensor, points_px: Tensor) -> Tensor:
    """A recognition net: the colours around each of five points, and where those are."""
    size = torch.tensor([pictures.shape[3], pictures.shape[2]])
    at = (points_px / size * 2 - 1)[:, None]
    seen = F.grid_sample(pictures, at, "bilinear", "border", align_corners=False)
    return torch.cat([seen.flatten(1), points_px.flatten(1) / 1000], 1)


@dataclass
class Judges:
    """Judges that a test looks through."""

    perceptual: Callable[[Tensor], Sequence[Tensor]] | None = features
    describe: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(
        default_factory=lambda: {"mobileface": describe}
    )

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        return (made - truth).abs().mean((1, 2, 3))


# --- tables 3.1 to 3.4 at the paper's size -----------------------------------------------------------


def shapes_of(module: nn.Module, inputs: Sequence[Any]) -> list[tuple[str, tuple[int, ...]]]:
    """(class, output size without the batch) of each layer and block, as it is reached."""
    rows: list[tuple[str, tuple[int, ...]]] = []
    kinds = (SpadeBlock, AdaInBlock, nn.PixelShuffle, nn.Linear, nn.Conv2d)
    inner = {
        m
        for b in module.modules()
        if isinstance(b, SpadeBlock | AdaInBlock)
        for m in b.modules()
        if m is not b
    }

    def note(layer: nn.Module, _: Any, out: Tensor) -> None:
        name = type(layer).__name__
        if isinstance(layer, nn.Conv2d):
            name = f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
        rows.append((name, tuple(out.shape[1:])))

    hooks = [
        m.register_forward_hook(note) for m in module.modules() if isinstance(m, kinds) and m not in inner
    ]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return rows


@pytest.fixture(scope="module")
def paper() -> PnccNetworks:
    with torch.device("meta"):
        return PnccNetworks(PnccConfig.paper())


def metas(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.zeros(1, *shape, device="meta") for shape in shapes]


CONVOLUTIONS = [("7x7", (32, 512, 384)), ("3x3", (128, 256, 192)), ("3x3", (512, 128, 96))]


def test_table_3_1_warping_network(paper: PnccNetworks) -> None:
    photo = metas((4 + 3, 512, 384))  # RGBA where the table has RGB, and PNCC
    assert shapes_of(paper.encoder, photo) == CONVOLUTIONS
    pncc = metas((3, 512, 384))
    assert shapes_of(paper.warping, [paper.encoder(*photo)[2], *pncc]) == [
        ("SpadeBlock", (512, 128, 96)),
        ("PixelShuffle", (128, 256, 192)),
        ("SpadeBlock", (128, 256, 192)),
        ("PixelShuffle", (32, 512, 384)),
        ("7x7", (2, 512, 384)),
    ]


def test_table_3_2_mapping_network(paper: PnccNetworks) -> None:
    assert shapes_of(paper.mapping, metas((65,))) == [("Linear", (128,))] * 5
    # ReLU behind all but the last
    mapping = PnccNetworks(TINY).mapping
    motion = torch.randn(3, 65)
    by_hand = motion
    for layer in list(mapping.layers)[:-1]:
        by_hand = layer(by_hand).clamp_min(0)
    assert torch.equal(mapping(motion), mapping.layers[-1](by_hand))
    assert (mapping(motion) < 0).any()


def test_table_3_3_enhancing_network(paper: PnccNetworks) -> None:
    pncc, photo, fine, middle, deep, code = metas(
        (3, 512, 384), (4, 512, 384), (32, 512, 384), (128, 256, 192), (512, 128, 96), (128,)
    )
    assert shapes_of(paper.enhancing, [pncc, photo, (fine, middle, deep), code]) == [
        *CONVOLUTIONS,
        ("SpadeBlock", (512, 128, 96)),
        ("AdaInBlock", (512, 128, 96)),
        ("PixelShuffle", (128, 256, 192)),
        ("SpadeBlock", (128, 256, 192)),
        ("AdaInBlock", (128, 256, 192)),
        ("PixelShuffle", (32, 512, 384)),
        ("SpadeBlock", (32, 512, 384)),
        ("AdaInBlock", (32, 512, 384)),
        ("SpadeBlock", (32, 512, 384)),
        ("7x7", (4, 512, 384)),  # RGBA where the table has RGB
    ]


def test_convolutions_have_instance_norm_and_relu() -> None:
    torch.manual_seed(0)
    encoder = Encoder(3, (4, 6, 8))
    x = torch.rand(2, 3, 16, 12)
    for found, layer in zip(encoder(x), encoder.convs, strict=True):
        x = F.relu(F.instance_norm(layer(x)))
        assert torch.allclose(found, x, atol=1e-6)
    assert x.shape == (2, 8, 4, 3)


def test_table_3_4_blocks() -> None:
    """Layer, leaky ReLU and 3 × 3 convolution, twice, without a shortcut."""
    torch.manual_seed(0)
    x, guide, code = torch.randn(2, 8, 6, 6), torch.randn(2, 3, 12, 12), torch.randn(2, 5)
    spade, adain = SpadeBlock(8, 3, 4), AdaInBlock(8, 5)
    for block, told in ((spade, guide), (adain, code)):
        y = block.first(F.leaky_relu(block.first_norm(x, told), 0.2))
        y = block.second(F.leaky_relu(block.second_norm(y, told), 0.2))
        assert torch.allclose(block(x, told), y, atol=1e-6)
        for layer in (block.first, block.second):
            assert layer.kernel_size == (3, 3)
            assert (layer.in_channels, layer.out_channels) == (8, 8)
        assert not torch.allclose(block(x, told), block(x, told * 2))
    shared = F.relu(spade.first_norm.shared(F.avg_pool2d(guide, 2)))
    norm = spade.first_norm
    expected = normed(x) * (1 + norm.gamma(shared)) + norm.beta(shared)
    assert torch.allclose(spade.first_norm(x, guide), expected, atol=1e-6)


def gflop(config: PnccConfig, height: int) -> tuple[float, float]:
    """Of what a photo costs once and of a frame."""
    with torch.device("meta"):
        networks = PnccNetworks(config)
        photo, pncc = (torch.zeros(1, c, height, height * 3 // 4) for c in (4, 3))
        found: list[float] = []
        kept = networks.encoder(torch.cat([photo, pncc], 1))
        for work in (
            lambda: networks.encoder(torch.cat([photo, pncc], 1)),
            lambda: (
                networks.warping(kept[2], pncc),
                networks.enhancing(pncc, photo, kept, networks.mapping(torch.zeros(1, 65))),
            ),
        ):
            with FlopCounterMode(display=False) as counter:
                work()
            found.append(counter.get_total_flops() / 1e9)
    return found[0], found[1]


def test_work_at_the_papers_size_and_at_ours() -> None:
    assert gflop(PnccConfig.paper(), 512) == pytest.approx((22.4, 919.6), abs=0.1)
    assert gflop(PnccConfig(), 256)[1] == pytest.approx(4.91, abs=0.02)
    assert PnccBlueprint().window == Size(192, 256)


# --- a frame ----------------------------------------------------------------------------------------


def test_the_first_picture_is_the_photo_moved_by_the_computed_flow(lesson: Lesson) -> None:
    blueprint, scene = tiny(), lesson.scene
    made = blueprint.make(blueprint.networks(), scene)
    covered, flow = scene.covered(), made.flow
    assert flow is not None
    assert torch.allclose(flow * covered, scene.flow(), atol=1e-6)
    assert (scene.flow().abs() > 0.01).any()
    assert torch.equal(flow, filled(scene.flow(), covered))
    assert ((flow.abs() > 0.001) & (covered == 0)).any()
    assert torch.allclose(made.rgba, made.stages["warped"].clamp(0, 1), atol=1e-6)
    still = tiny("computed_flow").make(blueprint.networks(), scene)
    assert still.flow is not None
    assert not still.flow.any()
    assert torch.allclose(still.rgba, scene.photo_at(blueprint.window), atol=1e-5)


def test_inputs_of_the_tables(lesson: Lesson) -> None:
    blueprint, scene = tiny(), lesson.scene
    (once,) = blueprint.photo_inputs(blueprint.networks(), scene)
    assert torch.equal(once, torch.cat([scene.photo_at(blueprint.window), scene.own_pncc()], 1))
    photo, pncc, motion, _ = blueprint.inputs(blueprint.networks(), scene)
    assert torch.equal(photo, scene.photo_at(blueprint.window))
    assert torch.equal(pncc, scene.pncc())
    assert float((pncc - scene.own_pncc()).abs().mean()) > 0.01
    assert torch.equal(motion, scene.motion)
    assert motion.shape == (2, 65)


def seen_by(module: nn.Module, work: Callable[[], object]) -> tuple[Any, ...]:
    got: list[tuple[Any, ...]] = []
    hook = module.register_forward_pre_hook(lambda _, given: got.append(given))
    work()
    hook.remove()
    (only,) = got
    return only


def test_each_spade_and_adain_sees_what_the_text_says(lesson: Lesson) -> None:
    """A flow of exactly four pixels: what is warped then is what was there, moved."""
    blueprint = tiny()
    networks = stirred(blueprint)
    photo, pncc, motion, computed = blueprint.inputs(networks, lesson.scene)
    nn.init.zeros_(networks.warping.flow.weight)
    four = torch.zeros_like(computed)
    four[:, 0] = 4 / blueprint.window.width_px
    kept = blueprint.encode(networks, blueprint.photo_inputs(networks, lesson.scene))
    assert [tuple(k.shape[1:]) for k in kept] == [(4, 64, 48), (6, 32, 24), (32, 16, 12)]

    def draw() -> Made:
        return blueprint.draw(networks, (photo, pncc, motion, four), kept)

    enhancing = networks.enhancing
    for block, source, pixels in (
        (enhancing.deep, kept[2], 1),
        (enhancing.middle, kept[1], 2),
        (enhancing.fine, kept[0], 4),
        (enhancing.last, photo, 4),
    ):
        _, guide = seen_by(block, draw)
        assert torch.allclose(guide[..., :-pixels], source[..., pixels:], atol=1e-4)
    code = networks.mapping(motion)
    for block in (enhancing.deep_code, enhancing.middle_code, enhancing.fine_code):
        assert torch.equal(seen_by(block, draw)[1], code)
    for block in (networks.warping.deep, networks.warping.middle):
        assert torch.equal(seen_by(block, draw)[1], pncc)
    assert torch.equal(seen_by(networks.warping.deep, draw)[0], kept[2])
    assert torch.equal(seen_by(enhancing.encoder, draw)[0], pncc)


def test_what_is_drawn_is_added_to_the_warped_photo_and_clamped(lesson: Lesson) -> None:
    blueprint = tiny()
    networks = stirred(blueprint)
    nn.init.normal_(networks.enhancing.colour.weight, std=1.0)
    added: list[Tensor] = []
    networks.enhancing.register_forward_hook(lambda _, __, out: added.append(cast(Tensor, out)))
    made = blueprint.make(networks, lesson.scene)
    unclamped = made.stages["warped"] + added[0]
    assert unclamped.min() < 0
    assert unclamped.max() > 1
    assert torch.allclose(made.rgba, unclamped.clamp(0, 1))
    assert made.flow is not None
    assert not torch.equal(made.flow, made.stages["computed"])
    without = tiny("residual").draw(
        networks,
        blueprint.inputs(networks, lesson.scene),
        blueprint.encode(networks, blueprint.photo_inputs(networks, lesson.scene)),
    )
    assert torch.allclose(without.rgba, added[1].clamp(0, 1))


def test_a_flow_goes_on_beyond_the_head_as_what_lies_nearest() -> None:
    covered = torch.zeros(1, 1, 48, 36)
    covered[..., 10:20, 10:20] = 1
    covered[..., 30:40, 10:20] = 1
    flow = torch.zeros(1, 2, 48, 36)
    flow[:, 0, 10:20, 10:20] = 0.2
    flow[:, 1, 30:40, 10:20] = -0.1
    found = filled(flow, covered)
    assert torch.equal(found * covered, flow)
    above, below = found[0, :, 5, 15], found[0, :, 44, 15]
    assert above[0] > 4 * above[1].abs()
    assert below[1] < -4 * below[0].abs() / 2
    assert found[0, 0].max() <= 0.2
    steps = (found[..., 1:] - found[..., :-1]).abs()
    assert steps.max() < 0.15  # no tear at the head's edge


def test_mouth_and_eyes_count_once_more(batch: Batch) -> None:
    """As much as a mean over either says, whatever is beyond them, on a grid of any size."""
    scene = lesson_of(batch, TABLES, tiny()).scene
    mouth, eyes = mouth_mask(scene), eyes_mask(scene)
    points = TABLES.landmarks(scene.posed.corners[..., :2])
    for row in range(2):
        for lids in (EYE_RIGHT, EYE_LEFT):
            at = points[row, list(lids)].long()
            assert eyes[row, 0, at[:, 1], at[:, 0]].all()
        lips = points[row, list(LIPS_OUTER)].long()
        assert not eyes[row, 0, lips[:, 1], lips[:, 0]].any()
    truth = torch.zeros(2, 3, 64, 48)
    assert parts_l1(scene, truth, truth).tolist() == [0, 0]
    beyond = (1 - torch.maximum(mouth, eyes)).expand(-1, 3, -1, -1)
    assert float(parts_l1(scene, beyond, truth).max()) == 0
    assert torch.allclose(parts_l1(scene, 0.25 * mouth.expand(-1, 3, -1, -1), truth), torch.tensor(0.25))
    both = 0.25 * mouth + 0.5 * eyes * (1 - mouth)
    assert torch.allclose(parts_l1(scene, both.expand(-1, 3, -1, -1), truth), torch.tensor(0.75))
    large = torch.ones(2, 3, 128, 96)
    assert torch.allclose(parts_l1(scene, large, 0 * large), torch.tensor(2.0))


def test_what_is_taught_counts_mouth_and_eyes(batch: Batch) -> None:
    blueprint = tiny()
    networks, lesson = stirred(blueprint), lesson_of(batch, TABLES, blueprint)
    with torch.no_grad():
        made = blueprint.make(networks, lesson.scene)
        losses = blueprint.outcome(networks, lesson, Judges()).losses
    off = parts_l1(lesson.scene, lesson.over(made.rgba), lesson.truth_at(blueprint.window))
    assert torch.allclose(losses["parts"], 1.2 * off.mean())
    papers = ("ifaceuv", "multiguidance", "pwm", "pncc", "idmatch")
    kinds = [kind() for name in papers if (kind := GENERATORS[name].blueprint) is not None]
    assert [kind.parts > 0 for kind in kinds] == [True] * 5


@pytest.mark.parametrize("flip", [False, True])
def test_the_mouths_pixels_are_around_the_lips(batch: Batch, flip: bool) -> None:
    turned = dict(batch)
    turned["flip"] = torch.full_like(batch["flip"], flip)
    scene = lesson_of(turned, TABLES, tiny()).scene
    points = TABLES.landmarks(scene.posed.corners[..., :2])
    mask = mouth_mask(scene)[:, 0]
    assert mask.shape == (2, 64, 48)
    for row in range(2):
        lips = points[row, list(LIPS_OUTER)].long()
        assert mask[row, lips[:, 1], lips[:, 0]].all()
        between_eyes = points[row, 6].long()
        assert mask[row, between_eyes[1], between_eyes[0]] == 0
        wide, high = (points[row, list(LIPS_OUTER)].amax(0) - points[row, list(LIPS_OUTER)].amin(0)).tolist()
        rows, columns = mask[row].any(1).sum(), mask[row].any(0).sum()
        assert float(columns) == pytest.approx((2**0.5 + 0.25) * wide, abs=1.3)
        assert float(rows) == pytest.approx(2**0.5 * high + 0.25 * wide, abs=1.3)
    # lying down it lies down too
    across = torch.stack(
        [scene.posed.corners[..., 1], scene.posed.corners[..., 0], scene.posed.corners[..., 2]], 2
    )
    scene.posed = replace(scene.posed, corners=across)
    scene.size = Size(64, 48)
    assert float((mouth_mask(scene)[:, 0] - mask.transpose(1, 2)).abs().mean()) < 0.002


# --- losses § 3.2.5 to 3.2.10 -----------------------------------------------------------------------


def segmented(lesson: Lesson, size: Size) -> Tensor:
    matte = lesson.matte_at(size)
    return torch.cat([lesson.truth_at(size) * matte, matte], 1)


@pytest.fixture
def made(lesson: Lesson) -> Made:
    blueprint = tiny()
    return blueprint.make(stirred(blueprint), lesson.scene)


def test_losses_are_the_equations(lesson: Lesson, made: Made) -> None:
    blueprint = tiny()
    lesson.sharpness = torch.tensor([1.0, 0.5])
    with Unasked():
        losses = blueprint.losses(made, lesson, Judges())
    truth = segmented(lesson, blueprint.window)
    weight = blueprint.weights
    shown = lesson.over(truth)
    for name, rgba in (("warped", made.stages["warped"]), ("enhanced", made.rgba)):
        assert torch.allclose(losses[f"style_{name}"], (rgba - truth).abs().mean())
        pairs = zip(features(lesson.over(rgba)), features(shown), strict=True)
        rows = sum((a - b).abs().mean((1, 2, 3)) for a, b in pairs) * lesson.sharpness
        assert torch.allclose(losses[f"perceptual_{name}"], weight.perceptual * torch.as_tensor(rows).mean())
    at = lesson.points_at(blueprint.window)
    alike = F.cosine_similarity(describe(lesson.over(made.rgba), at), describe(shown, at), dim=1)
    assert torch.allclose(losses["identity"], weight.identity * ((1 - alike) * lesson.sharpness).mean())
    assert len(losses) == 5
    # 1, 1, 1, 50, 10, 10 over 50
    assert (weight.style, blueprint.teaching.adversarial, weight.identity) == (1, 1 / 50, 10 / 50)


def test_who_it_is_is_left_out_where_no_net_is_lent(lesson: Lesson, made: Made) -> None:
    assert "identity" not in tiny().losses(made, lesson, Judges(describe={}))
    assert "identity" not in tiny().losses(made, lesson, Judges(describe={"faceres": describe}))
    assert not any("perceptual" in n for n in tiny().losses(made, lesson, Judges(perceptual=None)))
    assert "identity" not in tiny().losses(made, lesson, lent(CPU, perceptual=False))


def test_discriminators_see_the_driving_pncc_and_the_masked_mouth(lesson: Lesson, made: Made) -> None:
    blueprint = tiny()
    fakes, reals = blueprint.shown(made, lesson)
    pncc, mask = lesson.scene.pncc(), mouth_mask(lesson.scene)
    truth = lesson.over(segmented(lesson, blueprint.window))
    assert torch.equal(fakes["warped"], torch.cat([lesson.over(made.stages["warped"]), pncc], 1))
    assert torch.equal(fakes["enhanced"], torch.cat([lesson.over(made.rgba), pncc], 1))
    assert torch.equal(reals["warped"], torch.cat([truth, pncc], 1))
    assert torch.equal(reals["enhanced"], reals["warped"])
    assert torch.equal(fakes["mouth"], fakes["enhanced"] * mask)
    assert torch.equal(reals["mouth"], reals["enhanced"] * mask)
    discriminators = blueprint.discriminators()
    assert discriminators.keys() == fakes.keys() == reals.keys()
    for name, discriminator in discriminators.items():
        verdict, _ = discriminator(fakes[name])
        assert verdict.shape[2:] == (8, 6)
    # what stands behind the person is no business of anybody's
    behind = 1 - lesson.matte_at(blueprint.window)
    plate = lesson.background_at(blueprint.window)
    assert float(((truth - plate) * (behind > 0.999)).abs().max()) < 1e-2


# --- switches: table 6.2 ----------------------------------------------------------------------------


def test_each_switch_leaves_out_its_part(lesson: Lesson, made: Made) -> None:
    whole = tiny()
    assert GENERATORS["pncc"].switches == PnccBlueprint.switches
    assert GENERATORS["pncc"].blueprint is not None
    assert GENERATORS["pncc"].blueprint() is PnccBlueprint
    assert not any("perceptual" in n for n in tiny("perceptual").losses(made, lesson, Judges()))
    plain = tiny("conditioning")
    fakes, reals = plain.shown(made, lesson)
    for name, discriminator in plain.discriminators().items():
        assert isinstance(discriminator, PatchDiscriminator)
        assert fakes[name].shape[1] == reals[name].shape[1] == 3
        discriminator(fakes[name])
    mouthless = tiny("mouth")
    assert "mouth" not in mouthless.shown(made, lesson)[0]
    assert mouthless.discriminators().keys() == {"warped", "enhanced"}
    networks = stirred(whole)
    photo, pncc, motion, computed = whole.inputs(networks, lesson.scene)
    kept = whole.encode(networks, whole.photo_inputs(networks, lesson.scene))
    drawn = [whole.draw(networks, (photo, pncc, m, computed), kept).rgba for m in (motion, motion + 1)]
    assert not torch.equal(drawn[0], drawn[1])
    assert motion.any()
    assert not tiny("mapping").inputs(networks, lesson.scene)[2].any()


def test_without_the_residual_a_whole_picture_is_drawn(lesson: Lesson) -> None:
    """It begins grey: the clamp must not hold back what is to be learned."""
    blueprint = tiny("residual")
    torch.manual_seed(0)
    networks = blueprint.networks()
    drawn = blueprint.make(networks, lesson.scene).rgba
    assert abs(float(drawn.median()) - 0.5) < 0.1
    drawn.mean().backward()
    assert networks.enhancing.colour.weight.grad is not None
    assert (networks.enhancing.colour.weight.grad != 0).all()


# --- how it learns ----------------------------------------------------------------------------------


def test_gradient_reaches_every_parameter(lesson: Lesson) -> None:
    """The last convolutions begin at 0 and let nothing through to the others: after one step all learn."""
    blueprint = tiny()
    torch.manual_seed(0)
    networks = blueprint.networks()
    optimiser = torch.optim.Adam(networks.parameters(), 1e-2)
    without: list[set[str]] = []
    for _ in range(2):
        optimiser.zero_grad()
        made = blueprint.make(networks, lesson.scene)
        torch.stack(list(blueprint.losses(made, lesson, Judges()).values())).sum().backward()
        steep = {
            n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in networks.named_parameters()
        }
        # what a norm behind takes away leaves rounding errors
        silent = {n for n, found in steep.items() if found < 1e-6 * max(steep.values())}
        without.append(silent)
        optimiser.step()
    last = {"warping.flow.weight", "warping.flow.bias", "enhancing.colour.weight", "enhancing.colour.bias"}
    assert not without[0] & last
    assert without[0] == {n for n, _ in networks.named_parameters()} - last
    assert not without[1]


def test_the_warped_picture_teaches_flow_alone(lesson: Lesson) -> None:
    blueprint = tiny()
    networks = stirred(blueprint)
    made = blueprint.make(networks, lesson.scene)
    blueprint.losses(made, lesson, Judges())["style_warped"].backward()
    taught = {
        n.split(".")[0] for n, p in networks.named_parameters() if p.grad is not None and (p.grad != 0).any()
    }
    assert taught == {"encoder", "warping"}


def test_features_are_taught_by_what_is_enhanced(lesson: Lesson) -> None:
    """Also where the flow tells them nothing."""
    blueprint = tiny()
    networks = stirred(blueprint)
    nn.init.zeros_(networks.warping.flow.weight)
    kept = blueprint.encode(networks, blueprint.photo_inputs(networks, lesson.scene))
    leaves = tuple(k.detach().requires_grad_() for k in kept)
    blueprint.draw(networks, blueprint.inputs(networks, lesson.scene), leaves).rgba.sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.any()


@pytest.mark.slow
def test_mixed_precision_changes_little(batch: Batch) -> None:
    blueprint = tiny()
    networks = stirred(blueprint)
    full = blueprint.outcome(networks, lesson_of(batch, TABLES, blueprint), Judges()).losses
    task = BlueprintTask(blueprint, CPU, Judges())
    outcome = task.outcome(networks, batch, 0)
    for name, loss in outcome.losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(full[name].item(), rel=0.03, abs=3e-4), name
    assert outcome.fakes["mouth"].dtype == torch.float32


@pytest.mark.slow
def test_it_learns_what_geometry_does_not_know(drawn_pairs: Path, tmp_path: Path) -> None:
    """Through the loop that trains, with discriminators: true frames of drawn pairs are darker than their photo."""
    blueprint = tiny()
    blueprint.teaching = replace(blueprint.teaching, counts_from=10)  # pyright: ignore[reportAttributeAccessIssue]
    store = Store(drawn_pairs, blueprint, CPU)
    task = BlueprintTask(blueprint, CPU, Judges())
    rows = store.gather(store.train[:6], None)
    still = lesson_of(rows, TABLES, blueprint)

    def db(networks: nn.Module) -> float:
        with torch.no_grad():
            ours = still.over(blueprint.make(networks, still.scene).rgba)
        return float(-10 * (ours - still.truth_at(blueprint.window)).square().mean().log10())

    torch.manual_seed(0)
    first = db(blueprint.networks())
    settings = Settings(batch=6, steps=60, rate=2e-2, seed=0)
    done = train(task, store, settings, tmp_path, CPU, say=lambda _: None)
    assert db(done.network) > first + 1
    found = done.figures
    assert found["mouth"] < found["mouth_base"]
    assert found["l1"] < found["l1_base"]


def test_figures_and_columns_for_people(lesson: Lesson) -> None:
    blueprint = tiny()
    networks = stirred(blueprint)
    found = blueprint.figures(networks, lesson, Judges())
    assert found.keys() == {"l1", "l1_base", "db", "db_base", "lpips", "lpips_base", "mouth", "mouth_base"}
    mask = mouth_mask(lesson.scene)[:1] > 0
    ours = lesson.over(blueprint.make(networks, lesson.scene).rgba)
    off = (ours - lesson.truth_at(blueprint.window)).abs()[:1].mean(1, keepdim=True)
    assert torch.allclose(found["mouth"][0], off[mask].mean(), atol=1e-6)
    for column in blueprint.grid(networks, lesson):
        assert column.shape == (2, 3, 64, 48)


# --- how it serves ----------------------------------------------------------------------------------


def weights_of(folder: Path, *without: str) -> Path:
    """Weights of networks that have learned something, not much."""
    blueprint = PnccBlueprint(TINY, without)
    networks = stirred(blueprint)
    for layer in (networks.warping.flow, networks.enhancing.colour):
        layer.weight.data *= 0.2
    notes = {"height_px": 256, "without": list(without)}
    told = WeightsHeader("pncc", 1, blueprint.config_dict(), "none", notes=notes)
    path = folder / "pncc.safetensors"
    save_weights(path, arrays_of(networks, np.float16), told)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_it_draws_through_the_renderer(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: Aspect
) -> None:
    path = weights_of(tmp_path)
    monkeypatch.setattr(PnccBlueprint, "weights_path", lambda: path)
    renderer = Renderer(astronaut, generator="pncc", size_px=256, aspect=aspect)
    assert renderer.notice is None
    assert renderer.wait_until_compiled()
    assert renderer.generator_name == "pncc"
    still = renderer.render(astronaut.motion).astype(int)
    motion = moved(astronaut.motion, yaw=10)
    turned = renderer.render(motion).astype(int)
    floor = Renderer(astronaut, generator="geometric", size_px=256, aspect=aspect).render(motion)
    assert np.abs(turned - still).mean() > 1.5 * np.abs(turned - floor).mean()


@pytest.mark.slow
def test_engines_draw_the_same(lesson: Lesson, batch: Batch) -> None:
    """Of what a frame really looks like: torch, and OpenVINO."""
    blueprint = tiny()
    networks = stirred(blueprint).eval()
    (served,) = blueprint.served(networks)
    with torch.no_grad():
        kept = blueprint.encode(networks, blueprint.photo_inputs(networks, lesson.scene))
        given = (lesson.scene.photo_at(blueprint.window), *blueprint.inputs(networks, lesson.scene), *kept)
        given = tuple(x[:1].contiguous() for x in given)
        made = blueprint.make(networks, lesson.scene)
    assert [g.shape for g in given] == [e.shape for e in served.example]
    engines = [e.compile(served.module, served.example, "fp32") for e in (TorchEngine(), OpenVinoEngine())]
    (difference, flow), theirs = (engine(*given) for engine in engines)
    assert made.flow is not None
    assert torch.allclose(flow, made.flow[:1], atol=1e-6)
    assert torch.allclose(difference, (made.rgba - made.stages["warped"])[:1], atol=1e-5)
    assert float((difference - theirs[0]).abs().max()) < 2e-3
    assert float((flow - theirs[1]).abs().max()) < 1e-4


def test_weights_keep_widths_and_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights_of(tmp_path, "residual", "mapping")
    monkeypatch.setattr(PnccBlueprint, "weights_path", lambda: path)
    generator = GENERATORS["pncc"].open(MODEL, without=("computed_flow",))
    blueprint = getattr(generator, "blueprint", None)
    assert isinstance(blueprint, Blueprint)
    assert blueprint.without == {"residual", "mapping", "computed_flow"}
    _, header = load_weights(path, PnccBlueprint.kind)
    assert header.config.keys() == {f.name for f in fields(PnccConfig)}
    assert blueprint.config == TINY
