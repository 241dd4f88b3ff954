"""A trace as something to look at: one HTML file with plots, or JSON for the Perfetto viewer."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.frame import STAGES
from streamer.latency.metrics import Percentiles, percentiles
from streamer.latency.trace import EventRecord, Trace, TraceError

_MAX_TIMELINE_BINS = 400
_MAX_RATE_BINS = 120
_MAX_FAULT_ROWS = 20
_LOG_WHEN_MAX_OVER_P95 = 8.0
_FIGURE_IN = (4.6, 3.0)  # small, so that its text is still readable at a phone's width

# One colour per stage, the same in the table and in every plot, chosen to hold on white and on near-black.
_STAGE_COLOURS = {
    "captured": "#8a8f98",
    "received": "#7a6ff0",
    "decoded": "#3d8bd9",
    "tracked": "#23a6a6",
    "waited": "#5f7183",
    "fitted": "#2f9e5b",
    "rasterised": "#8fae2b",
    "generated": "#e0a526",
    "composited": "#e8743b",
    "encoded": "#d6486f",
    "sent": "#a860c4",
    "presented": "#9c7a5b",
}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of plots that lie on a light or a dark page."""

    ink: str
    faint: str
    surface: str
    line: str
    bad: str
    warn: str


_LIGHT = Theme(
    ink="#1f2430", faint="#c9ced6", surface="#ffffff", line="#2f6fd0", bad="#c62f3b", warn="#b77700"
)
_DARK = Theme(
    ink="#e3e6ec", faint="#434a57", surface="#1b1f27", line="#6aa5ff", bad="#ff6b74", warn="#f0b13c"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the report's tables say; times in ms, over new pictures only.

    `fps` is new pictures per second between the first and the last shown frame, 0 with fewer than two.
    """

    frames: int
    late: int
    seconds: float
    fps: float
    total_ms: Percentiles | None
    stage_ms: dict[str, Percentiles]
    dropped: dict[str, int]
    faults: int


def summarise(trace: Trace) -> Summary:
    """The whole run in numbers."""
    start_ns = _start_ns(trace)
    seconds = (max((f.shown_ns for f in trace.frames), default=start_ns) - start_ns) / 1e9
    fresh = [f for f in trace.frames if f.fresh]
    timed = [f.trace for f in fresh if len(f.trace.stamps_ns) > 1]
    per_frame = [t.stage_ms() for t in timed]
    stages = {s: percentiles(ms[s] for ms in per_frame if s in ms) for s in STAGES}
    dropped: Counter[str] = Counter()
    for event in _of_kind(trace, "drop"):
        dropped[event.stage] += event.count
    # The frame that starts the clock is not part of the time it starts, when it is a new picture.
    counted = sum(1 for f in fresh if f.shown_ns > start_ns)
    return Summary(
        frames=len(trace.frames),
        late=len(trace.frames) - len(fresh),
        seconds=seconds,
        fps=counted / seconds if seconds > 0 else 0.0,
        total_ms=percentiles(t.total_ms() for t in timed),
        stage_ms={s: p for s, p in stages.items() if p is not None},
        dropped=dict(dropped),
        faults=sum(e.count for e in _of_kind(trace, "fault")),
    )


def write_report(trace: Trace, out: Path) -> None:
    """Write one HTML file that needs nothing but itself; raises TraceError when it cannot be written.

    The file appears under its name only when it is whole.
    """
    summary = summarise(trace)
    plots = [
        ("Where the time goes", _stage_note(summary), lambda ax, theme: _plot_stages(ax, theme, summary)),
        (
            "Latency over time",
            "Line: median. Band: fastest to slowest frame. Ticks below: late frames, drops. Dashed: faults.",
            lambda ax, theme: _plot_timeline(ax, theme, trace),
        ),
        (
            "Distribution",
            "Total latency of new pictures.",
            lambda ax, theme: _plot_histogram(ax, theme, trace, summary),
        ),
        (
            "Dropped and late frames",
            "Per second. Dropped: replaced by a newer frame before it was used. Late: shown again.",
            lambda ax, theme: _plot_rates(ax, theme, trace),
        ),
    ]
    figures = "\n".join(_figure_html(title, note, draw) for title, note, draw in plots)
    page = _PAGE.format(
        title=escape(f"visavis latency: {trace.name}"),
        name=escape(trace.name),
        started=escape(trace.started_utc),
        notices="".join(f'<p class="notice">{escape(n)}</p>' for n in trace.notices),
        tiles=_tiles_html(summary),
        stages=_stages_html(summary),
        figures=figures,
        drops=_drops_html(summary),
        faults=_faults_html(trace),
    )
    # A trace may hold lone surrogates (JSON allows them), which UTF-8 cannot carry.
    _write_whole(out, page.encode("utf-8", "replace"))


def write_perfetto(trace: Trace, out: Path) -> None:
    """Write the trace in Chrome's JSON format, for ui.perfetto.dev or chrome://tracing; as `write_report`.

    Stages are asynchronous slices, because two frames may be in one stage's queue at the same time, which
    slices of a thread cannot show.
    """

    def at_us(ns: int) -> float:
        return (ns - trace.started_ns) / 1e3

    common: dict[str, object] = {"pid": 1, "tid": 1}
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "process_name", "args": {"name": f"visavis {trace.name}"}, **common}
    ]
    for index, frame in enumerate(trace.frames):
        stamps = [(s, frame.trace.stamps_ns[s]) for s in STAGES if s in frame.trace.stamps_ns]
        args = {"sequence": frame.sequence, "pts_s": frame.pts_s, "fresh": frame.fresh}
        if not frame.fresh:
            # Its stamps are those of the picture that it repeats; drawing them again would be a lie.
            events.append(
                {"ph": "i", "name": "late", "s": "p", "ts": at_us(frame.shown_ns), "args": args, **common}
            )
            continue
        for (_, start_ns), (stage, end_ns) in itertools.pairwise(stamps):
            slice_ = {"cat": stage, "name": stage, "id": f"{stage}-{index}", **common}
            events.append({"ph": "b", "ts": at_us(start_ns), "args": args, **slice_})
            events.append({"ph": "e", "ts": at_us(max(end_ns, start_ns)), **slice_})
        if len(stamps) > 1:
            total = {"total_ms": frame.trace.total_ms()}
            events.append(
                {"ph": "C", "name": "latency", "ts": at_us(frame.shown_ns), "args": total, **common}
            )
    for event in trace.events:
        args = {"stage": event.stage, "count": event.count, "message": event.message}
        events.append(
            {"ph": "i", "name": event.kind, "s": "p", "ts": at_us(event.at_ns), "args": args, **common}
        )
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"started_utc": trace.started_utc},
    }
    _write_whole(out, json.dumps(document, separators=(",", ":")).encode())


def _write_whole(out: Path, data: bytes) -> None:
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        try:
            part.write_bytes(data)
            part.replace(out)
        except BaseException:  # Ctrl-C too must leave no half file behind
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TraceError(
            f"cannot write {out}: {error.strerror or error}; name a file in a folder that exists, "
            "that you may write to and that has room"
        ) from error


def _of_kind(trace: Trace, kind: str) -> Iterator[EventRecord]:
    return (e for e in trace.events if e.kind == kind)


# ---- plots ----------------------------------------------------------------------------------------------


def _figure_html(title: str, note: str, draw: Callable[[Any, Theme], None]) -> str:
    light, dark = (_svg_uri(draw, theme) for theme in (_LIGHT, _DARK))
    return (
        f"<figure><figcaption><h2>{escape(title)}</h2><p>{escape(note)}</p></figcaption><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{escape(title)}" src="{light}"></picture></figure>'
    )


def _svg_uri(draw: Callable[[Any, Theme], None], theme: Theme) -> str:
    # Imported here: matplotlib takes most of a second, and only a report needs it. No pyplot, because its
    # global figure list and interactive backends have no place in a library.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "font.size": 9.5,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": theme.faint,
        "grid.linewidth": 0.5,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "svg.fonttype": "path",
        "svg.hashsalt": "visavis",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=_FIGURE_IN, layout="constrained")
        draw(figure.add_subplot(), theme)
        data = io.BytesIO()
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(data.getvalue()).decode()


def _nothing(ax: Any, text: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def _fresh_points(trace: Trace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(seconds since the first shown frame, total ms) of the new pictures, in time order."""
    start_ns = _start_ns(trace)
    points = sorted(
        ((f.shown_ns - start_ns) / 1e9, f.trace.total_ms())
        for f in trace.frames
        if f.fresh and len(f.trace.stamps_ns) > 1
    )
    both = np.array(points, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _start_ns(trace: Trace) -> int:
    return min((f.shown_ns for f in trace.frames), default=trace.started_ns)


def _stage_note(summary: Summary) -> str:
    note = "Each stage's own p50 and p95, end to end."
    if summary.total_ms is not None:
        note += (
            f" A p95 bar is longer than the total's p95 ({summary.total_ms.p95:.1f} ms) "
            "when the stages are not slow in the same frames."
        )
    return note


def _plot_stages(ax: Any, theme: Theme, summary: Summary) -> None:
    if not summary.stage_ms:
        return _nothing(ax, "no stage was timed")
    longest = sum(p.p95 for p in summary.stage_ms.values())
    for row, quantile in enumerate(("p95", "p50")):
        left = 0.0
        for stage, p in summary.stage_ms.items():
            width = max(float(getattr(p, quantile)), 0.0)
            colour = _STAGE_COLOURS[stage]
            label = stage if row == 0 else None
            ax.barh(row, width, 0.6, left, color=colour, edgecolor=theme.surface, linewidth=0.8, label=label)
            if longest > 0 and width / longest > 0.07:
                ax.text(
                    left + width / 2,
                    row,
                    f"{width:.1f}",
                    ha="center",
                    va="center",
                    color="#10131a",
                    fontsize=8,
                )
            left += width
        ax.text(left, row, f" {left:.1f}", ha="left", va="center")
    ax.set_yticks([0, 1], ["p95", "p50"])
    ax.set_xlim(0, longest * 1.12 or 1)
    ax.set_xlabel("ms")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.figure.legend(loc="outside lower center", ncols=4, handlelength=0.9, columnspacing=1.0)


def _plot_timeline(ax: Any, theme: Theme, trace: Trace) -> None:
    at_s, total_ms = _fresh_points(trace)
    if at_s.size == 0:
        return _nothing(ax, "no frame was timed")
    # The extremes of a bin are drawn, so that no slow frame disappears however long the run was.
    bins = [b for b in np.array_split(np.arange(at_s.size), min(_MAX_TIMELINE_BINS, at_s.size)) if b.size]
    x = np.array([at_s[b].mean() for b in bins])
    middle, low, high = (np.array([f(total_ms[b]) for b in bins]) for f in (np.median, np.min, np.max))
    ax.fill_between(x, low, high, color=theme.line, alpha=0.3, linewidth=0)
    ax.plot(x, middle, color=theme.line, linewidth=1.2)
    if x.size == 1:
        ax.plot(x, middle, "o", color=theme.line, markersize=4)
    if float(high.max()) > _LOG_WHEN_MAX_OVER_P95 * float(np.percentile(total_ms, 95)) > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
    else:
        ax.set_ylim(bottom=0)
    start_ns = _start_ns(trace)
    marks = (
        ("late", [f.shown_ns for f in trace.frames if not f.fresh], theme.warn, -0.03),
        ("dropped", [e.at_ns for e in _of_kind(trace, "drop")], theme.bad, -0.07),
    )
    # Below the axis, where no frame can hide them.
    ax.tick_params(axis="x", pad=13)
    for label, times_ns, colour, y in marks:
        if times_ns:
            seconds = (np.array(times_ns, dtype=np.int64) - start_ns) / 1e9
            step_s = _step_s(seconds, at_s)
            seconds = np.unique(np.round(seconds / step_s)) * step_s
            ax.plot(
                seconds,
                np.full(seconds.size, y),
                "|",
                color=colour,
                markersize=5,
                transform=ax.get_xaxis_transform(),
                clip_on=False,
                label=label,
            )
    for index, fault_ns in enumerate(sorted({e.at_ns for e in _of_kind(trace, "fault")})[:200]):
        second = (fault_ns - start_ns) / 1e9
        ax.axvline(
            second, color=theme.bad, linewidth=1, linestyle=(0, (4, 2)), label=None if index else "fault"
        )
    ax.set_xlabel("seconds")
    ax.set_ylabel("total ms")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)


def _step_s(seconds: NDArray[np.float64], at_s: NDArray[np.float64]) -> float:
    """A raster about as fine as a mark is wide: thousands of marks on top of each other only cost bytes."""
    return max(float(max(seconds.max(), at_s.max()) - min(seconds.min(), 0.0)) / _MAX_TIMELINE_BINS, 1e-6)


def _plot_histogram(ax: Any, theme: Theme, trace: Trace, summary: Summary) -> None:
    _, total_ms = _fresh_points(trace)
    p = summary.total_ms
    if p is None:
        return _nothing(ax, "no frame was timed")
    # One stall of seconds would squeeze everything else into a single bar; it is named below the axis.
    limit = 1.15 * max(min(float(np.percentile(total_ms, 99.5)), 4 * p.p95), 0.0)
    beyond = int((total_ms > limit).sum())
    low, high = float(total_ms.min()), min(limit, float(total_ms.max()))
    if high - low < 1e-6:  # all alike, or a clock that went back: numpy needs bins of some width
        high = low + 1.0
    ax.hist(total_ms, bins=50, range=(low, high), color=theme.line, alpha=0.75)
    for name, value, style in (("p50", p.p50, "-"), ("p95", p.p95, "--"), ("p99", p.p99, ":")):
        ax.axvline(value, color=theme.ink, linewidth=1.2, linestyle=style, label=f"{name} {value:.1f} ms")
    margin = 0.03 * (high - low)
    ax.set_xlim(low - margin, high + margin)
    label = "total ms"
    if beyond:
        label += f"  ({beyond} beyond {limit:.0f} ms, slowest {total_ms.max():.0f} ms)"
    ax.set_xlabel(label)
    ax.set_ylabel("frames")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)


