"""One table of everything: a row for each generator with what it reaches and costs, and papers' own rows below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.evaluation.bars import BASELINE, MEASURES, Measure, Table
from scripts.evaluation.published import PUBLISHED, Published
from scripts.evaluation.results import Cost, Results
from scripts.evaluation.statistics import Estimate, with_interval
from scripts.evaluation.take import Protocol
from scripts.evaluation.truth import TO_DRIVERS, TO_SOURCES

OTHER_DATA = "*other data*"
PROTOCOLS: Mapping[Protocol, str] = {"self": "self", "back": "backward", "cross": "cross"}
# as papers call them: (column, key of ours)
_SELF = (
    ("L1", "l1"), ("PSNR", "psnr"), ("SSIM", "ssim"), ("LPIPS", "lpips"), ("mouth L1", "mouth"), ("eye L1", "eyes"),
    ("CSIM", "csim_faceres"), ("AKD", "akd"), ("AED", "aed"), ("APD", "apd"),
)  # fmt: skip
_CROSS = (("CSIM", "csim_faceres"), ("AED", "aed"), ("APD", "apd"))
_FIDS = (("self", "FID"), (TO_SOURCES, "FID, to sources"), (TO_DRIVERS, "FID, to drivers"))


def one_table(results: Results, table: Table) -> list[str]:
    """Means of all generators with their costs, and what papers print of their own method, marked as other data."""
    columns = [
        *(f"self {name}" for name, _ in _SELF), "self FID",
        *(f"cross {name}" for name, _ in _CROSS), *(f"cross {name}" for _, name in _FIDS[1:]),
        "generate ms", "frame ms", "GFLOP a frame", "once", "kept MB",
        "GFLOP at width 1", "once at width 1", "ms at width 1",
    ]  # fmt: skip
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name, cost in results.costs.items():
        cells = [*_means(table, "self", name, _SELF), _fid(cost, "self")]
        cells += [*_means(table, "cross", name, _CROSS), *(_fid(cost, key) for key, _ in _FIDS[1:])]
        lines.append(f"| {name} | {' | '.join([*cells, *_costs(cost)])} |")
    blank = [""] * (len(columns) - len(_SELF) - 1 - len(_CROSS) - 2)
    for (paper, data, method), found in _theirs().items():
        own, cross = (found.get(protocol, {}) for protocol in ("self", "cross"))
        cells = [*(own.get(name, "") for name, _ in _SELF), own.get("FID", "")]
        cells += [*(cross.get(name, "") for name, _ in _CROSS), *_theirs_fid(paper, cross)]
        name = f"{OTHER_DATA}: {paper.partition(',')[0]}: {method}, {data}"
        lines.append(f"| {name} | {' | '.join([*cells, *blank])} |")
    return lines


def against(table: Table) -> list[str]:
    """Every measure of every generator less the baseline's, paired; bold where the interval excludes no change."""
    others = [g for g in table.generators if g != BASELINE]
    lines = [
        f"| protocol | measure | better | {' | '.join(others)} | n / people |",
        "| --- | --- | --- |" + " ---: |" * (len(others) + 1),
    ]
    for protocol, called in PROTOCOLS.items():
        for m in table.measured(protocol):
            found = [table.paired(protocol, m.key, g) for g in others]
            if not any(e.count for e in found):
                continue
            most = max(found, key=lambda e: e.count)
            better = {"low": "below 0", "high": "above 0", None: ""}[m.better]
            cells = " | ".join(_difference(e, m) for e in found)
            label = f"{m.label} ({m.unit})" if m.unit else m.label
            lines.append(f"| {called} | {label} | {better} | {cells} | {most.count} / {most.subjects} |")
    return lines


def _difference(e: Estimate, m: Measure) -> str:
    if not e.count:
        return ""
    text = with_interval(e, m.digits)
    if not e.excludes(0) or m.better is None:
        return text
    good = (e.value < 0) == (m.better == "low")
    return f"**{text}**" if good else f"**{text}** worse"


def _means(table: Table, protocol: Protocol, name: str, columns: Sequence[tuple[str, str]]) -> list[str]:
    digits = {m.key: m.digits for m in MEASURES}
    found = [(key, table.of(protocol, name, key)) for _, key in columns]
    return [f"{e.value:.{digits[key]}f}" if e.count else "" for key, e in found]


def _fid(cost: Cost, key: str) -> str:
    return f"{cost.fids[key].value:.2f}" if key in cost.fids else ""


def _costs(cost: Cost) -> list[str]:
    work, wide, ms = cost.work, cost.width_one, cost.width_one_ms
    found = ["not countable"] * 3
    if work is not None:
        found = [f"{work.frame_gflop:.2f}", f"{work.once_gflop:.2f}", f"{work.kept_mb:.1f}"]
    return [
        f"{cost.generate_ms:.2f}", f"{cost.frame_ms:.2f}", *found,
        *(("", "") if wide is None else (f"{wide.frame_gflop:.1f}", f"{wide.once_gflop:.1f}")),
        "" if ms is None else f"{ms:.0f}",
    ]  # fmt: skip


def _theirs() -> dict[tuple[str, str, str], dict[str, Mapping[str, str]]]:
    """What each paper prints of its own method, by paper, data and method, protocol by protocol."""
    out: dict[tuple[str, str, str], dict[str, Mapping[str, str]]] = {}
    for row in PUBLISHED:
        if _is_own(row):
            found = out.setdefault((row.paper, row.data, row.method), {})
            found[row.protocol] = {**found.get(row.protocol, {}), **row.figures}
    return out


def _is_own(row: Published) -> bool:
    if row.method.endswith("(FLAME)"):  # the same network judged once more
        return False
    return row.method == "theirs" or row.method.startswith(("PWM", "base", "default"))


def _theirs_fid(paper: str, figures: Mapping[str, str]) -> tuple[str, str]:
    """Under sources or drivers, as the paper has it; both blank for one that does not say."""
    value = figures.get("FID", "")
    if "Progressive" in paper:
        return value, ""
    return ("", value) if "IFaceUV" in paper else ("", "")
