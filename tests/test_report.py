"""The latency report: the numbers are the trace's, the file is whole, harmless and needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from streamer.frame import LatencyTrace
from streamer.latency.perfetto import write_perfetto
from streamer.latency.report import write_report
from streamer.latency.summary import summarise
from streamer.latency.trace import EventRecord, FrameRecord, Trace, TraceError

MS = 1_000_000
START_NS = 10**12


def frame_of(
    number: int, *, generated_ms: float = 12, fresh: bool = True, period_ms: float = 40
) -> FrameRecord:
    shown_ns = START_NS + round(number * period_ms * MS)
    generated_ns = shown_ns - 2 * MS
    tracked_ns = generated_ns - round(generated_ms * MS)
    stamps = {
        "captured": tracked_ns - 8 * MS,
        "tracked": tracked_ns,
        "generated": generated_ns,
        "sent": shown_ns,
    }
    return FrameRecord(number, number * 0.04, stamps["captured"], LatencyTrace(stamps), fresh, shown_ns)


def trace_of(frames: list[FrameRecord], events: tuple[EventRecord, ...] = (), name: str = "t.jsonl") -> Trace:
    return Trace(name, "2030-01-01T00:00:00Z", START_NS - MS, tuple(frames), events)


BUSY = trace_of(
    [frame_of(n, generated_ms=10 + n % 10, fresh=n % 25 != 24) for n in range(101)],
    (
        EventRecord("drop", "tracked", START_NS + 500 * MS, 3),
        EventRecord("drop", "generated", START_NS + 900 * MS, 1),
        EventRecord("fault", "generated", START_NS + 1000 * MS, 1, "RuntimeError: out of memory"),
        EventRecord("fault", "generated", START_NS + 1100 * MS, 1, "RuntimeError: out of memory"),
    ),
)


class Page(HTMLParser):
    """Collects what a test wants to know of a page; every tag must be closed in order."""

    VOID = frozenset(("meta", "img", "source"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"


def page_of(trace: Trace, folder: Path) -> Page:
    out = folder / "report.html"
    write_report(trace, out)
    assert [p.name for p in folder.iterdir()] == ["report.html"], "no temporary file may stay behind"
    return Page(out.read_text())


def test_summary_is_the_traces() -> None:
    summary = summarise(BUSY)
    totals = [20.0 + n % 10 for n in range(101) if n % 25 != 24]
    assert summary.frames == 101
    assert summary.late == 4
    assert summary.seconds == pytest.approx(4.0)
    assert summary.fps == pytest.approx(24.0)
    assert summary.total_ms is not None
    assert (summary.total_ms.p50, summary.total_ms.p95, summary.total_ms.p99) == pytest.approx(
        tuple(np.percentile(totals, (50, 95, 99)))
    )
    assert list(summary.stage_ms) == ["tracked", "generated", "sent"]
    assert summary.stage_ms["tracked"].p99 == pytest.approx(8.0)
    assert summary.dropped == {"tracked": 3, "generated": 1}
    assert summary.faults == 2


@pytest.mark.slow
def test_report_shows_the_numbers_and_needs_nothing_else(tmp_path: Path) -> None:
    page = page_of(BUSY, tmp_path)
    words = page.text.split("\n")
    for label, value in (
        ("frames", "101"),
        ("fps", "24.0"),
        ("dropped", "4"),
        ("late", "4"),
        ("faults", "2"),
    ):
        assert words[words.index(label) + 1] == value
    assert "RuntimeError: out of memory" in words
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    for link in page.links:
        svg = ElementTree.fromstring(base64.b64decode(link.partition(",")[2]))
        assert svg.tag.endswith("svg")
        assert len(list(svg.iter("{http://www.w3.org/2000/svg}path"))) > 5


@pytest.mark.slow
def test_whatever_a_trace_says_is_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)> {0} $x_1$ \ud800'
    events = (EventRecord("drop", evil, START_NS, 1), EventRecord("fault", evil, START_NS, 1, evil))
    trace = Trace(evil, evil, START_NS, tuple(BUSY.frames), events, notices=(evil,))
    page = page_of(trace, tmp_path)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert page.text.count("<script>alert(1)</script>") >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "frames",
    [
        [],
        [frame_of(0)],
        [frame_of(0), frame_of(1)],
        [frame_of(n, generated_ms=5) for n in range(3)],
        [frame_of(0, fresh=False)],
        [FrameRecord(0, None, None, LatencyTrace({}), True, START_NS)],
        [
            FrameRecord(n, None, None, LatencyTrace({"captured": 5, "sent": 5}), True, START_NS)
            for n in range(2)
        ],
        [FrameRecord(0, None, None, LatencyTrace({"captured": 9 * MS, "sent": 5}), True, START_NS)],
        [frame_of(n, generated_ms=5000 if n == 50 else 10) for n in range(100)],
    ],
    ids=[
        "none",
        "one",
        "two",
        "alike",
        "only-late",
        "unstamped",
        "no-time-passed",
        "clock-went-back",
        "one-stall",
    ],
)
def test_odd_traces_still_make_a_report(tmp_path: Path, frames: list[FrameRecord]) -> None:
    page = page_of(trace_of(frames, BUSY.events if len(frames) % 2 else ()), tmp_path)
    assert str(len(frames)) in page.text.split("\n")


@pytest.mark.slow
def test_a_long_trace_makes_a_report_hardly_bigger_than_a_short_one(tmp_path: Path) -> None:
    sizes: list[int] = []
    for count in (1_800, 36_000):
        frames = [frame_of(n, generated_ms=10 + n * 7 % 13, fresh=n % 9 != 0) for n in range(count)]
        events = tuple(EventRecord("drop", "tracked", f.shown_ns, 1) for f in frames[::5])
        out = tmp_path / f"{count}.html"
        write_report(trace_of(frames, events), out)
        sizes.append(out.stat().st_size)
    assert sizes[1] < 1.3 * sizes[0]
    assert sizes[1] < 2_000_000


@pytest.mark.slow
def test_a_report_that_cannot_be_written_says_so_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TraceError, match="folder that exists"):
        write_report(BUSY, tmp_path / "missing" / "r.html")
    out = tmp_path / "r.json"
    out.write_text("old")

    def cut_short(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    with pytest.raises(KeyboardInterrupt):
        write_perfetto(BUSY, out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_perfetto_slices_begin_and_end_where_the_stamps_do(tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    write_perfetto(BUSY, out)
    events = json.loads(out.read_text())["traceEvents"]
    begins = {e["id"]: e for e in events if e["ph"] == "b"}
    ends = {e["id"]: e for e in events if e["ph"] == "e"}
    assert len(begins) == 97 * 3
    assert begins.keys() == ends.keys()
    for key, begin in begins.items():
        assert (begin["cat"], begin["name"], begin["pid"]) == (
            ends[key]["cat"],
            ends[key]["name"],
            ends[key]["pid"],
        )
    first = BUSY.frames[0].trace.stamps_ns
    assert begins["generated-0"]["ts"] == pytest.approx((first["tracked"] - BUSY.started_ns) / 1e3)
    assert ends["generated-0"]["ts"] - begins["generated-0"]["ts"] == pytest.approx(10_000)
    instants = [e["name"] for e in events if e["ph"] == "i"]
    assert (instants.count("late"), instants.count("drop"), instants.count("fault")) == (4, 2, 2)
    assert len([e for e in events if e["ph"] == "C"]) == 97


def test_perfetto_never_ends_a_slice_before_it_began(tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    stamps = {"captured": START_NS + 5 * MS, "tracked": START_NS}
    write_perfetto(trace_of([FrameRecord(0, None, None, LatencyTrace(stamps), True, START_NS)]), out)
    times = {e["ph"]: e["ts"] for e in json.loads(out.read_text())["traceEvents"] if "ts" in e}
    assert times["e"] >= times["b"]


def test_perfetto_counts_how_far_sound_and_picture_are_apart(tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    stamps = LatencyTrace({"captured": START_NS})
    skews = (-12.5, None, 30.0)
    frames = [FrameRecord(k, None, None, stamps, True, START_NS + k * MS, s) for k, s in enumerate(skews)]
    write_perfetto(trace_of(frames), out)
    events = json.loads(out.read_text())["traceEvents"]
    found = [e for e in events if e["ph"] == "C" and e["name"] == "skew"]
    assert [e["args"]["skew_ms"] for e in found] == [-12.5, 30.0]
    assert found[1]["ts"] - found[0]["ts"] == pytest.approx(2000)


@pytest.mark.slow
def test_light_and_dark_pages_differ_only_in_colour(tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_report(BUSY, out)
    dark = re.findall(r'dark\)" srcset="data:image/svg\+xml;base64,([^"]+)"', out.read_text())
    light = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', out.read_text())
    assert len(dark) == len(light) == 4
    for a, b in zip(light, dark, strict=True):
        one, other = (re.sub(r"#[0-9a-f]{6}", "#", base64.b64decode(x).decode()) for x in (a, b))
        assert a != b
        assert len(one) == pytest.approx(len(other), rel=0.02)
