"""The evaluation itself: takes one by one, every generator on each, rows, pictures and report as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from engines.geometry import F64
from engines.head.model import load_head_model
from scripts.evaluation.clips import EvaluationError, find_clips, find_portraits, load_clips, spread_indices
from scripts.evaluation.cost import Work, opened_work, width_one, width_one_ms, work_of
from scripts.evaluation.eye import Eye
from scripts.evaluation.features import PerceptualMeasure, load_recognisers
from scripts.evaluation.judges import open_judges
from scripts.evaluation.measure import Drawn, Row, draw, measure
from scripts.evaluation.metrics import Gaussian, frechet_distance
from scripts.evaluation.pictures import DRIVER, PHOTO, TILES, flicker_strip, grid
from scripts.evaluation.protocols import cross_takes, pair_up, self_takes
from scripts.evaluation.report import to_markdown, write_csv
from scripts.evaluation.results import Cost, Fid, Results
from scripts.evaluation.take import Shot, Take
from scripts.evaluation.truth import Instruments, Truth, look_at_truth
from scripts.evaluation.variants import SOURCE_COPY, registered, variants

U8 = NDArray[np.uint8]
GRID_ROWS = 10
SHEET_ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to evaluate. `clips` None: all; `pairs` of the cross protocol (0: none); `frames` of each clip.

    `both_ways`: self-reenactment backward too. `second_head`: a head model that judges too, as users name it.
    `weights`: files to judge, by the names that they have among `generators`. `width_one_ms`: how long each takes as
    large as its paper has it.
    """

    data: Path
    out: Path
    generators: tuple[str, ...]
    clips: int | None = None
    frames: int = 24
    pairs: int = 24
    size_px: int = 256
    recognition: Path | None = None
    cache: Path = Path("runs/evaluation/tracks")
    everyone: bool = False
    both_ways: bool = False
    second_head: str | None = None
    weights: Mapping[str, Path] = field(default_factory=dict[str, Path])
    width_one_ms: bool = False


Pools = dict[str, list[F64]]


@dataclass
class _Tally:
    """What adds up over the takes. `drawn` and `real` hold the features of each FID by its name."""

    rows: list[Row]
    generate_ms: dict[str, list[float]]
    frame_ms: dict[str, list[float]]
    drawn: dict[str, Pools]
    real: Pools
    best: list[Mapping[str, U8]]
    reasons: dict[str, None]  # why figures are missing, each once

    @staticmethod
    def empty(generators: Sequence[str]) -> _Tally:
        return _Tally(
            [],
            {g: [] for g in generators},
            {g: [] for g in generators},
            {g: {} for g in generators},
            {},
            [],
            {},
        )


