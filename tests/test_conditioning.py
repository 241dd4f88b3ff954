"""What the papers condition on: each lookup against numbers known in closed form, and against its torch twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from meshes import bumpy, gbuffer_of, posed
from numpy.typing import NDArray

from engines.head.model import Part
from engines.raster import conditioning, conditioning_torch
from engines.raster.conditioning import HEAD_PARTS, computed_flow, computed_occlusion, face_mask, neural_codes
from engines.raster.conditioning_torch import UvPicture
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, draw_triangles, extend
from engines.raster.gbuffer_torch import TorchMesh, rasterise_torch

F32 = NDArray[np.float32]
HEAD = bumpy()
VIEWPORT = Viewport(40.0, 25.0, 1.5, 240, 200)
WIDTH, HEIGHT = 120, 100  # the grid: half the viewport
SIZE = 64


def on_grid() -> GBuffer:
    return gbuffer_of(HEAD, posed(HEAD.vertices, (20, 5, 3), 110), VIEWPORT, WIDTH, HEIGHT)


G = on_grid()
COVERED = G.part > 0


def texels(size: int = SIZE) -> F32:
    """(S, S, 2): the uv of each texel's centre. A map linear in it is looked up exactly, but for the border."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.stack(np.meshgrid(at, at), -1).astype(np.float32)


def inside(g: GBuffer) -> NDArray[np.bool_]:
    """Covered pixels away from the atlas's border."""
    return (g.part > 0) & ((g.uv > 1 / SIZE) & (g.uv < 1 - 1 / SIZE)).all(-1)


def centres_px() -> F32:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([(x + 0.5) * 2, (y + 0.5) * 2], -1).astype(np.float32)


def test_flow_is_source_minus_place_in_viewport_pixels() -> None:
    position = (texels() * (300, 200) + (100, 50)).astype(np.float32)  # photo pixels
    flow = computed_flow(position, G)
    source = (G.uv * (300, 200) + (100, 50) - (40, 25)) * 1.5
    assert inside(G).sum() > 2000
    assert np.abs(flow - (source - centres_px()))[inside(G)].max() < 2e-3
    assert (flow[~COVERED] == 0).all()
    assert flow.dtype == np.float32


def test_flow_of_a_map_made_for_a_canvas_is_the_same() -> None:
    position = (texels() * (300, 200) + (100, 50)).astype(np.float32)
    canvas = ((position - (40, 25)) * 1.5 + 17).astype(np.float32)
    got = computed_flow(canvas, G, origin_px=(0, 0), scale=1, margin_px=17)
    assert np.abs(got - computed_flow(position, G)).max() < 1e-3


def test_calls_do_not_disturb_each_other() -> None:
    position = (texels() * (300, 200)).astype(np.float32)
    before = position.copy()
    first = computed_flow(position, G)
    computed_flow(position, G, margin_px=3)
    assert (computed_flow(position, G) == first).all()
    assert (position == before).all()


def test_the_source_at_its_own_pose_does_not_flow() -> None:
    """The whole chain: positions drawn into the atlas, looked up from the same pose."""
    vertices = posed(HEAD.vertices, (20, 5, 3), 110)
    corners = HEAD.triangles.reshape(-1)
    flat = np.zeros((len(corners), 3), np.float32)
    flat[:, :2] = HEAD.uv[corners] * 256
    colours = np.zeros((len(corners), 3), np.float32)
    colours[:, :2] = vertices[corners, :2] / 128
    image, depth = draw_triangles(flat, colours, 256, 256)
    position = extend(image, depth < depth.max())[..., :2] * 128 * 2  # viewport pixels
    flow = np.abs(computed_flow(np.ascontiguousarray(position), G, origin_px=(0, 0), scale=1))
    assert np.median(flow[COVERED]) < 0.02
    assert np.percentile(flow[COVERED], 99) < 0.5
    moved = np.abs(computed_flow(position + np.float32(4), G, origin_px=(0, 0), scale=1))
    assert abs(np.median(moved[COVERED]) - 4) < 0.05


def test_occlusion_is_one_where_the_source_was_seen() -> None:
    visibility = np.zeros((SIZE, SIZE), np.uint8)
    visibility[:, SIZE // 2 :] = 255  # the right half of the atlas
    seen = computed_occlusion(visibility, G)
    assert seen.shape == (HEIGHT, WIDTH)
    right, left = COVERED & (G.uv[..., 0] > 0.5 + 1 / SIZE), COVERED & (G.uv[..., 0] < 0.5 - 1 / SIZE)
    assert right.sum() > 500
    assert left.sum() > 500
    assert (seen[right] == 1).all()
    assert (seen[left] == 0).all()
    assert (seen[~COVERED] == 0).all()


@pytest.mark.parametrize("what", [conditioning.rendered_face, conditioning.pncc])
def test_colours_are_looked_up_in_0_to_1(what: Callable[..., F32]) -> None:
    ramp = np.dstack([texels(), 1 - texels()[..., :1]]).astype(np.float32)
    image = what(ramp, G)
    expected = np.dstack([G.uv, 1 - G.uv[..., :1]])
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(image - expected)[inside(G)].max() < 1e-4
    assert (image[~COVERED] == 0).all()
    coarse = what(np.rint(ramp * 255).astype(np.uint8), G)
    assert coarse.dtype == np.float32
    assert np.abs(coarse - image).max() <= 0.5 / 255 + 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 16])