def _plot_rates(ax: Any, theme: Theme, trace: Trace) -> None:
    drops = [(e.at_ns, e.count) for e in _of_kind(trace, "drop")]
    late = [(f.shown_ns, 1) for f in trace.frames if not f.fresh]
    if not drops and not late:
        return _nothing(ax, "no frame was dropped or late")
    start_ns = _start_ns(trace)
    every_ns = [f.shown_ns for f in trace.frames] + [at for at, _ in drops]
    first_s, last_s = (min(every_ns) - start_ns) / 1e9, (max(every_ns) - start_ns) / 1e9
    width_s = max(1, math.ceil((last_s - first_s) / _MAX_RATE_BINS))
    edges = np.arange(math.floor(first_s), last_s + width_s + 1e-9, width_s)
    bottom = np.zeros(edges.size - 1)
    for label, items, colour in (("dropped", drops, theme.bad), ("late", late, theme.warn)):
        if not items:
            continue
        times = [(at - start_ns) / 1e9 for at, _ in items]
        rate = np.histogram(times, edges, weights=[float(n) for _, n in items])[0] / width_s
        ax.bar(edges[:-1], rate, width_s * 0.9, bottom, align="edge", color=colour, label=label)
        bottom += rate
    ax.set_xlabel("seconds")
    ax.set_ylabel("frames per second")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