def evaluate(config: Config) -> Results:
    """Measure all generators and write table.csv, table.md, grid.png, sheets/, strips/ and tiles/ into `config.out`.

    Raises EvaluationError when there is nothing to evaluate on, GeneratorError for an unknown generator,
    WeightsError for one whose weights do not load, PerceptualError when the network is not installed, ModelError for a
    second head model that does not open.
    """
    model = load_head_model()
    with registered(config.generators, config.weights):
        # first of all: a generator whose weights do not load must not be judged by its fallback
        works = {name: opened_work(model, name) for name in config.generators if name != SOURCE_COPY}
        wide = {name: _width_one(name, config) for name in works}
        perceptual = PerceptualMeasure()
        recognisers, no_csim = load_recognisers(config.recognition)
        judges, no_second = open_judges(config.second_head)
        found = find_clips(config.data, everyone=config.everyone, count=config.clips)
        clips, skipped = load_clips(found, config.cache)
        if no_csim:
            skipped.append(f"CSIM: {no_csim}")
        if no_second:
            skipped.append(f"AED and APD by a second head model: {no_second}")
        portraits = find_portraits(config.data, everyone=config.everyone)
        pairs = pair_up(clips, portraits, config.pairs) if config.pairs else []
        for part in ("sheets", "strips"):
            (config.out / part).mkdir(parents=True, exist_ok=True)
        tally = _Tally.empty(config.generators)
        tools = Instruments(Eye(model, recognisers), perceptual, judges)

        def takes() -> Iterator[Take]:
            own = self_takes(model, clips, config.frames, config.size_px, skipped, config.both_ways)
            yield from own
            yield from cross_takes(model, pairs, max(1, config.frames // 2), config.size_px, skipped)

        total = len(clips) * (1 + config.both_ways) + len(pairs)
        try:
            for take in tqdm(takes(), total=total, desc="evaluating", mininterval=5):
                _evaluate_take(take, config, tools, tally)
        finally:
            tools.eye.close()
    skipped += tally.reasons
    if not tally.rows:
        raise EvaluationError(f"nothing could be evaluated: {'; '.join(skipped)}")
    subjects = len({c.subject for c in clips})
    results = Results(
        rows=tally.rows,
        costs={
            g: _cost(g, works.get(g, Work(0.0, 0.0, 0.0)), wide.get(g, (None, None)), tally)
            for g in config.generators
        },
        size_px=config.size_px,
        about=(
            f"{len(clips)} clips of {subjects} {'people' if config.everyone else 'held-out people'}, "
            f"{config.frames} frames of each and two runs of 8; {len(pairs)} cross-identity pairs, "
            f"{max(1, config.frames // 2)} frames of each and one run; {config.size_px}².",
            "LPIPS-efflite0 and FID-efflite0: EfficientNet-Lite0 (ImageNet) in place of VGG and Inception.",
            f"CSIM: {', '.join(r.spec.name for r in recognisers) or 'left out: ' + no_csim}.",
            "AED-arkit52: our own fit of 52 coefficients to MediaPipe's landmarks. AKD-mediapipe: 468 landmarks.",
            f"Second opinions on AED and APD: {'; '.join(j.about for j in judges)}.",
        ),
        skipped=skipped,
    )
    write_csv(results.rows, config.out / "table.csv")
    (config.out / "table.md").write_text(to_markdown(results), encoding="utf-8")
    rows = [tally.best[k] for k in spread_indices(len(tally.best), GRID_ROWS)]
    Image.fromarray(grid(rows)).save(config.out / "grid.png")
    return results


def _evaluate_take(take: Take, config: Config, tools: Instruments, tally: _Tally) -> None:
    truth = look_at_truth(take, tools)
    if truth.no_matte:
        tally.reasons[f"figures of the person only: {truth.no_matte}"] = None
    for name, features in truth.pools.items():
        tally.real.setdefault(name, []).append(features)
    drawn: dict[str, Drawn] = {}
    for generator in config.generators:
        drawn[generator] = draw(take, generator, config.size_px)
        measured = measure(take, generator, drawn[generator], truth, tools)
        tally.rows += measured.rows
        tally.generate_ms[generator] += drawn[generator].generate_ms
        tally.frame_ms[generator] += drawn[generator].frame_ms
        for name, features in measured.pools.items():
            tally.drawn[generator].setdefault(name, []).append(features)
    tools.eye.forget()
    shots = telling_shots(take, truth)
    rows = [_tiles(take, shot, drawn) for shot in shots]
    tally.best.append(rows[0])
    name = f"{take.protocol}-{take.name}.png"
    Image.fromarray(grid(rows)).save(config.out / "sheets" / name)
    folder = config.out / TILES / f"{take.protocol}-{take.name}"
    folder.mkdir(parents=True, exist_ok=True)
    best = {g: d.pictures[shots[0].number] for g, d in drawn.items()}
    for of, picture in {PHOTO: take.photo, DRIVER: shots[0].driver, **best}.items():
        Image.fromarray(picture).save(folder / f"{of}.png")
    if take.runs:
        run = take.runs[0]
        lines = {g: [d.pictures[s.number] for s in run] for g, d in drawn.items()}
        strip = flicker_strip({**lines, "real": [s.driver for s in run]})
        Image.fromarray(strip).save(config.out / "strips" / name)


def telling_shots(take: Take, truth: Truth, count: int = SHEET_ROWS) -> list[Shot]:
    """Up to `count` shots worth a look: mouth widest, head turned most, lips most closed, then others."""
    faces = truth.faces

    def gap(shot: Shot) -> float:
        face = faces[shot.number]
        return face.lip_gap if face is not None else 0.0

    shots = list(take.apart)
    order = [max(shots, key=gap), max(shots, key=lambda s: s.turn_deg), min(shots, key=gap), *shots]
    return list({s.number: s for s in order}.values())[:count]


def _tiles(take: Take, shot: Shot, drawn: Mapping[str, Drawn]) -> dict[str, U8]:
    return {
        "photo": take.photo,
        f"driver, turn {shot.turn_deg:.0f}°": shot.driver,
        **{name: d.pictures[shot.number] for name, d in drawn.items()},
    }


def _width_one(name: str, config: Config) -> tuple[Work | None, float | None]:
    """What it costs as large as its paper has it; nothing of a generator with a part left out."""
    blueprint = None if name in variants() else width_one(name)
    if blueprint is None:
        return None, None
    return work_of(blueprint), width_one_ms(name) if config.width_one_ms else None


def _cost(generator: str, work: Work | None, wide: tuple[Work | None, float | None], tally: _Tally) -> Cost:
    fids: dict[str, Fid] = {}
    for name, pool in tally.drawn[generator].items():
        ours, real = np.concatenate(pool), np.concatenate(tally.real[name])
        if min(len(ours), len(real)) >= 2:
            value = frechet_distance(Gaussian.of(ours), Gaussian.of(real))
            fids[name] = Fid(value, len(ours), len(real))
    return Cost(_median(tally.generate_ms[generator]), _median(tally.frame_ms[generator]), work, fids, *wide)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
