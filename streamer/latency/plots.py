"""The report's plots, each as SVG for a light and for a dark page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.latency.summary import Summary, events_of, start_ns_of
from streamer.latency.trace import Trace

_MAX_TIMELINE_BINS = 400
_MAX_RATE_BINS = 120
_LOG_WHEN_MAX_OVER_P95 = 8.0
_FIGURE_IN = (4.6, 3.0)  # small, so that its text is still readable at a phone's width

# One colour per stage, the same in the table and in every plot, chosen to hold on white and on near-black.
STAGE_COLOURS = {
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
class Plot:
    """One picture of a trace; `draw` draws it on Matplotlib axes."""

    title: str
    note: str
    draw: Callable[[Any, Theme], None]

    def svg_uris(self) -> tuple[str, str]:
        """`data:` addresses of the picture for a light and for a dark page."""
        return _svg_uri(self.draw, _LIGHT), _svg_uri(self.draw, _DARK)


def plots_of(trace: Trace, summary: Summary) -> list[Plot]:
    """Everything that the report draws, in its order."""
    return [
        Plot("Where the time goes", _stage_note(summary), lambda ax, theme: _plot_stages(ax, theme, summary)),
        Plot(
            "Latency over time",
            "Line: median. Band: fastest to slowest frame. Ticks below: late frames, drops. Dashed: faults.",
            lambda ax, theme: _plot_timeline(ax, theme, trace),
        ),
        Plot(
            "Distribution",
            "Total latency of new pictures.",
            lambda ax, theme: _plot_histogram(ax, theme, trace, summary),
        ),
        Plot(
            "Dropped and late frames",
            "Per second. Dropped: replaced by a newer frame before it was used. Late: shown again.",
            lambda ax, theme: _plot_rates(ax, theme, trace),
        ),
    ]


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
    start_ns = start_ns_of(trace)
    points = sorted(
        ((f.shown_ns - start_ns) / 1e9, f.trace.total_ms())
        for f in trace.frames
        if f.fresh and len(f.trace.stamps_ns) > 1
    )
    both = np.array(points, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


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
            colour = STAGE_COLOURS[stage]
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
    start_ns = start_ns_of(trace)
    marks = (
        ("late", [f.shown_ns for f in trace.frames if not f.fresh], theme.warn, -0.03),
        ("dropped", [e.at_ns for e in events_of(trace, "drop")], theme.bad, -0.07),
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
    for index, fault_ns in enumerate(sorted({e.at_ns for e in events_of(trace, "fault")})[:200]):
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
    drops = [(e.at_ns, e.count) for e in events_of(trace, "drop")]
    late = [(f.shown_ns, 1) for f in trace.frames if not f.fresh]
    if not drops and not late:
        return _nothing(ax, "no frame was dropped or late")
    start_ns = start_ns_of(trace)
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
