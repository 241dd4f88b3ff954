"""The torch rasteriser: the CPU's picture, the same choice at every pixel, and gradients that are true."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from meshes import POSES, Bumpy, bumpy, draw_on_cpu, posed
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import ModelError
from engines.geometry import Camera, rotation_from_degrees
from engines.head.model import HeadModel, Part, load_head_model
from engines.motion import ARKIT_NAMES
from engines.raster import gbuffer_torch
from engines.raster.conditioning_torch import lookup
from engines.raster.gbuffer_torch import TorchGBuffer, TorchMesh, rasterise_torch

F32 = NDArray[np.float32]
HEAD = bumpy()
MESH = TorchMesh.of(HEAD.triangles, HEAD.uv, HEAD.part)
COARSE = bumpy(30, 31)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Many small operations: on a busy computer threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(
    vertices: F32 | Tensor, mesh: TorchMesh, height: int, width: int, cull: bool = False
) -> TorchGBuffer:
    return rasterise_torch(torch.as_tensor(vertices)[None], mesh, height, width, cull=cull)


def soup(*corners: list[tuple[float, float, float]]) -> tuple[F32, TorchMesh]:
    """Separate triangles; the k-th is of part k + 1."""
    vertices = np.array(corners, np.float32).reshape(-1, 3)
    triangles = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    part = np.arange(1, len(triangles) + 1, dtype=np.uint8)
    return vertices, TorchMesh.of(triangles, vertices[:, :2] / 64, part)


def assert_same_picture(
    vertices: F32, head: Bumpy | HeadModel, mesh: TorchMesh, width: int, height: int
) -> None:
    uv, part, depth = draw_on_cpu(vertices, head.triangles, head.uv, head.part, width, height)
    g = draw(vertices, mesh, height, width)
    covered = part > 0
    assert covered.mean() > 0.1
    assert (g.covered[0].numpy() == covered).mean() >= 0.995
    close = np.abs(g.uv[0].numpy() - uv).max(-1) < 1 / 512
    assert (close & (g.part[0].numpy() == part)).mean() >= 0.995
    # depths but for the distance of OpenCV's camera, whose floats are as coarse as it is far
    far = 64.0 * height - vertices[head.triangles.reshape(-1), 2].mean()
    both = covered & g.covered[0].numpy()
    assert np.percentile(np.abs(depth - far - g.depth_px[0].numpy())[both], 99.5) < 0.05
    assert (g.depth_px[0].numpy()[~covered & ~g.covered[0].numpy()] == depth.max()).all()


@pytest.mark.parametrize("angles", POSES)
def test_it_draws_what_the_cpu_draws(angles: tuple[float, float, float]) -> None:
    assert_same_picture(posed(HEAD.vertices, angles), HEAD, MESH, 256, 256)


@pytest.mark.parametrize("angles", POSES)
def test_it_draws_the_real_head_as_the_cpu_does(angles: tuple[float, float, float]) -> None:
    """With the mouth open, so that teeth and tongue show, and one eye half closed."""
    head = load_head_model()
    expression = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, strength in (("jawOpen", 0.8), ("eyeBlinkLeft", 0.5), ("mouthSmileRight", 0.7)):
        expression[ARKIT_NAMES.index(name)] = strength
    shape = head.decode(head.mean_hu, expression, np.full((2, 2), 0.2, np.float32))
    pose = Camera(256, 256).to_similarity(rotation_from_degrees(*angles), np.array([0, 0.2, 5.0]))
    vertices = pose.apply(shape).astype(np.float32)
    mesh = TorchMesh.of(head.triangles, head.uv, head.part)
    assert {Part.SKIN, Part.TEETH} < set(draw(vertices, mesh, 256, 256).part.unique().tolist())
    assert_same_picture(vertices, head, mesh, 256, 256)


def test_a_wide_picture_that_cuts_the_head_off() -> None:
    vertices = posed(HEAD.vertices, (20, 5, 3), 200) - np.array([30, 60, 0], np.float32)
    assert_same_picture(vertices, HEAD, MESH, 160, 96)


def test_every_field_tells_the_same_story() -> None:
    vertices = posed(HEAD.vertices, (30, 10, 0), 128)
    g = draw(vertices, MESH, 128, 128)
    y, x = np.nonzero(g.covered[0].numpy())
    corners = HEAD.triangles[g.triangle[0].numpy()[y, x]]
    weight = g.barycentric[0].numpy()[y, x]
    assert weight.min() >= 0
    assert np.allclose(weight.sum(1), 1, atol=1e-5)
    point = (weight[..., None] * vertices[corners]).sum(1)
    assert np.abs(point[:, :2] - np.stack([x + 0.5, y + 0.5], 1)).max() < 1e-3
    assert np.abs(point[:, 2] - g.depth_px[0].numpy()[y, x]).max() < 1e-3
    assert np.abs((weight[..., None] * HEAD.uv[corners]).sum(1) - g.uv[0].numpy()[y, x]).max() < 1e-5
    assert (HEAD.part[g.triangle[0].numpy()[y, x]] == g.part[0].numpy()[y, x]).all()
    empty = ~g.covered[0]
    assert (g.triangle[0][empty] == -1).all()
    assert (g.part[0][empty] == 0).all()
    assert (g.uv[0][empty] == 0).all()
    assert (g.barycentric[0][empty] == 0).all()


def test_the_nearer_surface_wins_whatever_the_order_and_sign() -> None:
    for shift in (-1000, -2, 0, 1000):
        near = [(2.0, 2.0, shift - 1.0), (60.0, 2.0, shift - 1.0), (2.0, 60.0, shift - 1.0)]
        far = [(x, y, shift + 1.0) for x, y, _ in near]
        for order, winner in (((near, far), 1), ((far, near), 2)):
            assert draw(*soup(*order), 64, 64).part[0, 10, 10] == winner


def test_of_equally_near_triangles_the_first_is_drawn() -> None:
    flat = [(2.0, 2.0, 0.0), (60.0, 2.0, 0.0), (2.0, 60.0, 0.0)]
    g = draw(*soup(flat, flat, flat), 64, 64)
    assert set(g.part.unique().tolist()) == {0, 1}


def test_crossing_surfaces_are_cut_at_their_crossing() -> None:
    slanted = [(0.0, 0.0, -20.0), (64.0, 0.0, 20.0), (0.0, 64.0, -20.0)]
    g = draw(*soup(slanted, [(0.0, 0.0, 0.0), (64.0, 0.0, 0.0), (0.0, 64.0, 0.0)]), 64, 64)
    assert g.part[0, 5].tolist()[:32] == [1] * 32
    assert g.part[0, 5].tolist()[32:58] == [2] * 26


@pytest.mark.parametrize("turned", [False, True])
def test_both_faces_are_drawn_unless_culled(turned: bool) -> None:
    corners = [(2.0, 2.0, 0.0), (2.0, 30.0, 0.0), (30.0, 2.0, 0.0)]  # outwards is towards the camera
    vertices, mesh = soup(corners[::-1] if turned else corners)
    assert draw(vertices, mesh, 32, 32).covered.any()
    assert bool(draw(vertices, mesh, 32, 32, cull=True).covered.any()) != turned


def test_culling_a_closed_surface_changes_nothing_seen() -> None:
    vertices = posed(HEAD.vertices, (20, 10, 5))
    every, front = draw(vertices, MESH, 256, 256), draw(vertices, MESH, 256, 256, cull=True)
    assert (every.triangle == front.triangle).float().mean() > 0.995  # it is open at its poles
    assert (front.triangle >= 0).any()


@given(*[st.one_of(st.floats(9, 55, width=32), st.integers(9, 54).map(lambda k: k + 0.5))] * 2)
def test_neighbours_leave_no_crack(x: float, y: float) -> None:
    """A square cut into four triangles at any point, pixel centres among them, is covered without a hole."""
    corners = np.array([(8, 8, 0), (56, 8, 0), (56, 56, 0), (8, 56, 0), (x, y, 0)], np.float32)
    triangles = np.array([[0, 1, 4], [2, 4, 1], [2, 3, 4], [4, 3, 0]], np.int32)  # not all wound alike
    mesh = TorchMesh.of(triangles, corners[:, :2] / 64, np.ones(4, np.uint8))
    covered = draw(corners, mesh, 64, 64).covered[0].numpy()
    assert covered[8:56, 8:56].all()
    assert covered.sum() == 48 * 48


def test_a_batch_is_its_pictures() -> None:
    vertices = np.stack([posed(HEAD.vertices, angles, 96) for angles in POSES[:3]])
    together = rasterise_torch(torch.from_numpy(vertices), MESH, 80, 96)
    for k, own in enumerate(vertices):
        alone = draw(own, MESH, 80, 96)
        for name in ("uv", "part", "depth_px", "triangle", "barycentric"):
            assert torch.equal(getattr(together, name)[k], getattr(alone, name)[0]), name


@pytest.mark.parametrize("pairs", [7, 997, 10_000])
def test_how_the_work_is_cut_does_not_matter(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, vertices = COARSE, posed(COARSE.vertices, (20, 5, 0), 48)
    mesh = TorchMesh.of(head.triangles, head.uv, head.part)
    whole = draw(vertices, mesh, 48, 48)
    monkeypatch.setattr(gbuffer_torch, "_PAIRS_CPU", pairs)
    assert torch.equal(draw(vertices, mesh, 48, 48).triangle, whole.triangle)


def test_what_cannot_be_drawn_is_left_out() -> None:
    good = [(2.0, 2.0, 0.0), (30.0, 2.0, 0.0), (2.0, 30.0, 0.0)]
    line = [(0.0, 0.0, -9.0), (16.0, 16.0, -9.0), (32.0, 32.0, -9.0)]
    lost = [(float("nan"), 2.0, -9.0), (30.0, 2.0, -9.0), (2.0, 30.0, -9.0)]
    endless = [(2.0, 2.0, -9.0), (float("inf"), 2.0, -9.0), (2.0, 30.0, -9.0)]
    huge = [(-1e9, -1e9, 9.0), (3e9, -1e9, 9.0), (-1e9, 3e9, 9.0)]
    g = draw(*soup(line, lost, endless, good, huge), 32, 32)
    assert set(g.part.unique().tolist()) == {4, 5}
    assert g.uv.isfinite().all()
    assert not draw(posed(HEAD.vertices, (0, 0, 0)) + np.float32(5000), MESH, 32, 32).covered.any()


def test_nothing_drawn_still_has_shapes_and_gradients() -> None:
    vertices = torch.full((2, len(HEAD.vertices), 3), -50.0, requires_grad=True)
    g = rasterise_torch(vertices, MESH, 20, 30)
    assert g.uv.shape == (2, 20, 30, 2)
    g.uv.sum().backward()
    assert vertices.grad is not None
    assert (vertices.grad == 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    head = bumpy(7, 8)
    mesh = TorchMesh.of(head.triangles, head.uv, head.part)
    vertices = torch.from_numpy(posed(head.vertices, (20, 10, 5), 12)).double()[None].requires_grad_()

    def fields(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g = rasterise_torch(v, mesh, 12, 12)
        return g.uv, g.depth_px, g.barycentric

    assert fields(vertices)[0].dtype == torch.float64
    # corner_uv is float32, so it is exact in float64 as well
    assert torch.autograd.gradcheck(fields, vertices, eps=1e-6, atol=1e-5, fast_mode=False)


def test_moving_along_the_surface_moves_its_uv() -> None:
    """A plane pushed to the right by one pixel shows, at each pixel, what was one pixel to its left."""
    vertices, mesh = soup([(-60.0, -60.0, 0.0), (200.0, -60.0, 0.0), (-60.0, 200.0, 0.0)])
    shift = torch.zeros(3, requires_grad=True)
    g = rasterise_torch(torch.from_numpy(vertices)[None] + shift, mesh, 64, 64)
    g.uv[0, 20, 30].sum().backward()
    assert shift.grad is not None
    assert shift.grad.tolist() == pytest.approx([-1 / 64, -1 / 64, 0], abs=1e-6)


def test_half_precision_vertices_and_autocast_do_not_round_the_uv() -> None:
    vertices = torch.from_numpy(posed(HEAD.vertices, (10, 0, 0), 64))[None]
    expected = rasterise_torch(vertices, MESH, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        got = rasterise_torch(vertices, MESH, 64, 64)
    assert torch.equal(got.uv, expected.uv)
    assert rasterise_torch(vertices.bfloat16(), MESH, 64, 64).uv.dtype == torch.float32


def smooth_texture(size: int = 64) -> Tensor:
    at = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([torch.sin(9 * u + 2 * v), torch.cos(7 * v - 3 * u), torch.sin(8 * (u + v))])[None]


def turned(yaw_rad: Tensor, shift_px: Tensor) -> Tensor:
    base = torch.from_numpy(posed(COARSE.vertices, (0, 0, 0), 96)) - torch.tensor([48.0, 48.0, 0.0])
    cos, sin = torch.cos(yaw_rad), torch.sin(yaw_rad)
    x, y, z = base.unbind(1)
    points = torch.stack([cos * x + sin * z, y, cos * z - sin * x], 1)
    return (points + 48 + torch.cat([shift_px, shift_px.new_zeros(1)]))[None]


@pytest.mark.slow
def test_a_pose_is_recovered_through_the_looked_up_picture() -> None:
    texture, mesh = smooth_texture(), TorchMesh.of(COARSE.triangles, COARSE.uv, COARSE.part)
    true_yaw, true_shift = torch.tensor(0.12), torch.tensor([2.5, -1.7])
    target = rasterise_torch(turned(true_yaw, true_shift), mesh, 96, 96)
    picture = lookup(texture, target.uv)
    yaw, shift = torch.zeros((), requires_grad=True), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [yaw], "lr": 0.02}, {"params": [shift], "lr": 0.3}])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.96)
    for _ in range(100):
        g = rasterise_torch(turned(yaw, shift), mesh, 96, 96)
        both = (g.covered & target.covered)[:, None]
        loss = ((lookup(texture, g.uv) - picture).square() * both).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    assert float((yaw.detach() - true_yaw).abs()) < 0.002
    assert float((shift.detach() - true_shift).abs().max()) < 0.03


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="expected"):
        rasterise_torch(torch.zeros(1, 7, 3), MESH, 8, 8)
    with pytest.raises(ModelError, match="expected"):
        rasterise_torch(torch.zeros(len(HEAD.vertices), 3), MESH, 8, 8)
    with pytest.raises(ModelError, match="not there"):
        TorchMesh.of(HEAD.triangles, HEAD.uv[:-1], HEAD.part)
    with pytest.raises(ModelError, match="one for each"):
        TorchMesh.of(HEAD.triangles, HEAD.uv, HEAD.part[:-1])
    with pytest.raises(ModelError, match="expected"):
        TorchMesh.of(HEAD.triangles[:, :2], HEAD.uv, HEAD.part)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_gpu_draws_the_same() -> None:
    vertices = torch.from_numpy(posed(HEAD.vertices, (25, 10, 5)))[None]
    here = rasterise_torch(vertices, MESH, 256, 256)
    there_mesh = TorchMesh.of(HEAD.triangles, HEAD.uv, HEAD.part, "cuda")
    there = rasterise_torch(vertices.cuda(), there_mesh, 256, 256)
    assert (there.triangle.cpu() == here.triangle).float().mean() > 0.999
    assert ((there.uv.cpu() - here.uv).abs().amax(-1) < 1e-4).float().mean() > 0.999
