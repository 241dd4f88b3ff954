"""`multiguidance` is what paper 001 says: each equation, each row of table 3, and that it learns and serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from posed import STRAIGHT, scene_of_heads
from test_generator import moved
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from unasked import Unasked

from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, save_weights
from engines.enrollment import Enrollment
from engines.generators.multiguidance.blueprint import LossWeights, MultiguidanceBlueprint
from engines.generators.multiguidance.networks import (
    PAPER,
    Completion,
    Config,
    MultiguidanceNetworks,
    SpadeBlock,
    fused,
    ported,
)
from engines.generators.networked.blueprint import Made, load_networks, warped
from engines.generators.networked.layers import AdaIn, AdaInDown, AdaInUp, Spade
from engines.generators.networked.lesson import Lesson
from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables
from engines.generators.registry import GENERATORS
from engines.head.inner_face import inner_face
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_descriptor import EXPRESSION, ROTATION
from engines.renderer import Aspect, Renderer
from engines.retarget import Controls, retarget
from scripts.generators.judges import Judges, lent
from scripts.generators.lessons import lesson_of
from scripts.generators.store import Store

MODEL = load_head_model()
TINY = Config((4, 4, 6, 6, 6, 6), 8, (4, 6, 6, 8), (4, 4, 4, 4), 1)
PX = 64
BLUEPRINT = MultiguidanceBlueprint(TINY, height_px=PX)
PARTS = BLUEPRINT.switches
NO_JUDGES = Judges(None, {}, {"perceptual": "not wanted"})
TURNED = moved(STRAIGHT, yaw=25, jawOpen=0.5)


def awake(blueprint: MultiguidanceBlueprint = BLUEPRINT) -> MultiguidanceNetworks:
    """Networks whose last layers, zero at first, hide nothing."""
    torch.manual_seed(0)
    networks = blueprint.networks()
    for last in (networks.completion.maps, networks.reenactment.decoder.last):
        nn.init.normal_(last.weight, std=0.3)
    return networks.eval()


def given(
    networks: MultiguidanceNetworks, scene: Scene, blueprint: MultiguidanceBlueprint = BLUEPRINT
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(inputs, features) of a scene."""
    features = blueprint.encode(networks, blueprint.photo_inputs(networks, scene))
    return blueprint.inputs(networks, scene), features


def lesson_of_heads(motion: Motion = TURNED, step: int = 0) -> Lesson:
    """A lesson whose truth is another picture of chance."""
    scene, other = scene_of_heads(PX, motion), scene_of_heads(PX, seed=9)
    background = Picture(torch.full((1, 3, PX, PX), 0.4))
    return Lesson(scene, replace(other.photo, alpha="beside"), background, torch.tensor([0.5]), step)


def squares(picture: Tensor) -> Sequence[Tensor]:
    """φ that anybody can compute: two layers."""
    return [picture.square(), 3 * F.avg_pool2d(picture, 2).square()]


@pytest.fixture(scope="module")
def turned() -> Scene:
    return scene_of_heads(PX, TURNED)


# --- what the networks see: v_t, eqs. 3 and 4, I_r -------------------------------------------------


def test_flow_is_computed_backward_for_the_inner_face() -> None:
    """Eq. 3: of a head that only stands elsewhere, the way there, in shares of the window; 0 off the inner face."""
    scene = scene_of_heads(PX, own_shift_px=(5, -3))
    _, flow, *_ = BLUEPRINT.inputs(nn.Identity(), scene)
    inner = scene.inner_face()
    expected = torch.tensor([5 / PX, -3 / PX])[None, :, None, None] * inner
    assert torch.allclose(flow, expected, atol=1e-5)
    assert 0.1 < float(inner.mean()) < float(scene.covered().mean()) - 0.05


