"""`run` keeps no pictures. With `-m timing` (20 s) or `-m soak` (10 min): memory and lag stay flat."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from clips import DemoClip

from engines.enrollment import Enrollment
from scripts.benchmarks.soak import soak
from streamer import start_live
from streamer.frame import Frame
from streamer.sinks.sink import Sink, SinkClosed, SinkInfo
from streamer.start_live import LiveOptions, run_live

PICTURE_MB = 512 * 512 * 3 / 1e6


class CountedSink(Sink):
    """Keeps the process's memory at each frame, and closes itself after `count` of them."""

    def __init__(self, count: int) -> None:
        self.memory_mb: list[float] = []
        self._count = count

    def open(self, info: SinkInfo) -> None:
        """Nothing to open."""

    def write(self, frame: Frame) -> None:
        self.memory_mb.append(psutil.Process().memory_info().rss / 1e6)
        if len(self.memory_mb) == self._count:
            raise SinkClosed("that was enough")

    def close(self) -> None:
        """Nothing was kept."""


@pytest.mark.slow
def test_a_run_keeps_none_of_its_pictures(
    astronaut: Enrollment,
    demo_clip: DemoClip,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long it takes: memory by frames, not by seconds."""
    sink = CountedSink(160)
    monkeypatch.setattr(start_live, "open_sink", lambda _, **options: sink)
    clip = demo_clip(1, 25, 512)  # short, so that it is opened again many times
    outcome, snapshot = run_live(astronaut, LiveOptions(str(clip), "gauge", loop=True))
    early_mb, late_mb = np.median(sink.memory_mb[70:90]), np.median(sink.memory_mb[140:160])
    print(f"\nframe 80: {early_mb:.0f} MB, frame 150: {late_mb:.0f} MB")
    assert outcome.frames == 159, "the last one closed the sink"
    assert snapshot.faults == 0
    # freshly built engines still grow by some megabytes
    assert late_mb - early_mb < 0.6 * 70 * PICTURE_MB


@pytest.mark.parametrize(
    ("seconds", "warm_up_s", "mb_per_min"),
    [
        # in its first half minute a process with freshly built engines still grows by about 30 MB/min
        pytest.param(20.0, 6.0, 120.0, marks=pytest.mark.timing, id="20s"),
        pytest.param(600.0, 60.0, 1.0, marks=pytest.mark.soak, id="10min"),
    ],
)
def test_run_keeps_memory_and_lag_flat(
    astronaut: Enrollment,
    demo_clip: DemoClip,
    seconds: float,
    warm_up_s: float,
    mb_per_min: float,
) -> None:
    soaked = soak(astronaut, demo_clip(3, 25, 512), seconds, warm_up_s)
    print(f"\n{soaked}")
    assert soaked.seconds == pytest.approx(seconds, abs=2)
    assert soaked.frames > 10 * seconds
    assert soaked.faults == 0
    assert soaked.mb_per_min < mb_per_min
    assert soaked.last_lag_ms < soaked.first_lag_ms + 25, "the lag grows"
    assert soaked.last_lag_ms < 200
