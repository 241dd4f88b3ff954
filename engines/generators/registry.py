"""`GENERATORS`: every generator, told once. Command line, page, training, evaluation and export follow from it.

A new generator stands here and nowhere else. What is behind a name is imported when it is asked for: torch takes a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from engines.generators.generator import Generator
    from engines.generators.networked.blueprint import Blueprint
    from engines.head.model import HeadModel


class Open(Protocol):
    """Makes a generator for a head model, without some of its parts. Raises WeightsError when weights do not load."""

    def __call__(
        self, model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
    ) -> Generator[Any]:
        """`without`: names of the entry's switches; `weights`: others than those that ship."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One generator.

    - `open` makes it.
    - `blueprint`: of one with networks, all that training, evaluation and export need to know; None: it has none.
    - `switches`: its parts that an ablation may leave out.
    """

    open: Open
    blueprint: Callable[[], type[Blueprint[Any]]] | None = None
    switches: tuple[str, ...] = ()


def _geometric(
    model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
) -> Generator[Any]:
    from engines.generators.geometric.generator import GeometricGenerator

    assert not without
    assert weights is None
    return GeometricGenerator(model)


def _visavis(
    model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
) -> Generator[Any]:
    from engines.generators.visavis.generator import VisavisGenerator

    return VisavisGenerator(model, without=without, weights=weights)


def _visavis_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.visavis.blueprint import VisavisBlueprint

    return VisavisBlueprint


def _ifaceuv_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.ifaceuv.blueprint import IFaceUvBlueprint

    return IFaceUvBlueprint


def _multiguidance_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.multiguidance.blueprint import MultiguidanceBlueprint

    return MultiguidanceBlueprint


def _idmatch_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.idmatch.blueprint import IdmatchBlueprint

    return IdmatchBlueprint


def _pncc_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.pncc.blueprint import PnccBlueprint

    return PnccBlueprint


def _pwm_blueprint() -> type[Blueprint[Any]]:
    from engines.generators.pwm.blueprint import PwmBlueprint

    return PwmBlueprint


def windowed(blueprint: Callable[[], type[Blueprint[Any]]], switches: tuple[str, ...] = ()) -> Entry:
    """A generator that is its blueprint and nothing else: networks that draw the head's window."""

    def make(
        model: HeadModel, *, without: Collection[str] = (), weights: Path | None = None
    ) -> Generator[Any]:
        from engines.generators.networked.window import WindowGenerator

        return WindowGenerator(blueprint(), model, without=without, weights=weights)

    return Entry(make, blueprint, switches)


GENERATORS: dict[str, Entry] = {
    "geometric": Entry(_geometric),
    "visavis": Entry(
        _visavis,
        _visavis_blueprint,
        ("flow", "layers", "features", "motion", "mouth", "eyes", "photo_crops"),
    ),
    "ifaceuv": windowed(_ifaceuv_blueprint, ("refinement", "consistency", "window", "computed_flow")),
    "multiguidance": windowed(
        _multiguidance_blueprint, ("flow_guidance", "occlusion_guidance", "synthesis_guidance")
    ),
    "idmatch": windowed(_idmatch_blueprint, ("correspondence", "skips")),
    "pncc": windowed(
        _pncc_blueprint, ("perceptual", "mapping", "conditioning", "mouth", "residual", "computed_flow")
    ),
    "pwm": windowed(_pwm_blueprint, ("whole_head",)),
}