def test_flow_brings_the_photos_points_to_where_they_are_drawn(turned: Scene) -> None:
    """Eq. 3 of a turned head with an open mouth: the photo's coordinates, warped, are those of the head to draw."""
    _, flow, seen, *_ = BLUEPRINT.inputs(nn.Identity(), turned)
    off = (warped(turned.own_pncc(), flow) - turned.pncc()).abs().sum(1, keepdim=True)
    still = (turned.own_pncc() - turned.pncc()).abs().sum(1, keepdim=True)
    sure = seen > 0
    assert float(off[sure].median()) < 0.02
    assert float(off[sure].median()) < 0.1 * float(still[sure].median())


def test_a_triangle_that_the_photo_does_not_show_is_occluded(turned: Scene) -> None:
    """Eq. 4, triangle by triangle; 0 off the inner face."""
    _, _, found, *_ = BLUEPRINT.inputs(nn.Identity(), turned)
    source = set(turned.own.triangle.flatten().tolist())
    inner = inner_face(MODEL)
    wanted = [
        float(t >= 0 and t in source and bool(inner[t])) for t in turned.posed.triangle.flatten().tolist()
    ]
    assert found.flatten().tolist() == wanted
    hidden = float(turned.inner_face().sum()) - sum(wanted)
    assert hidden > 50


def test_the_rendered_face_has_the_photos_texture_on_the_head_to_draw() -> None:
    """I_r: (α_s, δ_s, γ_s) from the photo's UV maps, (β_d, p_d) from the motion; of the whole head."""
    scene = scene_of_heads(PX, TURNED)
    scene.maps[:, :3] = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None]
    rendered = BLUEPRINT.inputs(nn.Identity(), scene)[3]
    colour = torch.tensor([200, 100, 50])[None, :, None, None] / 255
    assert torch.allclose(rendered, colour * scene.covered(), atol=1e-5)


def test_motion_is_the_drivers(turned: Scene) -> None:
    photo, *_, motion = BLUEPRINT.inputs(nn.Identity(), turned)
    assert torch.equal(motion, turned.motion)
    assert not torch.equal(motion, turned.own_motion)
    assert torch.equal(photo, turned.photo_at(BLUEPRINT.window))


# --- completion: eqs. 5, 6 and 7 -------------------------------------------------------------------


def predicted(made: Made) -> Tensor:
    names = ("predicted_flow", "predicted_occlusion", "flow_mask", "occlusion_mask")
    return torch.cat([made.stages[n] for n in names], 1)


@torch.no_grad()
def test_completion_sees_photo_and_motion_and_nothing_computed(turned: Scene) -> None:
    """Eq. 5."""
    networks = awake()
    inputs, features = given(networks, turned)
    maps = predicted(BLUEPRINT.draw(networks, inputs, features))
    assert maps.shape == (1, 5, PX, PX)
    photo, flow, occlusion, rendered, motion = inputs
    blind = BLUEPRINT.draw(networks, (photo, flow + 0.1, 1 - occlusion, 1 - rendered, motion), features)
    assert torch.equal(predicted(blind), maps)
    _, others = given(networks, scene_of_heads(PX, TURNED, seed=1))
    assert float((predicted(BLUEPRINT.draw(networks, inputs, others)) - maps).abs().max()) > 1e-3
    for part in (EXPRESSION, ROTATION):  # β_d alone, and p_d alone
        other = motion.clone()
        other[:, part] += 0.5
        drawn = BLUEPRINT.draw(networks, (photo, flow, occlusion, rendered, other), features)
        assert float((predicted(drawn) - maps).abs().max()) > 1e-5


@torch.no_grad()
def test_the_code_enters_by_adain_alone(turned: Scene) -> None:
    networks = awake()
    inputs, features = given(networks, turned)
    completion = networks.completion
    assert len(completion.downs) == 5
    assert len(completion.ups) == 3
    assert all(isinstance(m, AdaInDown) for m in completion.downs)
    assert all(isinstance(m, AdaInUp) for m in completion.ups)
    norms = [m for m in completion.modules() if isinstance(m, AdaIn)]
    assert len(norms) == 2 * (5 + 3)
    for norm in norms:
        nn.init.zeros_(norm.scale.weight)
        nn.init.zeros_(norm.bias.weight)
    maps = predicted(BLUEPRINT.draw(networks, inputs, features))
    other = (*inputs[:-1], inputs[-1] + 0.5)
    assert torch.equal(predicted(BLUEPRINT.draw(networks, other, features)), maps)