# ---- tables ---------------------------------------------------------------------------------------------


def _tiles_html(summary: Summary) -> str:
    p = summary.total_ms
    tiles = [
        ("frames", f"{summary.frames}"),
        ("seconds", f"{summary.seconds:.1f}"),
        ("fps", f"{summary.fps:.1f}"),
        ("p50", f"{p.p50:.1f} ms" if p else "–"),
        ("p95", f"{p.p95:.1f} ms" if p else "–"),
        ("p99", f"{p.p99:.1f} ms" if p else "–"),
        ("dropped", f"{sum(summary.dropped.values())}"),
        ("late", f"{summary.late}"),
        ("faults", f"{summary.faults}"),
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)


def _stages_html(summary: Summary) -> str:
    if summary.total_ms is None:
        return "<p>No frame of this trace was timed.</p>"
    rows = [(s, _STAGE_COLOURS[s], p) for s, p in summary.stage_ms.items()]
    rows.append(("total", "transparent", summary.total_ms))
    body = "".join(
        f'<tr class="{name}"><th scope="row"><i style="background:{colour}"></i>{name}</th>'
        f"<td>{p.p50:.2f}</td><td>{p.p95:.2f}</td><td>{p.p99:.2f}</td><td>{p.count}</td></tr>"
        for name, colour, p in rows
    )
    head = "<th>stage</th><th>p50 ms</th><th>p95 ms</th><th>p99 ms</th><th>frames</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _drops_html(summary: Summary) -> str:
    if not summary.dropped:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th><td>{count}</td></tr>'
        for stage, count in sorted(summary.dropped.items(), key=lambda item: -item[1])
    )
    return (
        "<section><h2>Drops by stage</h2><table><thead><tr><th>before</th><th>frames</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _faults_html(trace: Trace) -> str:
    counts: Counter[tuple[str, str]] = Counter()
    for event in _of_kind(trace, "fault"):
        counts[event.stage, event.message] += event.count
    if not counts:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th><td class="text">{escape(message)}</td>'
        f"<td>{count}</td></tr>"
        for (stage, message), count in counts.most_common(_MAX_FAULT_ROWS)
    )
    more = len(counts) - _MAX_FAULT_ROWS
    rest = f"<p>and {more} other messages</p>" if more > 0 else ""
    return (
        '<section class="wide"><h2>Faults</h2><table><thead><tr><th>stage</th><th class="text">message</th>'
        f"<th>times</th></tr></thead><tbody>{rows}</tbody></table>{rest}</section>"
    )


