"""`Lesson`: a batch to learn from, a `Scene` and what should have been drawn; and what a training asks and lends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engines.generators.networked.constant import constant
from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one batch gives: weighted `losses` by name; `fakes` and `reals` by name for the discriminators."""

    losses: dict[str, Tensor]
    fakes: dict[str, Tensor]
    reals: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Teaching:
    """How discriminators learn, and what they count. At a rate of 2·10⁻⁴ they did not learn in 2 000 steps.

    `adversarial`, `matching`: weights of fooling them, and of looking to them as the truth does (hinge; feature
    matching).
    `counts_from`: the step from which they count; they learn alone before. `r1`: weight γ of the gradient penalty,
    taken every `r1_every`-th step and there as often heavier (Karras et al. 2020, "lazy regularization"); 0: none.
    """

    rate: float = 5e-4
    adversarial: float = 0.01
    matching: float = 0.02
    counts_from: int = 0
    r1: float = 0.0
    r1_every: int = 16


Describe = Callable[[Tensor, Tensor], Tensor]


class Judges(Protocol):
    """What a training lends to losses: frozen networks that look at pictures (B, 3, h, w) 0 … 1."""

    @property
    def perceptual(self) -> Callable[[Tensor], Sequence[Tensor]] | None:
        """Feature maps, finest first; None where the network is not installed or not wanted."""
        ...

    @property
    def describe(self) -> Mapping[str, Describe]:
        """Recognition nets by name, where there are any: pictures and five points (B, 5, 2) of each face in their
        pixels → unit descriptors (B, D). Gradients flow to the pictures."""
        ...

    def distance(self, made: Tensor, truth: Tensor) -> Tensor:
        """(B,) perceptual distance as LPIPS counts it; gradients flow to `made` alone."""
        ...


class Lesson:
    """A batch. `truth` RGB and matte (beside) of the frame that drives, seen through the photo's window; `background`
    RGB of what stands behind the photo's person there; `sharpness` (B,): below 1 where the clip was enlarged; `points`
    (B, 5, 2): where the true picture has the middle of both eyes, nose tip and mouth corners, found in this picture
    alone, in shares of the window's sides; `step` of the training.

    `back`, for a blueprint that looks back: the frame that drives as the photo, with UV maps of its own, in its own
    window, and the photo's motions told there. No head is posed for it: `posed` is the head as that frame shows it.
    """

    def __init__(
        self,
        scene: Scene,
        truth: Picture,
        background: Picture,
        sharpness: Tensor,
        step: int = 0,
        *,
        points: Tensor | None = None,
        back: Scene | None = None,
    ) -> None:
        self.scene, self.truth, self.background, self.back = scene, truth, background, back
        self.sharpness, self.points, self.step = sharpness, points, step
        self._truths: dict[Size, Tensor] = {}
        self._backgrounds: dict[Size, Tensor] = {}

    def truth_at(self, size: Size) -> Tensor:
        """(B, 3, h, w): the true picture, its own background included."""
        return self._truth(size)[:, :3]

    def matte_at(self, size: Size) -> Tensor:
        """(B, 1, h, w): where the true picture shows the person."""
        return self._truth(size)[:, 3:]

    def _truth(self, size: Size) -> Tensor:
        if size not in self._truths:
            self._truths[size] = self.truth.at(size)
        return self._truths[size]

    def points_at(self, size: Size) -> Tensor:
        """(B, 5, 2): `points` in the pixels of a picture of `size`, as recognition nets want them."""
        assert self.points is not None
        return self.points * constant([size.width_px, size.height_px], self.points)

    def background_at(self, size: Size) -> Tensor:
        """(B, 3, h, w)."""
        if size not in self._backgrounds:
            self._backgrounds[size] = self.background.at(size)
        return self._backgrounds[size]

    def over(self, rgba: Tensor) -> Tensor:
        """Premultiplied RGBA (B, 4, h, w) over the background (B, 3, h, w)."""
        return rgba[:, :3] + (1 - rgba[:, 3:]) * self.background_at(Size(rgba.shape[3], rgba.shape[2]))

    def photo_over(self, size: Size) -> Tensor:
        """The photo as it is, over the background: what anything must beat."""
        return self.over(self.scene.photo_at(size))
