"""Single parts at their best: what a busy computer adds is left out by taking the best of several runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines.enrollment import Enrollment
from engines.generators.names import FALLBACK_GENERATOR
from engines.head.fit import ExpressionFit
from engines.head.model import load_head_model
from engines.motion import EXPRESSION_COUNT, Motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.benchmarks.measured import Measured, time_s
from streamer.drive.demo import demo_track, looped
from streamer.frame import STAGES, Frame, LatencyTrace
from streamer.latency.ledger import Ledger
from streamer.latency.metrics import Metrics
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.slot import Slot


def best_ms(work: Callable[[], object], *, runs: int = 5, times: int = 1) -> float:
    """Milliseconds of one `work`: the best mean of `times` in `runs` runs."""

    def run() -> None:
        for _ in range(times):
            work()

    return min(time_s(run) for _ in range(runs)) * 1e3 / times


def solve_ms() -> float:
    """One expression fit."""
    model = load_head_model()
    fit = ExpressionFit(model)
    neutral = model.landmarks(model.mean_hu).astype(np.float64)
    beta = np.full(EXPRESSION_COUNT, 0.3, np.float32)
    target = neutral + model.landmarks(np.tensordot(beta, model.expression_hu, 1))
    none = np.zeros(EXPRESSION_COUNT, np.float32)
    return best_ms(lambda: fit.solve(target, neutral, none), times=100)


def render_ms(enrollment: Enrollment) -> float:
    """One picture of 512 px by the fallback generator: the median of sixteen motions, each at its best."""
    renderer = Renderer(enrollment, generator=FALLBACK_GENERATOR)
    rest = demo_track().neutral or Motion()
    motions = [retarget(looped(demo_track(), k / 5), rest, enrollment.motion, Controls()) for k in range(16)]
    return float(np.median([best_ms(lambda m=m: renderer.render(m)) for m in motions]))


def write_ms(path: Path, count: int = 120) -> float:
    """One frame of 512 px converted, encoded and written to `path`."""
    rng = np.random.default_rng(0)
    big = np.kron(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), np.ones((32, 32, 1), np.uint8))
    images = [np.ascontiguousarray(np.roll(big, 3 * k, 1)) for k in range(10)]
    with FileSink(path) as sink:
        sink.open(SinkInfo(512, 512, 30))
        begin_s = time.perf_counter()
        for k in range(count):
            sink.write(Frame(k / 30, 0, image=images[k % 10]))
        return (time.perf_counter() - begin_s) * 1e3 / count


def ledger_us(trace_path: Path, count: int = 1000) -> float:
    """One frame told to the ledger, metrics and trace on, in the mean."""
    trace = LatencyTrace({stage: 10**12 + k * 3_000_000 for k, stage in enumerate(STAGES)})
    costs_s: list[float] = []
    with Ledger(trace_path=trace_path, metrics=Metrics()) as ledger:
        for k in range(count):
            costs_s.append(time_s(lambda k=k: ledger.frame(trace, sequence=k, pts_s=k / 30, fresh=True)))
            time.sleep(0.0005)
    return float(np.mean(costs_s)) * 1e6


def hand_over_us(count: int = 200) -> float:
    """From a put to its take in another thread, in the median."""
    slot: Slot[int] = Slot()
    lags_us: list[float] = []

    def consume() -> None:
        while (sent_ns := slot.take(5)) is not None:
            lags_us.append((time.monotonic_ns() - sent_ns) / 1e3)

    thread = threading.Thread(target=consume)
    thread.start()
    for _ in range(count):
        slot.put(time.monotonic_ns())
        time.sleep(0.001)
    slot.close()
    thread.join()
    return float(np.median(lags_us))


def measure_parts(enrollment: Enrollment, folder: Path) -> list[Measured]:
    """Fit, picture, file, ledger and hand-over, one after the other."""
    return [
        Measured("solve_ms", "expression fit, at its best", solve_ms(), "ms"),
        Measured("render_ms", f"picture of 512 px, {FALLBACK_GENERATOR}", render_ms(enrollment), "ms"),
        Measured("write_ms", "frame of 512 px into a file", write_ms(folder / "part.mp4"), "ms"),
        Measured("ledger_us", "frame told to ledger, metrics and trace", ledger_us(folder / "t.jsonl"), "µs"),
        Measured("hand_over_us", "slot, from thread to thread: p50", hand_over_us(), "µs"),
    ]
