"""The command that reads a trace: `latency`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.files import require_apart
from streamer.cli.terminal import err, say_note
from streamer.places import input_file, output_file


def latency(
    trace: Annotated[Path, typer.Argument(help="A trace from --trace.", parser=input_file)],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The report to write (default: TRACE.html).",
            parser=output_file,
        ),
    ] = None,
    perfetto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a Perfetto trace (.json).", parser=output_file),
    ] = None,
) -> None:
    """Draw a latency report from a trace: one HTML file with plots.

    Example: `visavis latency trace.jsonl -o report.html`
    """
    from streamer.latency.perfetto import write_perfetto
    from streamer.latency.report import write_report
    from streamer.latency.summary import summarise
    from streamer.latency.trace import read_trace

    target = output or trace.with_suffix(".html")
    require_apart({"-o": target, "--perfetto": perfetto}, {"the trace": trace})
    data = read_trace(trace)
    write_report(data, target)
    if perfetto:
        write_perfetto(data, perfetto)
    for notice in data.notices:
        say_note(notice)
    summary = summarise(data)
    total = summary.total_ms
    if total is not None:
        err.print(
            f"{summary.frames} frames, total p50 {total.p50:.1f} ms, p95 {total.p95:.1f} ms", highlight=False
        )
    print(target)
