"""The results as files: table.csv with every row, table.md with means, bars and bins."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scripts.evaluation import published
from scripts.evaluation.bars import BASELINE, BY_KEY, MEASURES, Measure, Table, Verdict
from scripts.evaluation.measure import Row
from scripts.evaluation.one_table import against, one_table
from scripts.evaluation.results import FIDS, Results
from scripts.evaluation.statistics import Estimate
from scripts.evaluation.take import BINS_DEG, Protocol, bin_of

TITLES: Mapping[Protocol, str] = {
    "self": "Self-reenactment: a clip's first frame driven by its other frames",
    "back": "Self-reenactment both ways round: backward, the frame turned most from that one is the photo",
    "cross": "Cross-identity: a photo driven by another person, relative motion",
}
BINNED = ("psnr", "head_psnr", "lpips", "mouth", "eyes", "akd", "aed", "aed_shape", "csim_faceres", "apd")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Every frame, run and take as a line; empty where a measure does not apply."""
    keys = [m.key for m in MEASURES if any(m.key in r.values for r in rows)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["protocol", "generator", "take", "subject", "kind", "frame", "turn_deg", "bin", *keys]
        )
        for r in rows:
            values = [f"{r.values[k]:.6g}" if np.isfinite(r.values.get(k, np.nan)) else "" for k in keys]
            writer.writerow(
                [
                    r.protocol,
                    r.generator,
                    r.take,
                    r.subject,
                    r.kind,
                    r.frame,
                    f"{r.turn_deg:.2f}" if np.isfinite(r.turn_deg) else "",
                    r.bin,
                    *values,
                ]
            )


def to_markdown(results: Results) -> str:
    """The whole report."""
    table = Table(results.rows)
    lines = ["# Evaluation", "", *(f"- {line}" for line in results.about), ""]
    lines += ["Means with 95 % intervals; whole people are drawn for them, because frames of one person are alike.",
              "Definitions: docs/evaluation.md.", ""]  # fmt: skip
    lines += ["## One table", "", *one_table(results, table), "", published.NOTE, ""]
    if BASELINE in table.generators:
        lines += [f"## Every measure less {BASELINE}'s, the same frames", "", *against(table), ""]
    for protocol, title in TITLES.items():
        measures = table.measured(protocol)
        if measures:
            means = _both_ways(table, measures) if protocol == "back" else _means(table, protocol, measures)
            lines += [f"## {title}", "", *means, ""]
    lines += ["## Cost and FID", "", *_costs(results), ""]
    for generator in table.generators:
        if generator != BASELINE and BASELINE in table.generators:
            lines += [f"## {generator} against {BASELINE}, the same frames", "", *_bars(table, generator), ""]
            lines += [
                f"### {generator} by head rotation between photo and driver",
                "",
                *_bins(table, generator),
                "",
            ]
    lines += ["## Means by head rotation between photo and driver", "", *_means_by_bin(table), ""]
    lines += ["## What papers print", "", *published.to_markdown()]
    if results.skipped:
        lines += ["", "## Left out", "", *(f"- {reason}" for reason in results.skipped)]
    return "\n".join(lines) + "\n"


def _interval(e: Estimate, digits: int) -> str:
    if not e.count:
        return ""
    if not np.isfinite(e.low):
        return f"{e.value:.{digits}f}"
    return f"{e.value:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]"


def _means(table: Table, protocol: Protocol, measures: Sequence[Measure]) -> list[str]:
    lines = [
        "| measure | better | " + " | ".join(table.generators) + " | n / people |",
        "| --- | --- |" + " ---: |" * (len(table.generators) + 1),
    ]
    for m in measures:
        found = [table.of(protocol, g, m.key) for g in table.generators]
        most = max(found, key=lambda e: e.count)
        cells = " | ".join(_interval(e, m.digits) for e in found)
        lines.append(f"| {_label(m)} | {_better(m)} | {cells} | {most.count} / {most.subjects} |")
    return lines