# The policy lets the page load nothing and run nothing, whatever a trace smuggled into its text.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ --ink: #1f2430; --soft: #5b6473; --page: #f4f5f7; --card: #ffffff; --rule: #dfe2e8; }}
@media (prefers-color-scheme: dark) {{
:root {{ --ink: #e3e6ec; --soft: #9aa3b2; --page: #12151b; --card: #1b1f27; --rule: #323844; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--page); color: var(--ink);
 font: 1rem/1.45 system-ui, sans-serif; }}
h1 {{ margin: .2rem 0; font-size: 1.4rem; overflow-wrap: anywhere; }}
h2 {{ margin: 0 0 .2rem; font-size: 1.05rem; }}
p {{ margin: .2rem 0; color: var(--soft); font-size: .9rem; }}
.notice {{ color: var(--ink); border-left: .25rem solid #e0a526; padding-left: .6rem; }}
dl {{ display: grid; gap: .6rem; margin: 1rem 0;
 grid-template-columns: repeat(auto-fit, minmax(6.6rem, 1fr)); }}
dl > div, figure, section {{ background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; }}
dl > div {{ padding: .5rem .6rem; }}
dt {{ color: var(--soft); font-size: .85rem; }}
dd {{ margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }}
main {{ display: grid; gap: 1rem; align-items: start;
 grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }}
figure, section {{ margin: 0; padding: .9rem; min-width: 0; overflow-x: auto; }}
.wide {{ grid-column: 1 / -1; }}
img {{ display: block; width: 100%; height: auto; }}
table {{ width: 100%; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 500; }}
th, td {{ padding: .3rem .4rem; text-align: right; border-top: 1px solid var(--rule); }}
thead th {{ border-top: 0; color: var(--soft); font-weight: 500; }}
th:first-child, .text {{ text-align: left; overflow-wrap: break-word; }}
td.text {{ overflow-wrap: anywhere; }}
.total > * {{ font-weight: 600; }}
@media (max-width: 30rem) {{ body {{ padding: .6rem; }} figure, section {{ padding: .6rem; }}
 table {{ font-size: .85rem; }} th, td {{ padding: .3rem .15rem; }} }}
th i {{ display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: .15em; }}
</style>
</head>
<body>
<h1>Latency of {name}</h1>
<p>started {started} · times are server side, of new pictures; late frames repeat a picture and have none</p>
{notices}
<dl>{tiles}</dl>
<main>
<section><h2>Stages</h2>{stages}</section>
{figures}
{drops}
{faults}
</main>
</body>
</html>
"""
