"""What an evaluation found: rows, what each generator costs, Fréchet distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.evaluation.cost import Work
from scripts.evaluation.measure import Row
from scripts.evaluation.truth import SEGMENTED, TO_DRIVERS, TO_SOURCES

# what each FID is called in the table, in this order
FIDS: Mapping[str, str] = {
    "self": "self",
    SEGMENTED: "self, person only",
    "back": "backward",
    TO_SOURCES: "cross, to the sources",
    TO_DRIVERS: "cross, to the drivers",
}


@dataclass(frozen=True, slots=True)
class Fid:
    """A Fréchet distance, and how many drawn and real pictures it is of."""

    value: float
    drawn: int
    real: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one generator costs: median milliseconds of `Generator.render` and of a whole frame, GFLOP; and its FIDs.

    `work` is None when the networks could not be counted; `fids` are those that were measured, named as in `FIDS`.
    `width_one`, `width_one_ms`: as large as its paper has it, where there is such a size, and where it was asked for.
    """

    generate_ms: float
    frame_ms: float
    work: Work | None
    fids: Mapping[str, Fid] = field(default_factory=dict[str, Fid])
    width_one: Work | None = None
    width_one_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a report needs. `about` are lines on data and networks, `skipped` what was left out and why."""

    rows: Sequence[Row]
    costs: Mapping[str, Cost]
    size_px: int
    about: Sequence[str] = ()
    skipped: Sequence[str] = field(default_factory=list[str])
