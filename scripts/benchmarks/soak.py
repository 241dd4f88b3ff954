"""`run` for a while: whether memory and lag stay flat."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil

from engines.enrollment import Enrollment
from scripts.benchmarks.measured import Measured
from streamer import start_live
from streamer.frame import Frame
from streamer.sinks.sink import Sink, SinkInfo
from streamer.start_live import LiveOptions, run_live

_MEMORY_EVERY_S = 0.5


class GaugeSink(Sink):
    """Throws pictures away; keeps their lag, and the process's memory twice a second, each with its time."""

    def __init__(self) -> None:
        self.lag_ms: list[tuple[float, float]] = []
        self.memory_mb: list[tuple[float, float]] = []
        self._process = psutil.Process(os.getpid())
        self._start_s = time.monotonic()

    def open(self, info: SinkInfo) -> None:
        """Time begins."""
        self._start_s = time.monotonic()

    def write(self, frame: Frame) -> None:
        """Gauge it."""
        now_s = time.monotonic() - self._start_s
        self.lag_ms.append((now_s, (time.monotonic_ns() - frame.capture_time_ns) / 1e6))
        if not self.memory_mb or now_s - self.memory_mb[-1][0] >= _MEMORY_EVERY_S:
            self.memory_mb.append((now_s, self._process.memory_info().rss / 1e6))

    def close(self) -> None:
        """Nothing was kept."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """A run after its warm-up: lag in its first and last fifth, memory's slope."""

    frames: int
    dropped: int
    faults: int
    seconds: float
    mb_per_min: float
    first_lag_ms: float
    last_lag_ms: float
    p95_lag_ms: float


def soak(enrollment: Enrollment, clip: Path, seconds: float, warm_up_s: float) -> Soaked:
    """Run an avatar on `clip`, over and over, into a gauge. Raises what `run` raises."""
    sink = GaugeSink()

    def open_gauge(_: str, **__: object) -> Sink:
        return sink

    with patch.object(start_live, "open_sink", open_gauge):
        options = LiveOptions(str(clip), "gauge", loop=True, seconds=seconds)
        outcome, snapshot = run_live(enrollment, options)
    memory = np.array([m for m in sink.memory_mb if m[0] > warm_up_s])
    lag = np.array([x[1] for x in sink.lag_ms if x[0] > warm_up_s])
    fifth = max(1, len(lag) // 5)
    return Soaked(
        outcome.frames,
        outcome.dropped,
        snapshot.faults,
        outcome.seconds,
        float(np.polyfit(memory[:, 0] / 60, memory[:, 1], 1)[0]),
        float(np.median(lag[:fifth])),
        float(np.median(lag[-fifth:])),
        float(np.percentile(lag, 95)),
    )


def measure_soak(enrollment: Enrollment, driver: Path, seconds: float) -> list[Measured]:
    """Memory and lag of a run on `driver` in its own time; its first third, at most a minute, is warm-up."""
    soaked = soak(enrollment, driver, seconds, min(60.0, seconds / 3))
    return [
        Measured("soak_s", "run: length", soaked.seconds, "s"),
        Measured("soak_frames", "run: frames", soaked.frames, ""),
        Measured("soak_dropped", "run: dropped", soaked.dropped, ""),
        Measured("soak_mb_per_min", "run: memory", soaked.mb_per_min, "MB/min"),
        Measured("soak_first_lag_ms", "run, first fifth: lag p50", soaked.first_lag_ms, "ms"),
        Measured("soak_last_lag_ms", "run, last fifth: lag p50", soaked.last_lag_ms, "ms"),
        Measured("soak_lag_p95_ms", "run: lag p95", soaked.p95_lag_ms, "ms"),
    ]
