"""The delay of the live filter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_INDEX, Motion, MotionTrack
from scripts.benchmarks.measured import Measured
from streamer.drive.demo import demo_track
from streamer.drive.filters import MotionFilter

F64 = NDArray[np.float64]

MAX_SHIFT_MS = 160.0


def shift_ms(raw: F64, filtered: F64, fps: float) -> float:
    """How far `filtered` (N, D) lags behind `raw` (N, D): the shift at which they differ least."""
    times_s = np.arange(len(raw)) / fps
    shifts_ms = np.arange(0.0, MAX_SHIFT_MS, 0.5)
    inside = times_s > MAX_SHIFT_MS / 1000

    def difference(shift: float) -> float:
        moved = np.stack([np.interp(times_s - shift / 1000, times_s, column) for column in raw.T], 1)
        return float(np.mean((moved - filtered)[inside] ** 2))

    return float(shifts_ms[int(np.argmin([difference(s) for s in shifts_ms]))])


def filter_delays_ms(track: MotionTrack) -> tuple[float, float]:
    """Delay of the smoothing on a recorded motion: (mouth, head rotation) in milliseconds."""
    smooth = MotionFilter()
    filtered = [smooth(m) for m in track.motions]
    mouth = [ARKIT_INDEX[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthSmileLeft")]

    def columns(pick: Callable[[Motion], NDArray[np.float32]]) -> tuple[F64, F64]:
        both = ([pick(m) for m in track.motions], [pick(m) for m in filtered])
        return np.asarray(both[0], np.float64), np.asarray(both[1], np.float64)

    return (
        shift_ms(*columns(lambda m: m.expression[mouth]), track.fps),
        shift_ms(*columns(lambda m: m.rotation_rad), track.fps),
    )


def measure_smoothing() -> list[Measured]:
    """The delay of the live filter on the demo motion."""
    mouth_ms, head_ms = filter_delays_ms(demo_track())
    frames = max(mouth_ms, head_ms) / (1000 / demo_track().fps)
    return [
        Measured("filter_mouth_ms", "live smoothing delay of the mouth", mouth_ms, "ms"),
        Measured("filter_head_ms", "live smoothing delay of the head", head_ms, "ms"),
        Measured("filter_frames", "the longer of both in frames", frames, "frames"),
    ]
