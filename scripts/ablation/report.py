"""An ablation's table and plot: means, what each arm gains over another, and whether the paper says so too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from engines.files import whole_file
from scripts.ablation.plans import Ablation
from scripts.evaluation.bars import BY_KEY, Measure, Table
from scripts.evaluation.measure import Row
from scripts.evaluation.published import NOTE, PUBLISHED
from scripts.evaluation.statistics import Estimate, with_interval
from scripts.evaluation.take import BINS_DEG, Protocol, bin_of
from scripts.evaluation.variants import SOURCE_COPY

PLOTTED = ("lpips", "mouth")
_PROTOCOLS: tuple[Protocol, ...] = ("self", "cross")
_BINS = [bin_of(low) for low, _ in (*BINS_DEG, (BINS_DEG[-1][1], np.inf))]


def to_markdown(
    ablation: Ablation, rows: Sequence[Row], fids: Mapping[str, float], about: Sequence[str]
) -> list[str]:
    """Tables of one set of rows: means, differences, by turn of the head, and in which direction the paper's go.

    `fids`: of the arms by name.
    """
    table = Table(rows)
    lines = [*(f"- {line}" for line in about), ""]
    for protocol in _PROTOCOLS:
        measures = [m for m in table.measured(protocol) if m.better is not None]
        if measures:
            lines += [f"### Means, {protocol}", "", *_means(table, protocol, measures, fids), ""]
            lines += [
                f"### Differences, {protocol}",
                "",
                *_differences(ablation, table, protocol, measures),
                "",
            ]
    lines += ["### By how far the head is turned from the photo's", "", *_by_turn(table), ""]
    if ablation.paper is not None:
        lines += ["### In the paper's direction?", "", *_directions(ablation, table), ""]
    return lines


def _means(
    table: Table, protocol: Protocol, measures: Sequence[Measure], fids: Mapping[str, float]
) -> list[str]:
    heads = [_label(m) for m in measures] + ["FID-efflite0"] * (protocol == "self" and bool(fids))
    lines = [f"| | {' | '.join(heads)} | n / people |", "| --- |" + " ---: |" * (len(heads) + 1)]
    for arm in table.generators:
        found = [table.of(protocol, arm, m.key) for m in measures]
        most = max(found, key=lambda e: e.count)
        if not most.count:
            continue
        cells = [_interval(e, m.digits) for e, m in zip(found, measures, strict=True)]
        if len(heads) > len(measures):
            cells.append(f"{fids[arm]:.2f}" if arm in fids else "")
        lines.append(f"| {arm} | {' | '.join(cells)} | {most.count} / {most.subjects} |")
    return lines


def _differences(
    ablation: Ablation, table: Table, protocol: Protocol, measures: Sequence[Measure]
) -> list[str]:
    lines = [
        "Paired; bold where the 95 % interval over people excludes no difference.",
        "",
        f"| | less | {' | '.join(_label(m) for m in measures)} |",
        "| --- | --- |" + " ---: |" * len(measures),
    ]
    for arm, of in ablation.compared().items():
        found = [table.paired(protocol, m.key, arm, of) for m in measures]
        if not any(e.count for e in found):
            continue
        cells = [_signed(e, m.digits) for e, m in zip(found, measures, strict=True)]
        lines.append(f"| {arm} | {of} | {' | '.join(cells)} |")
    return lines


def _by_turn(table: Table) -> list[str]:
    lines = [
        "| measure | arm | " + " | ".join(_BINS) + " |",
        "| --- | --- |" + " ---: |" * len(_BINS),
    ]
    for key in PLOTTED:
        for arm in table.generators:
            found = [table.of("self", arm, key, name) for name in _BINS]
            if any(e.count for e in found):
                cells = [_interval(e, BY_KEY[key].digits) for e in found]
                lines.append(f"| {BY_KEY[key].label} | {arm} | {' | '.join(cells)} |")
    return lines


Direction = Literal[
    "as the paper", "as the paper, not certainly", "the other way, not certainly", "**the other way**"
]


def direction(printed: float, ours: Estimate) -> Direction:
    """Whether our difference has the sign of the printed one, and whether its interval excludes none."""
    if (printed < 0) == (ours.value < 0):
        return "as the paper" if ours.excludes(0) else "as the paper, not certainly"
    return "**the other way**" if ours.excludes(0) else "the other way, not certainly"


def _directions(ablation: Ablation, table: Table) -> list[str]:
    lines = [
        f"{ablation.paper}, {', '.join(ablation.tables)}. {NOTE}",
        "",
        "| arm | less | data of the paper | measure | printed | ours | |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    names = {arm.name: arm.printed for arm in ablation.arms}
    printed = [r for r in PUBLISHED if r.paper == ablation.paper and r.table in ablation.tables]
    for arm in ablation.arms:
        if arm.against is None or arm.printed is None:
            continue
        for row in printed:
            rest = [
                r for r in printed
                if (r.method, r.data, r.protocol) == (names[arm.against], row.data, row.protocol)
            ]  # fmt: skip
            if row.method != arm.printed or not rest:
                continue
            for figure, key in ablation.figures.items():
                ours = table.paired(row.protocol, key, arm.name, arm.against)
                if figure not in row.figures or not ours.count:
                    continue
                theirs = float(row.figures[figure]) - float(rest[0].figures[figure])
                lines.append(
                    f"| {arm.name} | {arm.against} | {row.data}, {row.protocol} | {figure} | {theirs:+.4g} "
                    f"| {_signed(ours, BY_KEY[key].digits)} | {direction(theirs, ours)} |"
                )
    return lines


def _label(m: Measure) -> str:
    return (
        f"{m.label} ({m.unit}) {'↓' if m.better == 'low' else '↑'}"
        if m.unit
        else f"{m.label} {'↓' if m.better == 'low' else '↑'}"
    )


def _interval(e: Estimate, digits: int) -> str:
    if not e.count:
        return ""
    return f"{e.value:.{digits}f}" + (
        f" [{e.low:.{digits}f}, {e.high:.{digits}f}]" if np.isfinite(e.low) else ""
    )


def _signed(e: Estimate, digits: int) -> str:
    if not e.count:
        return ""
    text = with_interval(e, digits)
    return f"**{text}**" if e.excludes(0) else text


def plot(ablation: Ablation, rows: Sequence[Row], path: Path) -> None:
    """Of each measure in `PLOTTED`: differences with their intervals, and the curve over how far the head is turned."""
    from matplotlib.figure import Figure

    table = Table(rows)
    shown = [BY_KEY[key] for key in PLOTTED if key in {m.key for m in table.measured("self")}]
    figure = Figure(figsize=(11, 3.4 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for (left, right), m in zip(axes, shown, strict=True):
        found = [
            (f"{arm} − {of}", table.paired("self", m.key, arm, of)) for arm, of in ablation.compared().items()
        ]
        found = [(name, e) for name, e in found if e.count]
        for y, (_, e) in enumerate(found):
            left.plot([e.low, e.high], [y, y], color="tab:blue")
            left.plot([e.value], [y], "o", color="tab:blue")
        left.axvline(0, color="grey", linewidth=0.8)
        left.set_yticks(range(len(found)), [name for name, _ in found])
        left.invert_yaxis()
        left.locator_params(axis="x", nbins=5)
        left.set_xlabel(f"difference of {_label(m)}, 95 % over people")
        for arm in [*table.generators]:
            curve = [(k, table.of("self", arm, m.key, name)) for k, name in enumerate(_BINS)]
            curve = [(k, e) for k, e in curve if e.count]
            style = {"color": "grey", "linestyle": ":"} if arm == SOURCE_COPY else {}
            right.errorbar(
                [k for k, _ in curve], [e.value for _, e in curve],
                yerr=np.nan_to_num([[e.value - e.low for _, e in curve], [e.high - e.value for _, e in curve]]),
                label=arm, capsize=2, linewidth=1, **style,
            )  # fmt: skip
        right.set_xticks(range(len(_BINS)), _BINS)
        right.set_xlabel("turn of the head from the photo's")
        right.set_ylabel(_label(m))
        right.legend(fontsize=7)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)