def test_fusion() -> None:
    """Eqs. 6 and 7: `M ⊙ predicted + (1 − M) ⊙ computed`."""
    mask = torch.tensor([0.0, 0.25, 1.0])
    assert torch.equal(fused(mask, torch.full((3,), 8.0), torch.full((3,), 4.0)), torch.tensor([4.0, 5, 8]))


@torch.no_grad()
def test_flow_and_occlusion_are_fused_place_by_place(turned: Scene) -> None:
    networks = awake()
    inputs, features = given(networks, turned)
    _, computed_flow, computed_occlusion, _, motion = inputs
    found: Completion = networks.completion(features[0], motion)
    for mask in (found.flow_mask, found.occlusion_mask):
        assert 0 < float(mask.min()) < float(mask.max()) < 1
    assert found.flow_mask.std() > 0.01
    assert found.flow.abs().max() > 0.01
    made = BLUEPRINT.draw(networks, inputs, features)
    assert made.flow is not None
    flow = found.flow_mask * found.flow + (1 - found.flow_mask) * computed_flow
    occlusion = found.occlusion_mask * found.occlusion + (1 - found.occlusion_mask) * computed_occlusion
    assert torch.allclose(made.flow, flow, atol=1e-6)
    assert torch.allclose(made.stages["occlusion"], occlusion, atol=1e-6)
    assert torch.allclose(made.stages["warped"], warped(inputs[0], flow), atol=1e-6)


# --- reenactment -----------------------------------------------------------------------------------


def test_features_are_warped_then_masked() -> None:
    feature = torch.rand(1, 2, 8, 8)
    flow = torch.tensor([1 / 8, 0.0])[None, :, None, None].expand(1, 2, 32, 32)
    occlusion = torch.ones(1, 1, 32, 32)
    occlusion[..., :16] = 0
    found = ported(feature, flow, occlusion)
    assert float(found[..., :4].abs().max()) == 0
    assert torch.allclose(found[..., 4:7], feature[..., 5:8], atol=1e-5)


