"""The latency ledger: counts, percentiles, the trace file, and what it costs a frame."""

from __future__ import annotations

import errno
import json
import logging
import math
import threading
import time
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import AT_LAST_S
from prometheus_client import CollectorRegistry

from streamer.frame import LatencyTrace
from streamer.latency import trace as trace_module
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.latency.percentiles import QuantileSketch, percentiles
from streamer.latency.trace import TraceError, read_trace

MS = 1_000_000


class FakeClock:
    """A monotonic clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.ns = 1_000_000 * MS

    def __call__(self) -> int:
        return self.ns

    def advance_ms(self, ms: float) -> None:
        self.ns += round(ms * MS)


def trace_of(end_ns: int, **stages_ms: float) -> LatencyTrace:
    """A trace that was captured long enough before `end_ns` to spend these times in these stages."""
    at = end_ns - round(sum(stages_ms.values()) * MS)
    stamps = {"captured": at}
    for stage, ms in stages_ms.items():
        at += round(ms * MS)
        stamps[stage] = at
    return LatencyTrace(stamps)


def run_frames(
    ledger: Ledger, clock: FakeClock, count: int, *, period_ms: float = 40, **stages_ms: float
) -> None:
    for sequence in range(count):
        clock.advance_ms(period_ms)
        trace = trace_of(clock.ns, **stages_ms)
        ledger.frame(trace, sequence=sequence, pts_s=sequence * period_ms / 1e3, fresh=True)


def test_an_empty_ledger_claims_nothing() -> None:
    snapshot = Ledger(clock_ns=FakeClock()).snapshot()
    assert (snapshot.fps, snapshot.frames, snapshot.late, snapshot.faults) == (0.0, 0, 0, 0)
    assert snapshot.total_ms is None
    assert snapshot.run_total_ms is None
    assert snapshot.stage_ms == {}
    assert snapshot.last_fault is None


def test_fps_and_stage_times_of_a_steady_stream() -> None:
    clock = FakeClock()
    ledger = Ledger(window_s=2.0, clock_ns=clock)
    run_frames(ledger, clock, 251, tracked=8, generated=12.5)
    snapshot = ledger.snapshot()
    assert snapshot.fps == pytest.approx(25.0)
    assert snapshot.elapsed_s == pytest.approx(10.0)
    assert snapshot.total_ms is not None
    assert snapshot.total_ms.p50 == pytest.approx(20.5)
    assert snapshot.total_ms.count == 50
    assert snapshot.run_total_ms is not None
    assert snapshot.run_total_ms.count == 251
    assert list(snapshot.stage_ms) == ["tracked", "generated"]
    assert snapshot.stage_ms["generated"].p95 == pytest.approx(12.5)


def test_fps_is_right_before_the_window_is_full_and_falls_when_frames_stop() -> None:
    clock = FakeClock()
    ledger = Ledger(window_s=10.0, clock_ns=clock)
    run_frames(ledger, clock, 26, tracked=5)
    assert ledger.snapshot().fps == pytest.approx(25.0)
    clock.advance_ms(1000)
    assert ledger.snapshot().fps == pytest.approx(12.5)
    clock.advance_ms(20_000)
    snapshot = ledger.snapshot()
    assert snapshot.fps == 0.0
    assert snapshot.total_ms is None, "frames older than the window must not describe now"
    assert snapshot.run_total_ms is not None


def test_window_percentiles_are_numpys_and_forget_the_past() -> None:
    clock = FakeClock()
    ledger = Ledger(window_s=1.0, clock_ns=clock)
    run_frames(ledger, clock, 100, generated=500)
    values = [float(v) for v in np.random.default_rng(3).uniform(5, 80, 25)]
    for sequence, ms in enumerate(values):
        clock.advance_ms(40)
        ledger.frame(trace_of(clock.ns, generated=ms), sequence=sequence, pts_s=0.0, fresh=True)
    total = ledger.snapshot().total_ms
    assert total is not None
    assert (total.p50, total.p95, total.p99) == pytest.approx(
        tuple(np.percentile(values, (50, 95, 99))), abs=1e-5
    )


def test_a_late_frame_is_counted_but_has_no_latency() -> None:
    clock = FakeClock()
    ledger = Ledger(clock_ns=clock)
    run_frames(ledger, clock, 11, generated=10)
    stale = trace_of(clock.ns, generated=10)
    for _ in range(10):
        clock.advance_ms(40)
        ledger.frame(stale.mark("sent", clock.ns), sequence=10, pts_s=0.4, fresh=False)
    snapshot = ledger.snapshot()
    assert (snapshot.frames, snapshot.late) == (21, 10)
    assert snapshot.fps == pytest.approx(12.5)
    assert snapshot.shown_fps == pytest.approx(25.0)
    assert snapshot.run_total_ms is not None
    assert snapshot.run_total_ms.count == 11
    assert "sent" not in snapshot.stage_ms


def test_a_frame_without_two_stamps_does_not_pull_the_latency_down() -> None:
    clock = FakeClock()
    ledger = Ledger(clock_ns=clock)
    for stamps in ({}, {"captured": clock.ns}):
        ledger.frame(LatencyTrace(stamps), sequence=0, pts_s=0.0, fresh=True)
    snapshot = ledger.snapshot()
    assert snapshot.frames == 2
    assert snapshot.total_ms is None


def test_drops_and_faults_are_counted_by_stage() -> None:
    ledger = Ledger(clock_ns=FakeClock())
    ledger.dropped(stage="tracked")
    ledger.dropped(3, stage="generated")
    ledger.dropped(0, stage="encoded")
    ledger.fault("generated", RuntimeError("out of\nmemory"))
    ledger.fault("tracked", ValueError("NaN landmarks"))
    snapshot = ledger.snapshot()
    assert snapshot.dropped == {"tracked": 1, "generated": 3}
    assert snapshot.faults == 2
    assert snapshot.fault_stages == {"generated": 1, "tracked": 1}
    assert snapshot.last_fault == "tracked: ValueError: NaN landmarks"
    with pytest.raises(ValueError, match="negative"):
        ledger.dropped(-1, stage="tracked")


def test_an_error_that_cannot_be_printed_is_still_counted() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    ledger = Ledger(clock_ns=FakeClock())
    ledger.fault("generated", Mute())
    ledger.fault("generated", RuntimeError("x" * 10_000))
    snapshot = ledger.snapshot()
    assert snapshot.faults == 2
    assert snapshot.last_fault is not None
    assert len(snapshot.last_fault) < 600


@pytest.mark.parametrize("window_s", [0.0, -1.0, math.nan])
def test_a_window_must_have_a_length(window_s: float) -> None:
    with pytest.raises(ValueError, match="window_s"):
        Ledger(window_s=window_s)


def test_sketch_is_within_half_a_percent_of_exact_and_takes_any_value() -> None:
    values = [float(v) for v in np.random.default_rng(5).lognormal(3, 1, 20_000)]
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    got = sketch.percentiles()
    assert got is not None
    exact = np.percentile(values, (50, 95, 99), method="inverted_cdf")
    assert (got.p50, got.p95, got.p99) == pytest.approx(tuple(exact), rel=0.0051)
    edge = QuantileSketch()
    for value in (-5.0, 0.0, 1e12):
        edge.add(value)
    result = edge.percentiles()
    assert result is not None
    assert result.count == 3
    assert result.p50 < 0.01
    assert result.p99 > 0.9e6
    twin = edge.copy()
    twin.add(1.0)
    after = edge.percentiles()
    assert after is not None
    assert after.count == 3


def test_percentiles_of_nothing_is_none() -> None:
    assert percentiles([]) is None


def test_trace_file_round_trip(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "t.jsonl"
    with Ledger(trace_path=path, clock_ns=clock) as ledger:
        started_ns = clock.ns
        run_frames(ledger, clock, 3, tracked=8, generated=12)
        ledger.dropped(2, stage="tracked")
        ledger.fault("generated", RuntimeError('say "no"'))
        ledger.frame(LatencyTrace({}), sequence=9, pts_s=math.nan, fresh=False)
        ledger.frame(LatencyTrace({"decoded": 5}), sequence=int(np.int64(10)), pts_s=0.5, fresh=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] | {"started_utc": ""} == {
        "format": "visavis-trace",
        "version": 1,
        "started_utc": "",
        "started_ns": started_ns,
    }
    assert set(lines[1]) == {"seq", "pts_s", "capture_ns", "stamps_ns", "fresh", "ns"}
    trace = read_trace(path)
    assert trace.notices == ()
    assert [f.sequence for f in trace.frames] == [0, 1, 2, 9, 10]
    assert trace.frames[1].trace.stage_ms() == pytest.approx({"tracked": 8, "generated": 12})
    assert trace.frames[1].pts_s == pytest.approx(0.04)
    assert trace.frames[1].capture_ns == trace.frames[1].trace.stamps_ns["captured"]
    assert (trace.frames[3].pts_s, trace.frames[3].capture_ns, trace.frames[3].fresh) == (None, None, False)
    assert trace.frames[4].capture_ns == 5, "the first stamp stands in where the camera's time is unknown"
    assert [(e.kind, e.stage, e.count, e.message) for e in trace.events] == [
        ("drop", "tracked", 2, ""),
        ("fault", "generated", 1, 'RuntimeError: say "no"'),
    ]


def test_numpy_numbers_do_not_break_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Ledger(trace_path=path) as ledger:
        ledger.frame(LatencyTrace({}), sequence=np.int64(4), pts_s=np.float32(0.5), fresh=True)  # type: ignore
    assert [f.sequence for f in read_trace(path).frames] == [4]


def test_counting_goes_on_after_close_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    ledger = Ledger(trace_path=tmp_path / "t.jsonl")
    ledger.close()
    ledger.close()
    ledger.frame(LatencyTrace({}), sequence=0, pts_s=0.0, fresh=True)
    assert ledger.snapshot().frames == 1
    assert read_trace(tmp_path / "t.jsonl").frames == ()


def test_close_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Ledger(trace_path=tmp_path / "t.jsonl"):
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_a_trace_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="name a file in a folder that exists"):
        Ledger(trace_path=tmp_path / "missing" / "t.jsonl")
    with pytest.raises(TraceError, match="directory"):
        Ledger(trace_path=tmp_path)


class BrokenFile:
    """A raw file that fails as a full disk does, after taking some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.closed = 0

    def write(self, data: memoryview) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(self.room, len(data))
        self.room -= taken
        return taken

    def close(self) -> None:
        self.closed += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_stops_the_trace_with_one_warning_never_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BrokenFile(room=300)
    monkeypatch.setattr(Path, "open", lambda *_args, **_kwargs: broken)
    caplog.set_level(logging.WARNING)
    with Ledger(trace_path=tmp_path / "t.jsonl") as ledger:
        for sequence in range(200):
            ledger.frame(LatencyTrace({"captured": 1, "sent": 2}), sequence=sequence, pts_s=0.0, fresh=True)
            deadline_s = time.monotonic() + AT_LAST_S
            while sequence == 100 and ledger.snapshot().trace_error is None:
                assert time.monotonic() < deadline_s, "nobody noticed that the disk is full"
                time.sleep(0.005)
        snapshot = ledger.snapshot()
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1, warnings
    assert "No space left on device" in warnings[0]
    assert snapshot.frames == 200
    assert snapshot.trace_lost > 0
    assert snapshot.trace_error is not None
    assert broken.closed == 1


