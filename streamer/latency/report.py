"""A trace as one HTML file with tables and plots that needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path

from streamer.latency.plots import STAGE_COLOURS, Plot, plots_of
from streamer.latency.summary import Summary, events_of, summarise
from streamer.latency.trace import Trace, write_export

_MAX_FAULT_ROWS = 20


def write_report(trace: Trace, out: Path) -> None:
    """Write one HTML file that needs nothing but itself; raises TraceError when it cannot be written.

    The file appears under its name only when it is whole.
    """
    summary = summarise(trace)
    figures = "\n".join(_figure_html(plot) for plot in plots_of(trace, summary))
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
    write_export(out, page.encode("utf-8", "replace"))


def _figure_html(plot: Plot) -> str:
    light, dark = plot.svg_uris()
    title, note = escape(plot.title), escape(plot.note)
    return (
        f"<figure><figcaption><h2>{title}</h2><p>{note}</p></figcaption><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{title}" src="{light}"></picture></figure>'
    )


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
    rows = [(s, STAGE_COLOURS[s], p) for s, p in summary.stage_ms.items()]
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
    for event in events_of(trace, "fault"):
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