class Heard:
    """What modules are called with."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.calls: list[tuple[nn.Module, tuple[Any, ...]]] = []
        for module in modules:
            module.register_forward_pre_hook(lambda m, args: self.calls.append((m, args)))


@torch.no_grad()
def test_features_of_every_level_are_ported_to_the_decoder(turned: Scene) -> None:
    networks = awake()
    inputs, features = given(networks, turned)
    decoder = Heard([networks.reenactment.decoder])
    made = BLUEPRINT.draw(networks, inputs, features)
    assert made.flow is not None
    _, (skips, rendered) = decoder.calls[0]
    assert [s.shape[-1] for s in skips] == [PX, PX // 2, PX // 4, PX // 8]
    for skip, feature in zip(skips, features[1:], strict=True):
        assert torch.allclose(skip, ported(feature, made.flow, made.stages["occlusion"]), atol=1e-5)
        assert not torch.allclose(skip, feature, atol=1e-3)
    assert torch.equal(rendered, inputs[3])
    for level in range(1, 5):  # and each of them is looked at
        other = list(features)
        other[level] = other[level] + torch.rand_like(other[level])
        assert not torch.allclose(BLUEPRINT.draw(networks, inputs, tuple(other)).rgba, made.rgba, atol=1e-4)


@torch.no_grad()
def test_the_rendered_face_is_injected_by_spade_on_every_level(turned: Scene) -> None:
    networks = awake()
    inputs, features = given(networks, turned)
    norms = [m for m in networks.modules() if isinstance(m, Spade)]
    inside = [m for m in networks.reenactment.decoder.modules() if isinstance(m, Spade)]
    assert len(norms) == len(inside) == 3 * 2 * TINY.blocks + 3 + 1
    heard = Heard(norms)
    BLUEPRINT.draw(networks, inputs, features)
    assert len(heard.calls) == len(norms)
    assert {x.shape[-1] for _, (x, _) in heard.calls} == {PX, PX // 2, PX // 4, PX // 8}
    for _, (_, guide) in heard.calls:
        assert torch.equal(guide, inputs[3])


def test_a_block_is_park_and_others() -> None:
    torch.manual_seed(0)
    block = SpadeBlock(4, 3)
    x, guide = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 8, 8)
    y = block.first(F.leaky_relu(block.first_norm(x, guide), 0.2))
    y = block.second(F.leaky_relu(block.second_norm(y, guide), 0.2))
    assert torch.allclose(block(x, guide), x + y, atol=1e-6)


@torch.no_grad()
def test_the_picture_is_the_photo_warped_and_changed(turned: Scene) -> None:
    """`I_g = (1 + k) ⊙ W(I_s, F) + r`."""
    networks = awake()
    inputs, features = given(networks, turned)
    decoder = Heard([networks.reenactment.decoder])
    made = BLUEPRINT.draw(networks, inputs, features)
    last = networks.reenactment.decoder(*decoder.calls[0][1])
    keep, more = last[:, :1], last[:, 1:]
    assert float(keep.abs().max()) > 0.01
    assert torch.allclose(made.rgba, (1 + keep) * made.stages["warped"] + more, atol=1e-6)
    assert torch.equal(made.stages["keep"], keep)


@torch.no_grad()
def test_it_starts_as_the_photo_moved_by_the_computed_flow(turned: Scene) -> None:
    networks = BLUEPRINT.networks()
    made = BLUEPRINT.make(networks, turned)
    computed = turned.flow() * turned.inner_face()
    assert made.flow is not None
    assert torch.allclose(made.flow, (1 - torch.tensor(-2.0).sigmoid()) * computed, atol=1e-6)
    assert torch.allclose(made.rgba, warped(turned.photo_at(BLUEPRINT.window), made.flow), atol=1e-6)
    assert torch.allclose(made.stages["predicted_occlusion"], torch.tensor(3.0).sigmoid(), atol=1e-6)
    assert torch.allclose(made.stages["occlusion_mask"], torch.tensor(0.5), atol=1e-6)


# --- table 3 ---------------------------------------------------------------------------------------

ROWS = {
    "Base": PARTS,
    "+FG": ("occlusion_guidance", "synthesis_guidance"),
    "+FG+OG": ("synthesis_guidance",),
    "+FG+OG+SG": (),
}


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_ablation_is_what_it_is_called(row: str, turned: Scene) -> None:
    """Table 3: without guidance flow and occlusion are those predicted, and no rendered face is seen. Each learns."""
    blueprint = MultiguidanceBlueprint(TINY, ROWS[row], PX)
    networks = awake(blueprint)
    inputs, features = given(networks, turned, blueprint)
    photo, flow, occlusion, rendered, motion = inputs
    with torch.no_grad():
        made = blueprint.draw(networks, inputs, features)
        other_flow = blueprint.draw(networks, (photo, flow + 0.1, occlusion, rendered, motion), features)
        other_occlusion = blueprint.draw(networks, (photo, flow, 1 - occlusion, rendered, motion), features)
        other_face = blueprint.draw(networks, (photo, flow, occlusion, 1 - rendered, motion), features)
    assert made.flow is not None
    assert torch.equal(made.flow, made.stages["predicted_flow"]) == ("FG" not in row)
    assert torch.equal(made.stages["occlusion"], made.stages["predicted_occlusion"]) == ("OG" not in row)
    assert torch.equal(other_flow.rgba, made.rgba) == ("FG" not in row)
    assert torch.equal(other_occlusion.rgba, made.rgba) == ("OG" not in row)
    assert torch.equal(other_face.rgba, made.rgba) == ("SG" not in row)
    losses = blueprint.outcome(networks, lesson_of_heads(), NO_JUDGES).losses
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in networks.parameters())


def test_the_registry_knows_its_parts() -> None:
    assert GENERATORS["multiguidance"].switches == PARTS
    assert MultiguidanceBlueprint.discriminators(BLUEPRINT) == {}


# --- losses: eqs. 8, 9 and 10 ----------------------------------------------------------------------


def test_losses_are_the_papers() -> None:
    """Eqs. 8 to 10 written out once more, over the plate, with the picture as one more φ; blurred clips count less.
    And what is ours: the photo warped by itself, and what the head model tells the completion network."""
    lesson, w = lesson_of_heads(), LossWeights()
    made = BLUEPRINT.make(awake(), lesson.scene)
    looked: list[Tensor] = []

    def features(picture: Tensor) -> Sequence[Tensor]:
        looked.append(picture)
        return squares(picture)

    found = BLUEPRINT.losses(made, lesson, Judges(features, {}, {}))
    shown = made.rgba[:, :3] + (1 - made.rgba[:, 3:]) * 0.4
    truth, matte = lesson.truth_at(BLUEPRINT.window), lesson.matte_at(BLUEPRINT.window)
    moved = made.stages["warped"]
    moved = moved[:, :3] + (1 - moved[:, 3:]) * 0.4
    near = same = first = torch.zeros(())
    for j in range(4):
        a, b, c = (F.avg_pool2d(x, 2**j) for x in (shown, truth, moved))
        same, first = same + (a - b).abs().mean(), first + (c - b).abs().mean()
        for x, y in zip(squares(a), squares(b), strict=True):
            near = near + (x - y).abs().mean()
    style = torch.zeros(())
    for x, y in zip(squares(shown), squares(truth), strict=True):
        ours, theirs = (torch.einsum("bchw,bdhw->bcd", z, z) / z[0].numel() for z in (x, y))
        style = style + (ours - theirs).abs().mean()
    scene = lesson.scene
    on_head = (made.stages["predicted_flow"] - scene.flow()).abs().sum(1, keepdim=True) * scene.mask()
    masked = (made.stages["flow_mask"] - (1 - scene.inner_face())).abs()
    expected = {
        "picture": w.picture * same,
        "features": w.features * 0.5 * near,
        "style": w.style * 0.5 * style,
        "matte": w.matte * (made.rgba[:, 3:] - matte).abs().mean(),
        "warped": w.warped * first,
        "guidance": w.guidance * (10 * on_head.mean() + masked.mean()),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4), name
        assert float(value) > 0
    assert len(looked) == 2 * 4  # each scale of ours and of the truth once, whichever loss asks
    assert set(BLUEPRINT.losses(made, lesson, NO_JUDGES)) == {"picture", "matte", "warped", "guidance"}
    base = MultiguidanceBlueprint(TINY, ["flow_guidance"], PX)
    alone = base.losses(base.make(base.networks(), lesson.scene), lesson, NO_JUDGES)
    assert set(alone) == {"picture", "matte", "warped"}
    assert (w.picture, w.features, w.style, w.matte, w.warped, w.guidance) == (1.0, 0.02, 0.6, 0.3, 1.0, 0.5)


def test_a_step_asks_nothing_of_the_device() -> None:
    networks, lesson = BLUEPRINT.networks(), lesson_of_heads()
    judges = Judges(squares, {}, {})
    BLUEPRINT.outcome(networks, lesson_of_heads(), judges)  # constants are made
    with Unasked():
        losses = BLUEPRINT.outcome(networks, lesson, judges).losses
        torch.stack(list(losses.values())).sum().backward()


@pytest.mark.slow
def test_the_style_loss_starts_as_about_a_tenth(drawn_pairs: Path) -> None:
    """λ_s, for the features that teach."""
    blueprint = MultiguidanceBlueprint(TINY, height_px=128)
    judges = lent(torch.device("cpu"))
    assert judges.perceptual is not None
    networks = blueprint.networks()
    losses = blueprint.outcome(networks, drawn_lesson(drawn_pairs, blueprint), judges).losses
    share = float(losses["style"] / (losses["picture"] + losses["features"]))
    assert 0.03 < share < 0.3


# --- that it learns --------------------------------------------------------------------------------


def drawn_lesson(pairs: Path, blueprint: MultiguidanceBlueprint, rows: int = 3, step: int = 0) -> Lesson:
    store = Store(pairs, blueprint, torch.device("cpu"))
    batch = store.gather(store.train[:rows], None)
    return lesson_of(batch, HeadTables.of(MODEL), blueprint, step)


def test_gradient_reaches_every_parameter() -> None:
    """At first the two last layers, zeros, let nothing through but what they need to open; then all learn."""
    networks = BLUEPRINT.networks()
    optimiser = torch.optim.Adam(networks.parameters(), lr=0.01)
    judges, lesson, reached = Judges(squares, {}, {}), lesson_of_heads(), set[str]()
    for step in range(3):
        losses = BLUEPRINT.outcome(networks, lesson, judges).losses
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        reached = {
            n for n, p in networks.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-9
        }
        if step == 0:
            gates = {"completion.maps.weight", "completion.maps.bias"}
            gates |= {"reenactment.decoder.last.weight", "reenactment.decoder.last.bias"}
            assert reached == gates
        optimiser.step()
    # a norm takes this one away again
    left = {n for n, _ in networks.named_parameters()} - reached - {"completion.downs.0.second.bias"}
    assert left == set()


@pytest.mark.parametrize("row", ROWS)
def test_mixed_precision_gives_a_picture(row: str, turned: Scene) -> None:
    blueprint = MultiguidanceBlueprint(TINY, ROWS[row], PX)
    networks = awake(blueprint)
    with torch.no_grad():
        exact = blueprint.make(networks, turned)
        with torch.autocast("cpu", torch.bfloat16):
            rough = blueprint.make(networks, turned)
        inputs, features = given(networks, turned, blueprint)
        # on a GPU what is enlarged stays as rough as it comes
        found = networks.completion.bfloat16()(features[0].bfloat16(), inputs[-1].bfloat16())
    assert rough.rgba.dtype == torch.float32
    assert rough.flow is not None
    assert rough.flow.dtype == torch.float32
    assert found.flow.dtype == found.flow_mask.dtype == torch.float32
    assert float((rough.rgba - exact.rgba).abs().mean()) < 0.15 * float(exact.rgba.std())


@pytest.mark.slow
def test_it_overfits_one_clip(drawn_pairs: Path) -> None:
    blueprint = MultiguidanceBlueprint(
        Config((4, 8, 8, 8, 8, 8), 16, (8, 12, 16, 16), (8, 8, 8, 8), 1), (), PX
    )
    lesson = drawn_lesson(drawn_pairs, blueprint)
    torch.manual_seed(0)
    networks = blueprint.networks()
    optimiser = torch.optim.Adam(networks.parameters(), lr=4e-3)

    def psnr_db() -> float:
        with torch.no_grad():
            off = lesson.over(blueprint.make(networks, lesson.scene).rgba) - lesson.truth_at(blueprint.window)
        return float(-10 * off.square().mean().log10())

    before = psnr_db()
    for _ in range(80):
        losses = blueprint.outcome(networks, lesson, NO_JUDGES).losses
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    print(f"{before:.1f} dB, then {psnr_db():.1f} dB")
    assert psnr_db() > before + 6


# --- its size --------------------------------------------------------------------------------------


def meta_costs(config: Config) -> tuple[dict[str, tuple[int, ...]], float, float]:
    """(shape of what each module of a frame gives, GFLOP of a frame, of `encode`), of a window of 256, on no device."""
    blueprint = MultiguidanceBlueprint(config)
    with torch.device("meta"):
        networks = blueprint.networks()
        photo, flow = torch.zeros(1, 4, 256, 256), torch.zeros(1, 2, 256, 256)
        inputs = (photo, flow, photo[:, :1], photo[:, :3], torch.zeros(1, 65))
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _given: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                shapes[name] = tuple(out.shape[1:])

        return hook

    for name, module in networks.named_modules():
        module.register_forward_hook(note(name))
    counters = [FlopCounterMode(display=False) for _ in range(2)]
    with torch.no_grad():
        with counters[0]:
            features = blueprint.encode(networks, (photo,))
        with counters[1]:
            made = blueprint.draw(networks, inputs, features)
    assert made.rgba.shape == (1, 4, 256, 256)
    assert made.flow is not None
    assert made.flow.shape == (1, 2, 256, 256)
    return shapes, counters[1].get_total_flops() / 1e9, counters[0].get_total_flops() / 1e9


def test_width_one_is_the_papers() -> None:
    shapes, frame, encoder = meta_costs(PAPER)
    completion = {
        "photo": (32, 256, 256), "downs.0": (64, 128, 128), "downs.1": (128, 64, 64), "downs.2": (256, 32, 32),
        "downs.3": (256, 16, 16), "downs.4": (256, 8, 8), "ups.0": (256, 16, 16), "ups.1": (256, 32, 32),
        "ups.2": (128, 64, 64), "maps": (5, 64, 64), "motion": (256,),
    }  # fmt: skip
    reenactment = {
        "encoder.photo": (64, 256, 256), "encoder.thirds.0": (128, 128, 128),
        "encoder.thirds.1": (256, 64, 64), "encoder.thirds.2": (256, 32, 32),
        "decoder.blocks.0.0": (256, 32, 32), "decoder.blocks.0.1": (256, 32, 32), "decoder.ups.0": (256, 64, 64),
        "decoder.blocks.1.1": (256, 64, 64), "decoder.ups.1": (128, 128, 128),
        "decoder.blocks.2.1": (128, 128, 128), "decoder.ups.2": (64, 256, 256),
        "decoder.norm": (64, 256, 256), "decoder.norm.shared": (128, 256, 256), "decoder.last": (5, 256, 256),
    }  # fmt: skip
    for part, stages in (("completion", completion), ("reenactment", reenactment)):
        for name, shape in stages.items():
            assert shapes[f"{part}.{name}"] == shape, name
    assert frame == pytest.approx(160.7, abs=0.1)
    assert encoder == pytest.approx(24.1, abs=0.1)


def test_the_shipped_width_fits_a_call() -> None:
    _, frame, _ = meta_costs(Config())
    assert frame < 6
    assert sum(p.numel() for p in MultiguidanceBlueprint().networks().parameters()) < 1.6e6


# --- fig. 8: pose and expression apart -------------------------------------------------------------


def moved_px(motion: Motion) -> Tensor:
    """(h, w): how far F of untrained networks reaches at each place, in pixels."""
    with torch.no_grad():
        made = BLUEPRINT.make(BLUEPRINT.networks(), scene_of_heads(PX, motion))
    assert made.flow is not None
    return made.flow[0].norm(dim=0) * PX


def around(landmarks: tuple[int, ...], reach_px: float) -> Tensor:
    """(h, w) bool: near landmarks of the head at rest, straight on."""
    points = MODEL.landmarks(MODEL.mean_hu)[list(landmarks), :2] * 0.3 * PX + PX / 2
    y, x = np.mgrid[0:PX, 0:PX] + 0.5
    near = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]).min(-1)
    return torch.from_numpy(near < reach_px)


DRIVER = moved(STRAIGHT, yaw=18, eyeBlinkLeft=0.9, eyeBlinkRight=0.9, mouthSmileLeft=0.7, mouthPucker=0.6)


def test_expression_alone_moves_mouth_and_eyes() -> None:
    """Fig. 8: of a driver that turns and smiles, the expression alone."""
    motion = retarget(DRIVER, STRAIGHT, STRAIGHT, Controls(region="exp"))
    reached = moved_px(motion)
    near = around(LIPS_OUTER, 7) | around(EYE_LEFT, 5) | around(EYE_RIGHT, 5)
    face = scene_of_heads(PX, motion).inner_face()[0, 0] > 0
    turned = moved_px(moved(STRAIGHT, yaw=18))
    assert float(reached[near].max()) > 1.5
    assert float(reached[face & ~near].max()) < 1  # a blink pulls at the forehead
    assert float(reached[face & ~near].median()) < 0.3 * float(turned[face & ~near].median())
    assert float(reached[~face].max()) == 0


def test_pose_alone_moves_the_head_and_not_the_mouth() -> None:
    motion = retarget(DRIVER, STRAIGHT, STRAIGHT, Controls(region="pose"))
    rigid = moved(STRAIGHT, yaw=18)
    assert torch.allclose(moved_px(motion), moved_px(rigid), atol=0.05)
    face = scene_of_heads(PX, rigid).inner_face()[0, 0] > 0
    assert float(moved_px(motion)[face].median()) > 2


def test_one_drivers_pose_with_anothers_expression() -> None:
    """Ours beyond it: what the first makes of the photo is what the second starts from."""
    other = moved(STRAIGHT, yaw=-12, jawOpen=0.6)
    posed = retarget(DRIVER, STRAIGHT, STRAIGHT, Controls(region="pose"))
    both = retarget(other, STRAIGHT, posed, Controls(region="exp"))
    assert np.allclose(both.rotation_rad, posed.rotation_rad, atol=1e-6)
    alone = retarget(other, STRAIGHT, STRAIGHT, Controls(region="exp"))
    assert np.allclose(both.expression, alone.expression, atol=1e-6)
    _, flow, *_ = BLUEPRINT.inputs(nn.Identity(), scene_of_heads(PX, both, posed))
    away = around(EYE_LEFT + EYE_RIGHT, 4)
    assert float(flow[0].norm(dim=0)[away].max() * PX) < 0.5  # the jaw that opens does not reach the eyes
    assert float(flow[0].norm(dim=0).max() * PX) > 1


# --- that it serves --------------------------------------------------------------------------------


def saved(path: Path, blueprint: MultiguidanceBlueprint = BLUEPRINT) -> Path:
    kind = blueprint.kind
    notes = {"height_px": blueprint.window.height_px}
    header = WeightsHeader(kind.name, kind.version, blueprint.config_dict(), "MIT", notes=notes)
    save_weights(path, arrays_of(awake(blueprint), np.float32), header)
    return path


def test_engines_draw_the_same(tmp_path: Path) -> None:
    blueprint, networks, _ = load_networks(MultiguidanceBlueprint, saved(tmp_path / "w.safetensors"))
    assert blueprint.config == TINY
    assert blueprint.window == Size(PX, PX)
    scene = scene_of_heads(PX, TURNED)
    with torch.no_grad():
        inputs, features = given(networks, scene)  # pyright: ignore[reportArgumentType]
    (served,) = blueprint.served(networks)
    picture = (scene.photo_at(blueprint.window), *inputs, *features)
    exact = TorchEngine().compile(served.module, served.example, "fp32")(*picture)
    again = OpenVinoEngine().compile(served.module, served.example, "fp32")(*picture)
    for ours, theirs in zip(exact, again, strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["1:1", "16:9"])
def test_it_draws_through_the_renderer(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aspect: Aspect
) -> None:
    path = saved(tmp_path / "multiguidance.safetensors")
    monkeypatch.setattr(MultiguidanceBlueprint, "weights_path", lambda: path)
    renderer = Renderer(astronaut, generator="multiguidance", size_px=128, aspect=aspect)
    assert renderer.notice is None
    assert renderer.wait_until_compiled()
    assert renderer.generator_name == "multiguidance"
    still, turned = (renderer.render(m) for m in (astronaut.motion, moved(astronaut.motion, yaw=15)))
    assert still.shape == (128, 128 if aspect == "1:1" else still.shape[1], 3)
    assert np.abs(still.astype(int) - turned).mean() > 0.5