def test_a_stalled_disk_never_blocks_the_call_and_its_lost_lines_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_module, "_MAX_PENDING_LINES", 10)
    go, path = threading.Event(), tmp_path / "t.jsonl"

    class SlowFile(FileIO):
        held = threading.Event()

        def write(self, data: Any, /) -> int:
            self.held.set()
            go.wait(AT_LAST_S)
            return super().write(data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, *_args, **_kwargs: SlowFile(self, "wb"))
        ledger = Ledger(trace_path=path)
    with ledger:
        assert SlowFile.held.wait(AT_LAST_S), "the writer never came with the header"
        for sequence in range(50):
            ledger.frame(LatencyTrace({}), sequence=sequence, pts_s=0.0, fresh=True)
        assert not go.is_set(), "a frame waited for the disk"
        lost = ledger.snapshot().trace_lost
        go.set()
    trace = read_trace(path)
    assert lost == 50 - len(trace.frames) > 0
    assert sum(e.count for e in trace.events if e.kind == "lost") == lost
    assert trace.notices == (f"{lost} lines are missing, because the disk was slower than the frames came",)


def test_a_file_that_takes_few_bytes_at_a_time_still_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StingyFile(FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(data[:7])

    path = tmp_path / "t.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, *_args, **_kwargs: StingyFile(self, "wb"))
        ledger = Ledger(trace_path=path)
    with ledger:
        for sequence in range(5):
            ledger.frame(LatencyTrace({}), sequence=sequence, pts_s=0.0, fresh=True)
    trace = read_trace(path)
    assert [f.sequence for f in trace.frames] == [0, 1, 2, 3, 4]
    assert trace.notices == ()


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    path, metrics = tmp_path / "t.jsonl", Metrics()

    def work(number: int) -> None:
        for i in range(200):
            ledger.frame(trace_of(10**12, tracked=5), sequence=number * 1000 + i, pts_s=0.0, fresh=i % 2 == 0)
            ledger.dropped(stage="tracked")
            if i % 20 == 0:
                ledger.snapshot()

    with Ledger(trace_path=path, metrics=metrics) as ledger:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        snapshot = ledger.snapshot()
    assert (snapshot.frames, snapshot.late, snapshot.dropped) == (800, 400, {"tracked": 800})
    trace = read_trace(path)
    assert len({f.sequence for f in trace.frames}) == 800
    assert len(trace.events) == 800


GOOD_HEADER = '{"format":"visavis-trace","version":1,"started_utc":"2030-01-01T00:00:00Z","started_ns":5}\n'
GOOD_FRAME = (
    '{"seq":1,"pts_s":0.0,"capture_ns":5,"stamps_ns":{"captured":5,"sent":9},'  # one line of the file
    '"fresh":true,"ns":9}\n'
)


@pytest.mark.parametrize("cut", range(1, len(GOOD_FRAME) - 2, 7))
def test_a_last_line_cut_short_is_left_out_with_a_notice(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(GOOD_HEADER + GOOD_FRAME + GOOD_FRAME[:cut])
    trace = read_trace(path)
    assert len(trace.frames) == 1
    assert trace.notices == ("line 3, the last, is cut short and was left out",)


def test_a_last_line_without_its_newline_still_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(GOOD_HEADER + GOOD_FRAME.rstrip())
    trace = read_trace(path)
    assert len(trace.frames) == 1
    assert trace.notices == ()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json\n", "not JSON"),
        ("\n", "not JSON"),
        ("[1]\n", "not a JSON object"),
        ("[" * 100_000 + "\n", "nested too deep|not JSON"),
        ("\udcff\n", "not JSON"),
        ("{}\n", "'stamps_ns'"),
        (GOOD_FRAME.replace('"seq":1', '"seq":"1"'), "'seq'"),
        (GOOD_FRAME.replace('"seq":1', '"seq":true'), "'seq'"),
        (GOOD_FRAME.replace('"sent":9', '"sent":1e3'), "'sent'"),
        (GOOD_FRAME.replace('"sent":9', '"sent":' + "9" * 30), "'sent'"),
        (GOOD_FRAME.replace('"sent":9', '"sent":' + "9" * 5000), "not JSON"),
        (GOOD_FRAME.replace('"sent"', '"<script>"'), "unknown stage '<script>'"),
        (GOOD_FRAME.replace('"fresh":true', '"fresh":1'), "'fresh'"),
        (GOOD_FRAME.replace('"pts_s":0.0', '"pts_s":NaN'), "'pts_s'"),
        (GOOD_FRAME.replace('"pts_s":0.0', '"pts_s":1e999'), "'pts_s'"),
        (GOOD_FRAME.replace(',"ns":9', ""), "'ns'"),
        ('{"event":"drop","stage":"tracked","ns":5,"n":0}\n', "'n'"),
        ('{"event":"drop","ns":5,"n":1}\n', "'stage'"),
        ('{"event":"party","stage":"tracked","ns":5,"n":1}\n', "unknown event"),
        ('{"event":"fault","stage":"tracked","ns":5,"n":1,"message":7}\n', "'message'"),
        ('"' + "x" * (1 << 20) + "\n", "not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes((GOOD_HEADER + GOOD_FRAME + line + GOOD_FRAME).encode("utf-8", "surrogateescape"))
    with pytest.raises(TraceError, match=says) as caught:
        read_trace(path)
    assert "line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "not a visavis latency trace"),
        ("{", "not a visavis latency trace"),
        ('{"seq":1}\n', "not a visavis latency trace"),
        (GOOD_HEADER.replace(',"started_ns":5', ""), "started_ns"),
        (GOOD_HEADER.replace('"version":1', '"version":2'), "version 2"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, header: str, says: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(header)
    with pytest.raises(TraceError, match=says):
        read_trace(path)


def test_a_missing_trace_says_how_to_get_one(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(TraceError, match="--trace"):
            read_trace(path)


def test_metrics_tell_what_the_ledger_counted() -> None:
    registry, clock = CollectorRegistry(), FakeClock()
    metrics = Metrics(registry)
    ledger = Ledger(metrics=metrics, clock_ns=clock)
    run_frames(ledger, clock, 4, tracked=8, generated=20)
    ledger.frame(LatencyTrace({}), sequence=4, pts_s=0.0, fresh=False)
    ledger.dropped(2, stage="tracked")
    ledger.fault("generated", RuntimeError("x"))
    metrics.session_opened()
    metrics.session_opened()
    metrics.session_closed()
    value = registry.get_sample_value
    assert value("visavis_frames_total") == 5
    assert value("visavis_late_frames_total") == 1
    assert value("visavis_dropped_frames_total", {"stage": "tracked"}) == 2
    assert value("visavis_faults_total", {"stage": "generated"}) == 1
    assert value("visavis_sessions") == 1
    assert value("visavis_stage_seconds_sum", {"stage": "generated"}) == pytest.approx(0.08)
    assert value("visavis_latency_seconds_bucket", {"le": "0.03"}) == 4
    assert value("visavis_latency_seconds_bucket", {"le": "0.02"}) == 0
    body, content_type = metrics.render()
    assert b"visavis_latency_seconds_bucket" in body
    assert content_type.startswith("text/plain")


def test_two_metrics_do_not_share_state() -> None:
    one, two = Metrics(), Metrics()
    one.dropped(1, stage="tracked")
    assert b'stage="tracked"' not in two.render()[0]


def test_how_far_sound_and_picture_are_apart_is_told_everywhere(tmp_path: Path) -> None:
    registry, clock, path = CollectorRegistry(), FakeClock(), tmp_path / "t.jsonl"
    with Ledger(trace_path=path, metrics=Metrics(registry), clock_ns=clock) as ledger:
        for sequence, skew_ms in enumerate((-30.0, -10.0, 50.0, None)):
            clock.advance_ms(40)
            ledger.frame(LatencyTrace({}), sequence=sequence, pts_s=0.0, fresh=True, skew_ms=skew_ms)
        skew = ledger.snapshot().skew_ms
        assert skew is not None
        assert (skew.p50, skew.count) == (-10.0, 3)
        clock.advance_ms(20_000)
        assert ledger.snapshot().skew_ms is None, "what was long ago is not now"
    value = registry.get_sample_value
    assert value("visavis_skew_seconds") == pytest.approx(0.05), "the newest, with its sign"
    assert value("visavis_skew_size_seconds_count") == 3
    assert value("visavis_skew_size_seconds_bucket", {"le": "0.03"}) == 2
    assert value("visavis_skew_size_seconds_sum") == pytest.approx(0.09)
    assert [f.skew_ms for f in read_trace(path).frames] == [-30.0, -10.0, 50.0, None]
