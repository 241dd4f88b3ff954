"""Loss terms: worth what the papers' equations say, nothing at equality, pulling the right way, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from unasked import Unasked

from engines.generators.networked import terms
from scripts.evaluation.perceptual import perceptual_distance

Pair = Callable[[Tensor, Tensor], Tensor]


def features(picture: Tensor) -> Sequence[Tensor]:
    """Two layers that anybody can compute: the picture's squares, and the halved picture's."""
    return [picture.square(), F.avg_pool2d(picture, 2).square()]


def five(picture: Tensor, where: Tensor) -> Tensor:
    """A descriptor: the means of the channels, seen from `where`."""
    return picture.mean((2, 3)) + where


def described(a: Tensor, b: Tensor) -> Tensor:
    return terms.re_identification(five, a, b, torch.tensor([[0.1, 0.2, 0.3]]).expand(len(a), 3))


PAIRS: dict[str, Pair] = {
    "l1": terms.l1,
    "l1_multiscale": terms.l1_multiscale,
    "perceptual": lambda a, b: terms.perceptual(features, a, b, scales=2),
    "perceptual_unit": lambda a, b: terms.perceptual(features, a, b, scales=2, distance=perceptual_distance),
    "style": lambda a, b: terms.style(features, a, b),
    "feature_matching": lambda a, b: terms.feature_matching(features(a), features(b)),
    "re_identification": described,
    "consistency": terms.consistency,
}
SINGLES: dict[str, Callable[[Tensor], Tensor]] = {
    "flow_magnitude": terms.flow_magnitude,
    "total_variation": terms.total_variation,
    "smoothness": terms.smoothness,
    "mask_area": lambda m: terms.mask_area(m, torch.ones_like(m)),
}


def pictures(seed: int, rows: int = 3) -> Tensor:
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PAIRS)
def test_a_picture_is_like_itself(name: str) -> None:
    a = pictures(0)
    found = PAIRS[name](a, a.clone())
    assert found.shape == (3,)
    assert torch.allclose(found, torch.zeros(3), atol=1e-6)
    assert bool((PAIRS[name](a, pictures(1)) > 1e-5).all())


@pytest.mark.parametrize("name", PAIRS)
def test_following_the_slope_makes_it_more_alike(name: str) -> None:
    a, b = pictures(2).requires_grad_(True), pictures(3)
    before = PAIRS[name](a, b)
    before.sum().backward()
    assert a.grad is not None
    step = 1e-3 / a.grad.flatten(1).norm(dim=1)
    after = PAIRS[name]((a - step[:, None, None, None] * a.grad).detach(), b)
    assert bool((after < before).all())


@pytest.mark.parametrize("name", PAIRS)
def test_a_row_is_worth_what_it_is_worth_alone(name: str) -> None:
    a, b = pictures(4), pictures(5)
    together = PAIRS[name](a, b)
    alone = torch.cat([PAIRS[name](a[k : k + 1], b[k : k + 1]) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", [*PAIRS, *SINGLES])
def test_nothing_is_asked_of_the_device(name: str) -> None:
    a = pictures(11).requires_grad_(True)
    with Unasked():
        found = PAIRS[name](a, pictures(12)) if name in PAIRS else SINGLES[name](a)
        found.mean().backward()


def test_what_asks_is_found_out() -> None:
    x = torch.rand(3, 2, 2)
    for asking in (
        lambda: x.sum().item(),
        lambda: x[x > 0],
        lambda: torch.linalg.inv(x),
        lambda: x.nonzero(),
    ):
        with pytest.raises(AssertionError, match="waits for the device"), Unasked():
            asking()


@pytest.mark.parametrize("name", SINGLES)
def test_what_is_to_be_little_is_worth_nothing_at_nothing(name: str) -> None:
    x = pictures(6)
    term = SINGLES[name]
    assert torch.equal(term(torch.zeros_like(x)), torch.zeros(3))
    x.requires_grad_(True)
    before = term(x)
    before.sum().backward()
    assert x.grad is not None
    assert bool((term((x - 0.01 * x.grad).detach()) < before).all())
    alone = torch.cat([term(x[k : k + 1]) for k in range(3)])
    assert torch.allclose(before, alone)


# --- values by hand ----------------------------------------------------------------------------------


def test_l1_by_hand() -> None:
    a = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    b = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert float(terms.l1(a, b)) == pytest.approx((1 + 0 + 2 + 3) / 4)
    weight = torch.tensor([[[[1.0, 1.0], [0.0, 2.0]]]])
    assert float(terms.l1(a, b, weight)) == pytest.approx((1 + 0 + 0 + 6) / 4)
    # halved: (0 + 1 + 2 + 3) / 4 against (1 + 1) / 4
    assert float(terms.l1_multiscale(a, b, scales=2)) == pytest.approx(1.5 + 1.0)


def test_psnr_by_hand() -> None:
    a = torch.stack([torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), 1.0)])
    assert terms.minus_psnr(a, a + 0.1).tolist() == pytest.approx([-20, -20], abs=1e-3)
    assert terms.minus_psnr(a, a).tolist() == [-60, -60]


def test_perceptual_by_hand() -> None:
    """001, eq. 8 on two layers and two scales of pictures of one colour: every mean is that of one number."""
    a, b = torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 4, 4), 0.25)
    assert float(terms.perceptual(features, a, b)) == pytest.approx(2 * (0.25 - 0.0625))
    assert float(terms.perceptual(features, a, b, scales=2)) == pytest.approx(4 * (0.25 - 0.0625))


def test_perceptual_as_lpips_has_it_asks_for_the_direction_only() -> None:
    a = pictures(7)
    plain = terms.perceptual(lambda p: [p], a, 2 * a)
    unit = terms.perceptual(lambda p: [p], a, 2 * a, distance=perceptual_distance)
    assert float(unit.max()) < 1e-6 < float(plain.min())


def test_gram_by_hand() -> None:
    feature = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])  # two channels at two places
    assert torch.allclose(terms.gram(feature), torch.tensor([[[5.0, 6.0], [6.0, 9.0]]]) / 4)


def test_style_does_not_ask_where_something_is() -> None:
    a = pictures(8)
    moved = a.roll(3, -1)
    assert torch.allclose(terms.style(lambda p: [p], a, moved), torch.zeros(3), atol=1e-6)
    assert bool((terms.l1(a, moved) > 0.1).all())


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.5]])
    assert float(terms.hinge_discriminator(real, fake)) == pytest.approx(0.5 / 2 + 1.5 / 2)
    assert float(terms.hinge_generator(fake)) == pytest.approx(-(-3 + 0.5) / 2)
    assert float(terms.told_right(real, fake)) == pytest.approx((1 + 0.5) / 2)


def test_hinge_pulls_verdicts_apart_until_they_are_sure() -> None:
    real = torch.tensor([[0.0, 1.5]], requires_grad=True)
    fake = torch.tensor([[0.0, -1.5]], requires_grad=True)
    terms.hinge_discriminator(real, fake).sum().backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.tolist() == [[-0.5, 0.0]]
    assert fake.grad.tolist() == [[0.5, 0.0]]
    drawn = torch.zeros(1, 2, requires_grad=True)
    terms.hinge_generator(drawn).sum().backward()
    assert drawn.grad is not None
    assert drawn.grad.tolist() == [[-0.5, -0.5]]


def test_only_what_is_drawn_is_taught_by_features() -> None:
    drawn, truth = pictures(9).requires_grad_(True), pictures(10).requires_grad_(True)
    for term in (PAIRS["perceptual"], PAIRS["style"], PAIRS["feature_matching"], PAIRS["re_identification"]):
        drawn.grad = truth.grad = None
        term(drawn, truth).sum().backward()
        assert drawn.grad is not None
        assert truth.grad is None


def test_the_gradient_penalty_by_hand() -> None:
    """D(x) is the mean of two patches of weights 3 and 1: its slope is (1.5, 0.5) / … whatever x is."""
    weight = torch.tensor([3.0, 1.0], requires_grad=True)
    x = torch.tensor([[5.0, -2.0], [0.0, 1.0]])
    found = terms.gradient_penalty(lambda picture: picture * weight, x)
    assert found.tolist() == pytest.approx([1.5**2 + 0.5**2] * 2)
    found.sum().backward()  # through the slope, to the discriminator
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([2 * 2 * 3 / 4, 2 * 2 * 1 / 4])
    assert not x.requires_grad


def test_identity_by_hand() -> None:
    a = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    b = torch.tensor([0.5, 0.5, 0.0])[None, :, None, None]
    found = terms.re_identification(five, a, b, torch.zeros(1, 3))
    assert float(found) == pytest.approx(1 - math.sqrt(0.5))


def test_flow_by_hand() -> None:
    flow = torch.tensor([[[[0.0, 2.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert float(terms.flow_magnitude(flow)) == pytest.approx(0.5)
    assert float(terms.total_variation(flow)) == pytest.approx(1.0)
    assert float(terms.smoothness(flow)) == pytest.approx(2.0)


def test_masks_by_hand() -> None:
    mask = torch.tensor([[[[0.5, 1.0], [0.0, 1.0]]]])
    shown = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    assert float(terms.mask_area(mask, shown)) == pytest.approx(1.5 / 4)
    assert float(terms.mask_entropy(mask)) == pytest.approx(math.log(2) / 4, abs=1e-4)
    assert float(terms.mask_entropy(mask.round())) == pytest.approx(0, abs=1e-6)


def test_entropy_pulls_a_mask_to_its_nearer_side() -> None:
    mask = torch.tensor([[[[0.3, 0.8]]]], requires_grad=True)
    terms.mask_entropy(mask).sum().backward()
    assert mask.grad is not None
    assert mask.grad[0, 0, 0, 0] > 0 > mask.grad[0, 0, 0, 1]


def test_consistency_by_hand_and_for_both() -> None:
    """000, eq. 9: each is as far from the middle as the other."""
    s = torch.tensor([[[[1.0, 0.0]]]], requires_grad=True)
    t = torch.tensor([[[[0.0, 0.0]]]], requires_grad=True)
    found = terms.consistency(s, t)
    assert float(found.detach()) == pytest.approx(0.5)
    found.sum().backward()
    assert s.grad is not None
    assert t.grad is not None
    assert s.grad[0, 0, 0, 0] > 0 > t.grad[0, 0, 0, 0]
    seen = torch.tensor([[[[0.0, 1.0]]]])
    assert float(terms.consistency(s, t, seen).detach()) == 0


def test_what_a_call_cuts_off_counts() -> None:
    picture = torch.tensor([[-0.5, 0.25, 1.0, 1.5], [0.0, 0.5, 0.75, 1.0]]).reshape(2, 1, 2, 2)
    assert torch.allclose(terms.out_of_range(picture), torch.tensor([0.25, 0.0]))
