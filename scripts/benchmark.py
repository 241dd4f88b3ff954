"""Measure what the README claims, on this computer: enrolling, loading, animating, the filter's delay.

python scripts/benchmark.py            # the demo photo, driven by a clip of itself
python scripts/benchmark.py --json     # the same for machines
python scripts/benchmark.py --driver talk.mp4 --photo me.jpg
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

# as the command line does, before numpy is imported: BLAS threads spin after each small product
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from calibration.enroll import enroll
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.errors import VisavisError
from engines.frame import Frame
from engines.motion import ARKIT_INDEX, Motion, MotionTrack
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from streamer.animate import Job, animate
from streamer.avatar import Avatar
from streamer.cli import quiet_native
from streamer.clock import SystemClock
from streamer.demo import DEMO_PHOTO, demo_track, looped
from streamer.driver import Driver
from streamer.filters import MotionFilter
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.sources.video import VideoSource
from streamer.trackers.mediapipe import MediaPipeTracker

F64 = NDArray[np.float64]

MAX_SHIFT_MS = 160.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One number with its label: the unit is in `unit`, `key` is stable for machines."""

    key: str
    label: str
    value: float
    unit: str


def time_s(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def make_clip(enrollment: Enrollment, path: Path, seconds: float, fps: float, size_px: int) -> None:
    """A driving video without a recorded person: the enrolled face, moved by the demo motion."""
    renderer = Renderer(enrollment, size_px=size_px)
    rest = demo_track().neutral or Motion()
    with FileSink(path) as sink:
        sink.open(SinkInfo(size_px, size_px, fps))
        for k in range(round(seconds * fps)):
            motion = retarget(looped(demo_track(), k / fps), rest, enrollment.motion, Controls())
            sink.write(Frame(renderer.render(motion), k / fps, 0, sequence=k))


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


def stage_times_ms(
    enrollment: Enrollment, driver: Path, output: Path, size_px: int
) -> dict[str, list[float]]:
    """What each stage costs a frame, one frame at a time as in a call (`animate` overlaps its stages)."""
    clock = SystemClock()
    times_ms: dict[str, list[float]] = {}
    with ExitStack() as stack:
        source = stack.enter_context(VideoSource(driver))
        sink = stack.enter_context(FileSink(output))
        moving = Driver(MediaPipeTracker())
        stack.callback(moving.close)
        avatar = Avatar(enrollment, moving, size_px=size_px, clock=clock)
        sink.open(SinkInfo(*avatar.size_px, source.info.fps))
        while (frame := source.read()) is not None:
            shown = avatar.step(frame).frame
            sink.write(shown)
            trace = shown.mark("encoded", clock.now_ns()).trace
            for stage, ms in (trace.stage_ms() | {"total": trace.total_ms()}).items():
                times_ms.setdefault(stage, []).append(ms)
    return times_ms


def measure(
    photo: Path, driver: Path | None, *, seconds: float, size_px: int, repeats: int
) -> list[Measured]:
    """All numbers, in the order they are printed. Raises what the measured commands raise."""
    out: list[Measured] = []
    enrolled = enroll(photo)  # the first run also loads the models
    enroll_s = statistics.median(time_s(lambda: enroll(photo)) for _ in range(repeats))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        avatar = folder / "a.avatar"
        save_enrollment(enrolled, avatar)
        load_s = statistics.median(time_s(lambda: load_enrollment(avatar)) for _ in range(repeats))
        out += [
            Measured("enroll_s", f"enroll, after imports, median of {repeats}", enroll_s, "s"),
            Measured("load_s", f"load an avatar, median of {repeats}", load_s, "s"),
            Measured("avatar_mb", "size of the avatar file", avatar.stat().st_size / 1e6, "MB"),
        ]
        if driver is None:
            driver = folder / "driver.mp4"
            make_clip(enrolled, driver, seconds, demo_track().fps, 512)
        done = animate(enrolled, Job(driver, folder / "out.mp4", size_px=size_px))
        stages = stage_times_ms(enrolled, driver, folder / "out.mp4", size_px)
    out += [
        Measured("animate_frames", f"animate at {size_px} px: frames", done.frames, ""),
        Measured(
            "animate_fps", f"animate at {size_px} px, calibration and encoding included", done.fps, "fps"
        ),
    ]
    for stage, times_ms in stages.items():
        p50, p95 = (float(v) for v in np.percentile(times_ms, [50, 95]))
        out.append(Measured(f"{stage}_p50_ms", f"one frame at a time, {stage}: p50", p50, "ms"))
        out.append(Measured(f"{stage}_p95_ms", f"one frame at a time, {stage}: p95", p95, "ms"))
    mouth_ms, head_ms = filter_delays_ms(demo_track())
    frame_ms = 1000 / demo_track().fps
    out += [
        Measured("filter_mouth_ms", "live smoothing delay of the mouth", mouth_ms, "ms"),
        Measured("filter_head_ms", "live smoothing delay of the head", head_ms, "ms"),
        Measured(
            "filter_frames", "the longer of both in frames", max(mouth_ms, head_ms) / frame_ms, "frames"
        ),
    ]
    return out


def machine() -> str:
    """This computer in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--driver", type=Path, help="a video (default: the photo moved by the demo motion)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the made driver")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.repeats < 1 or not 64 <= arguments.size <= 1024:
        parser.error("--seconds and --repeats must be positive, --size 64 … 1024")
    try:
        with quiet_native():
            numbers = measure(
                arguments.photo, arguments.driver,
                seconds=arguments.seconds, size_px=arguments.size & ~1, repeats=arguments.repeats,
            )  # fmt: skip
    except VisavisError as error:
        sys.exit(f"benchmark: {error}")
    if arguments.json:
        print(json.dumps({"machine": machine(), "numbers": [asdict(n) for n in numbers]}, indent=2))
        return
    print(machine())
    for n in numbers:
        digits = 0 if n.unit == "" else 3 if n.unit == "s" else 2 if n.unit == "frames" else 1
        print(f"{n.label:<58} {n.value:>9.{digits}f} {n.unit}".rstrip())


if __name__ == "__main__":
    main()
