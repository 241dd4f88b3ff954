"""The `visavis` generator: what its networks see, what they may change, what happens when they are not there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import entry
from numpy.typing import NDArray
from test_generator import moved

from engines.compile.engine import Compiled, Precision
from engines.compile.openvino_engine import OpenVinoEngine
from engines.compile.torch_engine import TorchEngine
from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.networked.blend import blend_box, blend_window, move
from engines.generators.networked.blueprint import load_networks
from engines.generators.networked.boxes import WHERE_PX, TurnedBox, Window, cut_box, where_in_photo
from engines.generators.open import open_generator
from engines.generators.registry import GENERATORS
from engines.generators.visavis import inputs
from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.generators.visavis.generator import (
    VisavisGenerator,
)
from engines.generators.visavis.networks import KIND, VisavisNetworks, apply_layers, blending, split_layers
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from engines.renderer import Renderer

U8 = NDArray[np.uint8]
MODEL = load_head_model()


def header(**changes: object) -> WeightsHeader:
    return replace(
        WeightsHeader("visavis", KIND.version, {}, "MIT", "none", {"l1": 0.5}, {"steps": 3}), **changes
    )


def gbuffer_of(e: Enrollment, motion: Motion, size: int = 256) -> GBuffer:
    viewport = head_viewport(e, size)
    return rasterise(MODEL, pose_head(MODEL, e, motion, viewport), viewport, 160)


@pytest.fixture(scope="module")
def drawn(astronaut: Enrollment) -> dict[str, U8]:
    """One open-mouthed, turned frame by each generator."""
    motion = moved(astronaut.motion, yaw=10, jawOpen=0.5)
    return {n: Renderer(astronaut, generator=n, size_px=256).render(motion) for n in ("geometric", "visavis")}


# --- what the networks see ---------------------------------------------------------------------------


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_mirrored_crop_is_the_crop_mirrored(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (100, 120, 3), np.uint8)
    box = TurnedBox(np.array([60.0, 50.0]), 40.0, 0.2)
    plain = cut_box(picture, box, 32).astype(np.int16)
    assert np.abs(plain[:, ::-1] - cut_box(picture, box, 32, mirrored=True).astype(np.int16)).max() <= 16


def test_a_window_beyond_the_picture_repeats_its_edge(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (40, 50, 4), np.uint8)
    cut = np.asarray(Window(-10, 5, 60).cut(picture))
    assert cut.shape == (60, 60, 4)
    assert (cut[:35, 10:] == picture[5:]).all()
    assert (cut[:35, :10] == picture[5:, :1]).all()


def test_motion_is_told_the_same_way_in_a_mirror(astronaut: Enrollment) -> None:
    a = moved(astronaut.motion, yaw=12, gaze=0.2, mouthSmileLeft=0.7)
    vector = inputs.motion_vector(
        astronaut.motion,
        a,
        gbuffer_of(astronaut, astronaut.motion).mesh.pose,
        gbuffer_of(astronaut, a).mesh.pose,
    )
    mirrored = inputs.mirror_motion(vector)
    assert vector.shape == (inputs.MOTION_SIZE,)
    assert not np.allclose(mirrored, vector)
    assert np.allclose(inputs.mirror_motion(mirrored), vector)


def test_the_photos_own_pose_comes_from_where_it_is(astronaut: Enrollment) -> None:
    viewport = head_viewport(astronaut, 256)
    gbuffer = gbuffer_of(astronaut, astronaut.motion)
    generator = GeometricGenerator(MODEL)
    layers = generator.draw(generator.prepare(astronaut, viewport), gbuffer, astronaut.motion)
    where = where_in_photo(layers.flow, gbuffer, Window.of(astronaut, viewport))
    centre = (np.arange(WHERE_PX) + 0.5) / WHERE_PX * 2 - 1
    x, y = np.meshgrid(centre, centre)
    # half of a cell: parts are taken from the nearest pixel of a finer grid
    assert np.abs(where - np.dstack([x, y])).max() < 0.04


def as_bytes(layers: torch.Tensor) -> U8:
    """As the engine gives them to a frame."""
    return np.rint(blending(layers)[0].numpy() * 255).astype(np.uint8)


def test_a_frame_blends_as_training_does(rng: np.random.Generator) -> None:
    torch.manual_seed(2)
    layers = split_layers(
        torch.nn.functional.interpolate(torch.randn(1, 9, 8, 8), (128, 128), mode="bilinear")
    )
    picture = rng.integers(60, 200, (128, 128, 4), np.uint8)
    given = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    wanted = apply_layers(given, layers).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
    blend_window(picture, as_bytes(layers), Window(0, 0, 128))
    # three roundings; and what leaves 0 … 255 in between is cut there
    assert np.percentile(np.abs(picture - wanted), 99) <= 3


# --- what the networks may change --------------------------------------------------------------------


def test_nothing_to_change_leaves_every_pixel(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (90, 90, 4), np.uint8)
    before = picture.copy()
    window = Window(0, 0, 90)
    assert (move(picture, np.zeros((64, 64, 2), np.float32), window) == before).all()
    blend_window(picture, as_bytes(torch.zeros(1, 9, 128, 128)), window)
    blend_box(picture, as_bytes(torch.zeros(1, 7, 96, 96)), TurnedBox(np.array([40.0, 40.0]), 30.0, 0.1))
    assert (picture == before).all()


def test_a_flow_moves_the_picture_by_its_share_of_the_window() -> None:
    picture = np.zeros((128, 128, 4), np.uint8)
    picture[60:70, 40:50] = 255
    flow = np.zeros((64, 64, 2), np.float32)
    flow[..., 0] = 16 / 128
    out = move(picture, flow, Window(0, 0, 128))
    assert out[65, 29, 0] == 255
    assert out[65, 45, 0] == 0


def test_only_the_box_that_moves_is_touched(rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (128, 128, 4), np.uint8)
    flow = np.zeros((64, 64, 2), np.float32)
    flow[30:34, 30:34] = 0.02
    out = move(picture, flow, Window(0, 0, 128))
    changed = (out != picture).any(-1)
    assert changed[56:72, 56:72].any()
    changed[52:76, 52:76] = False
    assert not changed.any()


def test_painted_crops_stay_within_the_person() -> None:
    picture = np.zeros((100, 100, 4), np.uint8)
    picture[:50] = (100, 100, 100, 255)
    layers = torch.zeros(1, 7, 96, 96)
    layers[:, 3:] = 1
    blend_box(picture, as_bytes(layers), TurnedBox(np.array([50.0, 50.0]), 40.0, 0.0))
    assert picture[40, 50].tolist() == [255, 255, 255, 255]
    assert not picture[60, 50].any()


def test_layers_are_premultiplied_and_bounded() -> None:
    torch.manual_seed(0)
    layers = split_layers(torch.randn(2, 9, 8, 8) * 4)
    mask = layers[:, 8:]
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
    assert bool((layers[:, 4:8] <= mask + 1e-6).all())
    nothing = torch.zeros(1, 9, 8, 8)
    picture = torch.rand(1, 4, 8, 8)
    assert torch.equal(apply_layers(picture, nothing), picture)


@pytest.mark.slow
def test_fresh_networks_hardly_change_the_picture() -> None:
    torch.manual_seed(1)
    nets = VisavisNetworks().eval()
    picture = torch.rand(1, 4, 128, 128)
    with torch.inference_mode():
        flow, layers = nets.head(
            picture, torch.rand(1, 10, 128, 128), torch.zeros(1, 32, 32, 2),
            nets.encoder(torch.rand(1, 7, 128, 128)), torch.zeros(1, inputs.MOTION_SIZE),
        )  # fmt: skip
    assert flow.shape == (1, 2, 64, 64)
    assert float((flow == 0).float().mean()) > 0.9  # the soft threshold
    assert float((apply_layers(picture, layers) - picture).abs().mean()) < 0.05


# --- the whole generator -----------------------------------------------------------------------------


@pytest.mark.slow
def test_it_draws_the_person_and_changes_what_geometry_drew(drawn: dict[str, U8]) -> None:
    a, b = (drawn[n].astype(np.int16) for n in ("geometric", "visavis"))
    assert a.shape == b.shape == (256, 256, 3)
    difference = np.abs(a - b).mean()
    assert 0.2 < difference < 25


@pytest.mark.slow
def test_every_size_and_framing_is_drawn_by_the_same_networks(astronaut: Enrollment) -> None:
    motion = moved(astronaut.motion, yaw=-8, jawOpen=0.3)
    small = Renderer(astronaut, generator="visavis", size_px=256).render(motion)
    large = Renderer(astronaut, generator="visavis", size_px=768).render(motion)
    again = cv2.resize(large, (256, 256), interpolation=cv2.INTER_AREA).astype(np.int16)
    assert np.abs(again - small).mean() < 6
    photo = Renderer(astronaut, generator="visavis", framing="photo").render(motion)
    assert photo.shape == astronaut.photo.shape
    assert photo_viewport(astronaut).width_px == photo.shape[1]


@pytest.mark.slow
def test_each_part_can_be_switched_off(astronaut: Enrollment) -> None:
    viewport = head_viewport(astronaut, 256)
    motion = moved(astronaut.motion, yaw=10, jawOpen=0.5)
    gbuffer = gbuffer_of(astronaut, motion)

    def picture(without: Collection[str]) -> U8:
        generator = VisavisGenerator(MODEL, without=without)
        return generator.render(generator.prepare(astronaut, viewport), gbuffer, MotionWindow.of(motion))

    everything = picture(())
    names = VisavisBlueprint.switches
    assert GENERATORS["visavis"].switches == names
    for name in names:
        assert (picture({name}) != everything).any(), name
    geometric = GeometricGenerator(MODEL)
    nothing = picture(names)
    assert (
        nothing == geometric.render(geometric.prepare(astronaut, viewport), gbuffer, MotionWindow.of(motion))
    ).all()


@pytest.mark.slow
def test_the_engines_draw_the_same_picture(astronaut: Enrollment) -> None:
    """Parity on a real enrollment: OpenVINO in float32 and in what is fast here, against eager torch."""
    seen: list[tuple[torch.Tensor, ...]] = []

    class Watched(TorchEngine):
        """Eager torch that keeps what it was given."""

        def build(
            self,
            module: torch.nn.Module,
            example: tuple[torch.Tensor, ...],
            precision: Precision,
            key: str | None,
        ) -> Compiled:
            call = super().build(module, example, "fp32", key)

            def watch(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
                seen.append(tuple(x.clone() for x in given))
                return call(*given)

            return watch

    viewport = head_viewport(astronaut, 256)
    motion = moved(astronaut.motion, yaw=10, jawOpen=0.5)
    gbuffer = gbuffer_of(astronaut, motion)
    eager = VisavisGenerator(MODEL, engines=(Watched(),))
    cache = eager.prepare(astronaut, viewport)
    assert eager.wait_until_compiled(120)
    plain = eager.render(cache, gbuffer, MotionWindow.of(motion))
    assert eager.engine_name == "torch"
    bounds: tuple[tuple[Precision, float], ...] = (("fp32", 1e-3), ("bf16", 0.06))
    for (module, _), given in zip(eager.networks, seen[-2:], strict=True):
        expected = TorchEngine().compile(module, given, "fp32")(*given)
        for precision, bound in bounds:
            got = OpenVinoEngine().compile(module, given, precision)(*given)
            for e, g in zip(expected, got, strict=True):
                assert float((e - g).abs().max()) < bound, precision
    compiled = VisavisGenerator(MODEL)
    cache = compiled.prepare(astronaut, viewport)
    assert compiled.wait_until_compiled(120)
    off = np.abs(compiled.render(cache, gbuffer, MotionWindow.of(motion)).astype(np.int16) - plain)
    assert off.max() <= 15
    assert off.mean() < 0.5


@pytest.mark.slow
def test_encoder_features_are_cached_with_the_avatar(astronaut: Enrollment) -> None:
    name = next(n for n in astronaut.features if n.startswith("visavis/"))
    generator = VisavisGenerator(MODEL)
    viewport = head_viewport(astronaut, 256)
    bare = replace(astronaut, features={})
    fresh = generator.prepare(bare, viewport).features
    kept = generator.prepare(astronaut, viewport).features
    assert float((fresh - kept).abs().max()) < 0.02  # kept as fp16
    marked = replace(astronaut, features={name: np.full_like(astronaut.features[name], 3)})
    assert float(generator.prepare(marked, viewport).features.mean()) == pytest.approx(3)
    stale = replace(astronaut, features={"visavis/0123": np.full_like(astronaut.features[name], 3)})
    assert torch.equal(generator.prepare(stale, viewport).features, fresh)


# --- weights -----------------------------------------------------------------------------------------


def test_the_shipped_weights_are_small_and_say_what_they_are() -> None:
    assert VisavisBlueprint.weights_path().stat().st_size <= 12_000_000
    assert VisavisBlueprint.weights_path().stat().st_mode & 0o044
    _, about = load_weights(VisavisBlueprint.weights_path(), KIND)
    assert "research" in about.licence
    assert about.metrics
    assert about.data
    assert float(str(about.notes["steps"])) > 0


@pytest.mark.slow
def test_weights_survive_saving(tmp_path: Path) -> None:
    nets = VisavisNetworks()
    save_weights(tmp_path / "w.safetensors", arrays_of(nets, np.float16), header())
    _, again, digest = load_networks(VisavisBlueprint, tmp_path / "w.safetensors")
    assert len(digest) == 64
    for a, b in zip(nets.parameters(), again.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("networks", [None, torch.nn.Linear(3, 4)])
def test_bad_weights_are_refused_and_geometric_draws(
    networks: torch.nn.Module | None, tmp_path: Path, astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    if networks is not None:
        save_weights(path, arrays_of(networks, np.float16), header())
    with pytest.raises(
        WeightsError, match=r"w\.safetensors.*; install visavis again, or in a checkout train anew"
    ):
        VisavisGenerator(MODEL, weights=path)
    monkeypatch.setitem(GENERATORS, "visavis", entry(lambda model: VisavisGenerator(model, weights=path)))
    with pytest.raises(WeightsError):
        open_generator("visavis", MODEL)
    renderer = Renderer(astronaut, generator="visavis", size_px=128)
    assert renderer.generator_name == "geometric"
    assert renderer.notice is not None
    assert renderer.notice.startswith("drawing with geometric: ")
    assert renderer.render(astronaut.motion).shape == (128, 128, 3)
