"""`run` for a long time: memory and lag stay flat. Ten minutes with `-m soak`, twenty seconds always."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from clips import DemoClip, demo_clip  # noqa: F401

from engines.enrollment import Enrollment
from streamer import start_live
from streamer.frame import Frame
from streamer.sinks.sink import Sink, SinkInfo
from streamer.start_live import LiveOptions, run_live


class GaugeSink(Sink):
    """Throws pictures away; keeps their lag, and the process's memory twice a second."""

    def __init__(self) -> None:
        self.lag_ms: list[tuple[float, float]] = []
        self.rss_mb: list[tuple[float, float]] = []
        self._process = psutil.Process(os.getpid())
        self._start_s = time.monotonic()

    def open(self, info: SinkInfo) -> None:
        self._start_s = time.monotonic()

    def write(self, frame: Frame) -> None:
        now_s = time.monotonic() - self._start_s
        self.lag_ms.append((now_s, (time.monotonic_ns() - frame.capture_time_ns) / 1e6))
        if not self.rss_mb or now_s - self.rss_mb[-1][0] >= 0.5:
            self.rss_mb.append((now_s, self._process.memory_info().rss / 1e6))

    def close(self) -> None:
        """Nothing was kept."""


@dataclass(frozen=True)
class Soak:
    """How long, what counts as warm-up, and how much memory may grow per minute after it."""

    seconds: float
    warm_up_s: float
    mb_per_min: float


# a leaked 512 x 512 picture per frame would be 1180 MB/min; in its first half minute a process with freshly built
# engines still grows by about 30
SHORT = Soak(20.0, 6.0, 120.0)
LONG = Soak(600.0, 60.0, 1.0)


@pytest.mark.parametrize("soak", [SHORT, pytest.param(LONG, marks=pytest.mark.soak)], ids=["20s", "10min"])
def test_run_keeps_memory_and_lag_flat(
    astronaut: Enrollment,
    demo_clip: DemoClip,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    soak: Soak,
) -> None:
    sink = GaugeSink()
    monkeypatch.setattr(start_live, "open_sink", lambda _, **options: sink)
    clip = demo_clip(3, 25, 512)  # short, so that it is opened again many times
    options = LiveOptions(str(clip), "gauge", loop=True, seconds=soak.seconds)
    outcome, snapshot = run_live(astronaut, options)

    memory = np.array([m for m in sink.rss_mb if m[0] > soak.warm_up_s])
    slope = float(np.polyfit(memory[:, 0] / 60, memory[:, 1], 1)[0])
    lag = np.array([x for x in sink.lag_ms if x[0] > soak.warm_up_s])
    fifth = len(lag) // 5
    first, last = float(np.median(lag[:fifth, 1])), float(np.median(lag[-fifth:, 1]))
    print(
        f"\n{outcome.frames} frames in {outcome.seconds:.0f} s, {outcome.dropped} dropped; memory "
        f"{memory[0, 1]:.0f} -> {memory[-1, 1]:.0f} MB, slope {slope:+.2f} MB/min; "
        f"lag median {first:.1f} -> {last:.1f} ms, p95 {np.percentile(lag[:, 1], 95):.1f} ms"
    )
    assert outcome.seconds == pytest.approx(soak.seconds, abs=2)
    assert outcome.frames > 10 * soak.seconds
    assert snapshot.faults == 0
    assert slope < soak.mb_per_min
    assert last < first + 25, "the lag grows"
    assert last < 200
