"""All arms of an ablation judged and told: rows.csv, report.md and plot.png in its folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from engines.files import write_whole
from scripts.ablation.judge import Judged, Tools, judge
from scripts.ablation.plans import Ablation
from scripts.ablation.report import plot, to_markdown
from scripts.evaluation.features import PerceptualMeasure
from scripts.evaluation.measure import Row
from scripts.evaluation.report import write_csv
from scripts.evaluation.run import Config, evaluate
from scripts.evaluation.variants import SOURCE_COPY
from scripts.generators.judges import lent


def judge_all(
    number: str, ablation: Ablation, weights: Mapping[str, Path], out: Path, given: argparse.Namespace
) -> tuple[Path, Path]:
    """Report and plot, written. Raises TrainingError, WeightsError, EvaluationError."""
    tools = Tools(
        PerceptualMeasure(),
        lent(torch.device("cpu"), perceptual=False, recognition=given.recognition).describe,
    )
    judged: dict[str, Judged] = {}
    for name, path in weights.items():
        print(f"judging {name}", flush=True)
        judged |= judge(name, ablation.generator, path, given.pairs, given.rows, tools)
    rows = [row for name in (SOURCE_COPY, *weights) for row in judged[name].rows]
    people = len({row.subject for row in rows})
    about = [
        f"`{ablation.generator}`: {given.samples} samples an arm at {given.size} px; weights best by held-out people.",
        f"{len(judged[SOURCE_COPY].rows)} rows of {people} held-out people, the same for all: "
        "one person's own frames, through the head model; FID of as many pictures.",
    ]
    fids = {name: found.fid for name, found in judged.items()}
    lines = [f"# {number}: {ablation.title}", "", *to_markdown(ablation, rows, fids, about)]
    if given.clips is not None:
        lines += ["## Clips", "", *_on_clips(ablation, weights, given, out)]
    write_csv(rows, out / "rows.csv")
    write_whole(out / "report.md", "\n".join(lines) + "\n")
    plot(ablation, rows, out / "plot.png")
    return out / "report.md", out / "plot.png"


def _on_clips(
    ablation: Ablation, weights: Mapping[str, Path], given: argparse.Namespace, out: Path
) -> list[str]:
    """The same by the whole evaluation, with what a test-time switch does. Raises EvaluationError."""
    tested = {name: f"{of}{end}" for name, (of, end) in ablation.at_test_time.items() if of in weights}
    config = Config(
        data=given.clips, out=out / "clips", generators=(SOURCE_COPY, *weights, *tested.values()), weights=weights,
        recognition=given.recognition,
    )  # fmt: skip
    results = evaluate(config)
    called = {generator: name for name, generator in tested.items()}
    rows = [
        Row(
            r.protocol,
            called.get(r.generator, r.generator),
            r.take,
            r.subject,
            r.kind,
            r.frame,
            r.turn_deg,
            r.values,
        )
        for r in results.rows
    ]
    return to_markdown(ablation, rows, {}, [*results.about, *results.skipped])
