"""What a training lends to losses: the same features and descriptors that evaluation looks at, with gradients."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from unasked import Unasked

from engines.enrollment import Enrollment
from engines.generators.networked import terms
from engines.generators.networked.lesson import Judges as Lent
from scripts.evaluation import perceptual
from scripts.evaluation.perceptual import PerceptualError, PerceptualFeatures, perceptual_distance
from scripts.generators.judges import Describer, Perceptual, aligned, lent
from scripts.people.recognition import (
    NETS,
    Recogniser,
    align_face,
    arcface_points,
    five_points,
    similarity_2d,
)

CPU = torch.device("cpu")
NETS_FOLDER = (
    Path(__file__).parents[2] / "shared" / "models"
)  # beside the checkout on the developers' machines
needs_nets = pytest.mark.skipif(
    not (NETS_FOLDER / "mobileface.json").exists(), reason="the recognition nets are not part of the product"
)


def photo(person: Enrollment) -> tuple[Tensor, np.ndarray, Tensor]:
    """(1, 3, H, W) 0 … 1, the same as uint8, and its five points."""
    image = np.ascontiguousarray(person.photo[..., :3])
    points = torch.from_numpy(five_points(person.landmarks_px)).float()[None]
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, image, points


@pytest.mark.slow
def test_features_are_those_of_evaluation() -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 3, 64, 64)
    for ours, theirs in zip(Perceptual(CPU, 3)(picture), PerceptualFeatures(3)(picture), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_the_distance_is_lpips_and_teaches_what_was_made_alone() -> None:
    judges: Lent = lent(CPU)
    torch.manual_seed(0)
    made, truth = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64, requires_grad=True)
    with Unasked():
        found = judges.distance(made, truth)
    network = PerceptualFeatures(4)
    with torch.no_grad():
        wanted = perceptual_distance(network(made), network(truth))
    assert torch.allclose(found, wanted, atol=1e-4)
    found.sum().backward()
    assert made.grad is not None
    assert truth.grad is None
    assert judges.perceptual is not None
    as_written = terms.perceptual(judges.perceptual, made.detach(), truth.detach(), scales=2)
    assert as_written.shape == (2,)


def test_what_is_missing_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent() -> None:
        raise PerceptualError("the perceptual network is not installed (x); run: pip install y")

    monkeypatch.setattr(perceptual, "_load_network", absent)
    judges = lent(CPU, recognition=tmp_path)
    assert judges.perceptual is None
    assert judges.missing["perceptual"].startswith("the perceptual network is not installed")
    assert judges.describe == {}
    assert all(
        "cannot be read" in judges.missing[s.name] or "cannot read" in judges.missing[s.name] for s in NETS
    )
    with pytest.raises(PerceptualError, match="pip install"):
        judges.distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    without = lent(CPU, perceptual=False)
    assert without.perceptual is None
    assert {"perceptual", *(s.name for s in NETS)} == set(without.missing)


def test_faces_are_aligned_as_for_evaluation(astronaut: Enrollment) -> None:
    picture, image, points = photo(astronaut)
    for spec in NETS:
        target = torch.from_numpy(arcface_points(spec.side_px, spec.zoom)).float()
        ours = aligned(picture, points, target, spec.side_px)[0].permute(1, 2, 0).numpy() * 255
        theirs = align_face(image, astronaut.landmarks_px, spec.side_px, spec.zoom).astype(np.float32)
        assert np.abs(ours - theirs).mean() < 3
        moved = np.roll(theirs, 2, 1)
        assert np.abs(ours - theirs).mean() < 0.6 * np.abs(ours - moved).mean()


def test_alignment_is_the_nearest_as_for_evaluation() -> None:
    """Points that no turn and scale bring onto the target: the same compromise."""
    target = arcface_points(64, 1.0)
    points = target * (2.0, 1.4) + (5, 9)
    linear = similarity_2d(points, target)
    torch.manual_seed(0)
    picture = torch.arange(200.0).expand(1, 1, 200, 200)  # each place tells its column
    face = aligned(picture, torch.from_numpy(points).float()[None], torch.from_numpy(target).float(), 64)
    back = np.linalg.inv(np.vstack([linear, [0, 0, 1]]))
    for x, y in ((10, 10), (32, 40), (60, 20)):
        assert float(face[0, 0, y, x]) == pytest.approx((back @ (x, y, 1))[0], abs=0.01)


def test_alignment_follows_turn_size_and_place() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 12, 12).repeat_interleave(16, 2).repeat_interleave(16, 3)
    target = torch.from_numpy(arcface_points(64, 1.0)).float()
    angle = torch.tensor(0.5)
    turn = 1.5 * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    points = target @ turn.T + torch.tensor([90.0, 20.0])
    face = aligned(picture, points[None], target, 64)[0]
    for x, y in ((20, 20), (40, 30), (32, 50)):
        at = turn @ torch.tensor([x, y], dtype=torch.float32) + torch.tensor([90.0, 20.0])
        column, row = (round(float(v)) for v in at)
        if {column % 16, row % 16} & {0, 1, 2, 13, 14, 15}:
            continue  # near an edge of the squares
        assert torch.allclose(face[:, y, x], picture[0, :, row, column], atol=0.02)


@needs_nets
@pytest.mark.slow
@pytest.mark.parametrize("spec", NETS, ids=lambda s: s.name)
def test_descriptors_are_those_of_evaluation_and_teach(astronaut: Enrollment, spec: object) -> None:
    assert spec in NETS
    chosen = NETS[NETS.index(spec)]
    picture, image, points = photo(astronaut)
    describe = Describer(NETS_FOLDER, chosen, CPU)
    told = Recogniser(NETS_FOLDER, chosen).describe(image, astronaut.landmarks_px)
    ours = describe(picture, points)
    assert ours.shape == (1, len(told))
    assert float(ours[0] @ torch.from_numpy(told)) > 0.97
    dim = (
        picture * 0.6
        + 0.2 * torch.from_numpy(cv2.GaussianBlur(image, (31, 31), 0)).permute(2, 0, 1)[None] / 255
    )
    dim.requires_grad_(True)
    before = terms.re_identification(describe, dim, picture, points)
    before.sum().backward()
    assert dim.grad is not None
    after = terms.re_identification(
        describe, dim.detach() - 0.5 * dim.grad / dim.grad.norm(), picture, points
    )
    assert float(after) < float(before.detach())
    with torch.autocast("cpu", torch.bfloat16):  # a training's steps are in mixed precision
        assert torch.allclose(describe(picture, points), ours, atol=1e-5)
    both = describe(torch.cat([picture, picture.flip(-1)]), points.expand(2, -1, -1))
    assert torch.allclose(both[:1], ours, atol=1e-4)