def _both_ways(table: Table, measures: Sequence[Measure]) -> list[str]:
    lines = [
        "Clips that are there in both directions, each counted once; the mean is of the two directions.",
        "",
        "| measure | better | direction | " + " | ".join(table.generators) + " | clips / people |",
        "| --- | --- | --- |" + " ---: |" * (len(table.generators) + 1),
    ]
    for m in measures:
        ways = [table.both_ways(g, m.key) for g in table.generators]
        for k, direction in enumerate(("forward", "backward", "mean")):
            cells = " | ".join(_interval(way[k], m.digits) for way in ways)
            most = max((way[k] for way in ways), key=lambda e: e.count)
            lines.append(
                f"| {_label(m)} | {_better(m)} | {direction} | {cells} | {most.count} / {most.subjects} |"
            )
    return lines


def _better(m: Measure) -> str:
    return {"low": "lower", "high": "higher", None: ""}[m.better]


def _label(m: Measure) -> str:
    return f"{m.label} ({m.unit})" if m.unit else m.label


def _costs(results: Results) -> list[str]:
    named = [name for name in FIDS if any(name in c.fids for c in results.costs.values())]
    titles = [f"FID-efflite0 ({FIDS[name]})" for name in named]
    lines = [
        "| "
        + " | ".join(
            ("generator", f"generate ms (median, {results.size_px}²)", "whole frame ms", "GFLOP", *titles)
        )
        + " |",
        "| --- | ---: | ---: | ---: |" + " ---: |" * len(titles),
    ]
    for name, c in results.costs.items():
        gflop = "not countable" if c.work is None else f"{c.work.frame_gflop:.2f}"
        fids = [
            f"{f.value:.2f} ({f.drawn} drawn, {f.real} real)" if f is not None else ""
            for f in (c.fids.get(key) for key in named)
        ]
        cells = [name, f"{c.generate_ms:.2f}", f"{c.frame_ms:.2f}", gflop, *fids]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _verdict(v: Verdict) -> list[str]:
    digits = 3 if v.bar.kind == "ratio" else BY_KEY[v.bar.key].digits + 1
    aim = "better" if v.bar.gain else "no worse"
    return [
        v.bar.protocol, f"{BY_KEY[v.bar.key].label}: {v.bar.text}", v.bar.kind,
        _interval(v.found, digits), "yes" if v.reached else "**no**",
        "yes" if v.excludes_none else "no", "yes" if v.certain else "no", aim,
    ]  # fmt: skip


def _bars(table: Table, generator: str) -> list[str]:
    lines = [
        "| protocol | bar | kind | paired value | reached | interval excludes no change "
        "| whole interval within the bar | aim |",
        "| --- | --- | --- | ---: | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(_verdict(v))} |" for v in table.verdicts(generator)]
    return lines


def _bins(table: Table, generator: str) -> list[str]:
    lines = [
        "| bin | protocol | measure | kind | paired value | n / people | worse? |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for name, verdicts in table.verdicts_by_bin(generator).items():
        for v in verdicts:
            digits = 3 if v.bar.kind == "ratio" else BY_KEY[v.bar.key].digits + 1
            worse = "no" if not v.worse else "**yes**" if v.excludes_none else "by the mean, not certainly"
            lines.append(
                f"| {name} | {v.bar.protocol} | {BY_KEY[v.bar.key].label} | {v.bar.kind} "
                f"| {_interval(v.found, digits)} | {v.found.count} / {v.found.subjects} | {worse} |"
            )
    return lines


def _means_by_bin(table: Table) -> list[str]:
    measures = [BY_KEY[k] for k in BINNED]
    lines = [
        "| protocol | bin | generator | n / people | " + " | ".join(m.label for m in measures) + " |",
        "| --- | --- | --- | ---: |" + " ---: |" * len(measures),
    ]
    for protocol in TITLES:
        for low, _ in (*BINS_DEG, (BINS_DEG[-1][1], np.inf)):
            for generator in table.generators:
                found = [(m, table.of(protocol, generator, m.key, bin_of(low))) for m in measures]
                most = max((e for _, e in found), key=lambda e: e.count)
                if most.count:
                    cells = " | ".join(f"{e.value:.{m.digits}f}" if e.count else "" for m, e in found)
                    lines.append(
                        f"| {protocol} | {bin_of(low)} | {generator} | {most.count} / {most.subjects} | {cells} |"
                    )
    return lines