def test_codes_of_any_width_keep_their_channels_apart(channels: int) -> None:
    codes = np.random.default_rng(0).normal(size=(SIZE, SIZE, channels)).astype(np.float32)
    picture = neural_codes(codes, G)
    assert picture.shape == (HEIGHT, WIDTH, channels)
    for k in range(channels):
        assert np.abs(picture[..., k] - computed_occlusion(codes[..., k].copy(), G)).max() < 1e-6
    assert np.abs(picture[COVERED]).max() > 1


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 6, 16])
def test_a_prepared_map_shows_the_same(channels: int, kind: type) -> None:
    noise = np.random.default_rng(4).random((SIZE, SIZE, channels) if channels else (SIZE, SIZE)) * 255
    uv_map = noise.astype(kind)
    prepared = conditioning.prepare_map(uv_map)
    assert (neural_codes(prepared, G) == neural_codes(uv_map, G)).all()
    if channels == 2:
        assert (computed_flow(prepared, G) == computed_flow(uv_map, G)).all()


def test_the_mask_is_of_the_chosen_parts() -> None:
    assert {0, Part.TEETH, Part.TONGUE} < set(np.unique(G.part).tolist())
    assert (G.part == Part.BODY).any()
    head = face_mask(G)
    assert head.dtype == np.float32
    assert (head == (COVERED & (G.part != Part.BODY))).all()
    assert (face_mask(G, {Part.TEETH, Part.TONGUE}) == np.isin(G.part, (4, 5))).all()
    assert (face_mask(G, ()) == 0).all()
    assert Part.NONE not in HEAD_PARTS


# --- the torch twins


def first(tensor: torch.Tensor) -> F32:
    return np.moveaxis(tensor[0].numpy(), 0, -1)


def channels_first(uv_map: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(np.atleast_3d(uv_map), -1, 0).copy())[None]


def edge_cases() -> GBuffer:
    """Any uv, the atlas's very corners and its border included."""
    rng = np.random.default_rng(1)
    uv = rng.random((40, 56, 2)).astype(np.float32)
    uv[:3] = rng.choice(np.array([0, 0.5 / SIZE, 0.5, 1 - 0.5 / SIZE, 1], np.float32), (3, 56, 2))
    part = rng.integers(0, 8, (40, 56)).astype(np.uint8)
    return GBuffer(uv, part, np.zeros((40, 56), np.float32), cast(HeadMesh, None), VIEWPORT)


@pytest.mark.parametrize("g", [G, edge_cases()], ids=["head", "anywhere"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("name", "channels"),
    [("computed_occlusion", 0), ("rendered_face", 3), ("pncc", 3), ("neural_codes", 16)],
)
def test_torch_looks_up_the_same(g: GBuffer, kind: type, name: str, channels: int) -> None:
    shape = (SIZE, SIZE + 8, channels) if channels else (SIZE, SIZE + 8)
    noise = np.random.default_rng(2).random(shape)
    uv_map = (noise * 255).astype(np.uint8) if kind is np.uint8 else noise.astype(np.float32)
    expected = np.atleast_3d(getattr(conditioning, name)(uv_map, g))
    got = getattr(conditioning_torch, name)(channels_first(uv_map), UvPicture.of(g))
    assert got.shape == (1, max(channels, 1), *g.part.shape)
    assert np.abs(first(got) - expected).max() < 1e-3


@pytest.mark.parametrize("g", [G, edge_cases()], ids=["head", "anywhere"])
def test_torch_flows_the_same(g: GBuffer) -> None:
    position = (np.random.default_rng(3).random((SIZE, SIZE, 2)) * 300).astype(np.float32)
    got = conditioning_torch.computed_flow(
        channels_first(position), UvPicture.of(g), (240, 200), origin_px=(40, 25), scale=1.5, margin_px=7
    )
    assert np.abs(first(got) - computed_flow(position, g, margin_px=7)).max() < 1e-3


def test_torch_masks_the_same() -> None:
    for parts in (HEAD_PARTS, {Part.BODY}, ()):
        got = conditioning_torch.face_mask(UvPicture.of(G), parts)
        assert (first(got)[..., 0] == face_mask(G, parts)).all()


def test_each_of_a_batch_has_its_own_pose_origin_and_scale() -> None:
    vertices = np.stack([posed(HEAD.vertices, (yaw, 5, 3), 110) for yaw in (0, 20)])
    mesh = TorchMesh.of(HEAD.triangles, HEAD.uv, HEAD.part)
    drawn = rasterise_torch(torch.from_numpy(vertices), mesh, HEIGHT, WIDTH)
    position = (texels() * (300, 200) + (100, 50)).astype(np.float32)
    got = conditioning_torch.computed_flow(
        channels_first(position), drawn, (240, 200),
        origin_px=torch.tensor([[0.0, 0.0], [40.0, 25.0]]), scale=torch.tensor([1.0, 1.5]),
    )  # fmt: skip
    assert got.shape == (2, 2, HEIGHT, WIDTH)
    error = np.abs(first(got[1:]) - computed_flow(position, G)).max(-1)
    assert (error < 0.01).mean() > 0.995
    still = gbuffer_of(HEAD, vertices[0], Viewport(0, 0, 1, 240, 200), WIDTH, HEIGHT)
    assert (np.abs(first(got[:1]) - computed_flow(position, still)).max(-1) < 0.01).mean() > 0.995


def test_codes_learn_only_where_they_are_seen() -> None:
    codes = torch.zeros(1, 16, SIZE, SIZE, requires_grad=True)
    conditioning_torch.neural_codes(codes, UvPicture.of(G)).sum().backward()
    assert codes.grad is not None
    weight = codes.grad[0, 3].numpy()
    assert weight.sum() == pytest.approx(COVERED.sum(), rel=1e-4)  # each covered pixel gives one in all
    assert weight[:, 0].sum() == 0  # the back of the head
