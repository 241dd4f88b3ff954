"""Every arm on the same rows of held-out people: pictures as a call shows them, measured as the evaluation does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.generators.networked.blueprint import Blueprint, load_networks
from engines.generators.networked.lesson import Describe, Lesson
from engines.generators.networked.parts import mouth_mask
from engines.generators.networked.surface import HeadTables
from engines.generators.registry import GENERATORS
from engines.geometry import F64
from engines.head.model import load_head_model
from engines.motion_descriptor import ROTATION
from scripts.evaluation import metrics
from scripts.evaluation.features import PerceptualMeasure, distances, pooled
from scripts.evaluation.measure import Row
from scripts.evaluation.take import turn_deg
from scripts.evaluation.variants import SOURCE_COPY
from scripts.generators.item import SUFFIX, read_about
from scripts.generators.lessons import lesson_of
from scripts.generators.loop import spread
from scripts.generators.store import Store

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
_ROWS = 8  # at a time
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Seen:
    """One row: `ours` (h, w, 3) over the photo's background, the `photo` unmoved, the `truth`; where its person (h, w)
    and its mouth is; five points (1, 5, 2) of the true face; item and pair; the turn from the photo's head.
    """

    ours: U8
    photo: U8
    truth: U8
    matte: NDArray[np.float32]
    mouth: NDArray[np.bool_]
    points_px: Tensor
    item: str
    pair: int
    turn_deg: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows of one arm, and the pooled features (N, 320) of its pictures and of the true ones, for FID."""

    rows: Sequence[Row]
    ours: F64
    truth: F64

    @property
    def fid(self) -> float:
        """FID-efflite0 of as many pictures as there are rows."""
        return metrics.frechet_distance(metrics.Gaussian.of(self.ours), metrics.Gaussian.of(self.truth))


@dataclass(frozen=True, slots=True)
class Tools:
    """What looks at pictures: the perceptual network, and recognition nets by name where there are any."""

    perceptual: PerceptualMeasure
    describe: Mapping[str, Describe]


def opened(generator: str, weights: Path) -> tuple[Blueprint[Any], nn.Module]:
    """A generator as its weights file has it. Raises WeightsError."""
    make = GENERATORS[generator].blueprint
    assert make is not None
    blueprint, networks, _ = load_networks(make(), weights)
    return blueprint, networks


def drawn(blueprint: Blueprint[Any], networks: nn.Module, store: Store, rows: I64) -> Iterator[Seen]:
    """Rows (n, 2) of `store` as the networks draw them, cut off at 0 and 1 as in a call."""
    tables = HeadTables.of(load_head_model(), _CPU)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        batch = store.gather(some, None)
        with torch.no_grad():
            lesson = lesson_of(batch, tables, blueprint)
            ours = lesson.over(blueprint.make(networks, lesson.scene).rgba.float().clamp(0, 1))
        yield from _rows(blueprint, lesson, ours, batch, store, some)


def _rows(
    blueprint: Blueprint[Any], lesson: Lesson, ours: Tensor, batch: dict[str, Tensor], store: Store, rows: I64
) -> Iterator[Seen]:
    size = blueprint.window
    matte = lesson.matte_at(size)[:, 0].float().numpy()
    mouth = torch.nn.functional.interpolate(mouth_mask(lesson.scene), (size.height_px, size.width_px))[:, 0]
    pictures = [_bytes(p) for p in (ours, lesson.photo_over(size), lesson.truth_at(size))]
    points = lesson.points_at(size)
    own, driven = (batch[n].double().numpy() for n in ("own_motion", "motions"))
    for k, (item, pair) in enumerate(rows.tolist()):
        turn = turn_deg(own[k, ROTATION], driven[k, blueprint.past, ROTATION])
        yield Seen(
            pictures[0][k], pictures[1][k], pictures[2][k], matte[k], mouth[k].numpy() > 0.5, points[k : k + 1],
            store.name_of(item), pair, turn,
        )  # fmt: skip


def _bytes(pictures: Tensor) -> U8:
    """(B, 3, h, w) 0 … 1 → (B, h, w, 3)."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def judge(
    name: str, generator: str, weights: Path, pairs: Path, count: int, tools: Tools
) -> dict[str, Judged]:
    """At most `count` rows of held-out people, by the arm `name` and by the photo unmoved. Raises TrainingError,
    WeightsError."""
    blueprint, networks = opened(generator, weights)
    store = Store(pairs, blueprint, _CPU, judging=True)
    seen = list(drawn(blueprint, networks, store, spread(store.held_out, count)))
    subjects = {item: read_about(pairs / f"{item}{SUFFIX}").subject for item in {s.item for s in seen}}
    return {
        called: _judged(called, [of(s) for s in seen], seen, subjects, tools)
        for called, of in ((name, _ours), (SOURCE_COPY, _photo))
    }


def _ours(seen: Seen) -> U8:
    return seen.ours


def _photo(seen: Seen) -> U8:
    return seen.photo


def _judged(
    name: str, pictures: Sequence[U8], seen: Sequence[Seen], subjects: Mapping[str, str], tools: Tools
) -> Judged:
    look: Callable[[Sequence[U8]], list[list[Tensor]]] = tools.perceptual.features
    features, wanted = look(pictures), look([s.truth for s in seen])
    far = distances(features, wanted)
    person = [
        [_person(p, s.matte) for p, s in zip(of, seen, strict=True)]
        for of in (pictures, [s.truth for s in seen])
    ]
    seg_far = distances(*(look(of) for of in person))
    rows: list[Row] = []
    for k, (picture, row) in enumerate(zip(pictures, seen, strict=True)):
        values = {
            "l1": metrics.l1(picture, row.truth), "psnr": metrics.psnr_db(picture, row.truth),
            "ssim": metrics.ssim(picture, row.truth), "lpips": far[k],
            "mouth": metrics.l1(picture, row.truth, row.mouth),
            "seg_l1": metrics.l1(person[0][k], person[1][k]),
            "seg_psnr": metrics.psnr_db(person[0][k], person[1][k]),
            "seg_ssim": metrics.ssim(person[0][k], person[1][k]), "seg_lpips": seg_far[k],
        }  # fmt: skip
        for net, describe in tools.describe.items():
            both = [describe(_tensor(p), row.points_px) for p in (picture, row.truth)]
            values[f"csim_{net}"] = float((both[0] * both[1]).sum())
        rows.append(Row("self", name, row.item, subjects[row.item], "frame", row.pair, row.turn_deg, values))
    return Judged(rows, pooled(features), pooled(wanted))


def _person(picture: U8, matte: NDArray[np.float32]) -> U8:
    return np.round(picture * matte[..., None]).astype(np.uint8)


def _tensor(picture: U8) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
