"""Measure what the README claims, on this computer: enrolling, loading, animating, live speed, the filter's delay.

python scripts/benchmark.py            # the demo photo, driven by a clip of itself
python scripts/benchmark.py --json     # the same for machines
python scripts/benchmark.py --driver talk.mp4 --photo me.jpg
python scripts/benchmark.py --generator geometric --only pipelined
python scripts/benchmark.py --only soak --seconds 600
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

# as the command line does, before numpy is imported: BLAS threads spin after each small product
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

from calibration.enroll import enroll
from engines.enrollment import Enrollment
from engines.errors import VisavisError
from engines.generators.names import DEFAULT_GENERATOR, FALLBACK_GENERATOR
from engines.generators.registry import GENERATORS
from engines.motion import Motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.benchmarks.animating import measure_animating, measure_enrolling
from scripts.benchmarks.measured import Measured
from scripts.benchmarks.parts import measure_parts
from scripts.benchmarks.pipelined import measure_pipelined, read_clip
from scripts.benchmarks.smoothing import measure_smoothing
from scripts.benchmarks.stall import measure_stall
from streamer.cli.terminal import quiet_native
from streamer.drive.demo import DEMO_PHOTO, demo_track, looped
from streamer.frame import Frame
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.tuning import tune_for_small_pictures

# in the order they are printed
CHAPTERS = ("enrolling", "animating", "pipelined", "smoothing", "parts", "stall", "soak", "calls")
ALONE = ("soak", "calls")  # minutes long, or processes of their own


def make_clip(enrollment: Enrollment, path: Path, seconds: float, fps: float, size_px: int) -> None:
    """A driving video without a recorded person: the enrolled face, moved by the demo motion.

    Drawn by the same generator whichever is measured, so that all follow the same driver.
    """
    renderer = Renderer(enrollment, generator=FALLBACK_GENERATOR, size_px=size_px)
    rest = demo_track().neutral or Motion()
    with FileSink(path) as sink:
        sink.open(SinkInfo(size_px, size_px, fps))
        for k in range(round(seconds * fps)):
            motion = retarget(looped(demo_track(), k / fps), rest, enrollment.motion, Controls())
            sink.write(Frame(k / fps, 0, sequence=k, image=renderer.render(motion)))


def measure(
    photo: Path,
    driver: Path | None,
    *,
    generator: str,
    seconds: float,
    size_px: int,
    repeats: int,
    only: str | None,
) -> list[Measured]:
    """All numbers but those of `ALONE`, or those of one chapter. Raises what the measured commands raise."""
    tune_for_small_pictures()
    chapters = (only,) if only else tuple(c for c in CHAPTERS if c not in ALONE)
    enrolled = enroll(photo)  # the first run also loads the models
    out: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if driver is None:
            driver = folder / "driver.mp4"
            # they go round on a short clip
            make_clip(
                enrolled, driver, min(seconds, 10.0) if only in ALONE else seconds, demo_track().fps, 512
            )
        avatar = folder / "a.avatar"
        if "enrolling" in chapters:
            out += measure_enrolling(photo, enrolled, avatar, repeats)
        if "animating" in chapters:
            out += measure_animating(enrolled, driver, folder / "out.mp4", generator, size_px)
        if "pipelined" in chapters:
            out += measure_pipelined(enrolled, driver, generator=generator, size_px=size_px, seconds=seconds)
        if "smoothing" in chapters:
            out += measure_smoothing()
        if "parts" in chapters:
            out += measure_parts(enrolled, folder)
        if "stall" in chapters:
            clip, fps = read_clip(driver)
            out += measure_stall(enrolled, clip, fps, generator=generator, size_px=size_px)
        if "soak" in chapters:
            from scripts.benchmarks.soak import measure_soak  # psutil comes with `pip install visavis[dev]`

            out += measure_soak(enrolled, driver, seconds)
        if "calls" in chapters:
            from scripts.benchmarks.several_calls import measure_several_calls  # psutil too

            out += measure_several_calls(
                enrolled, driver, folder, generator=generator, size_px=size_px, seconds=seconds
            )
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
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the made driver and of the run"
    )
    parser.add_argument("--generator", choices=sorted(GENERATORS), default=DEFAULT_GENERATOR)
    parser.add_argument(
        "--only", choices=CHAPTERS, help="one measurement alone; soak and calls are measured only so"
    )
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
                generator=arguments.generator, seconds=arguments.seconds, size_px=arguments.size & ~1,
                repeats=arguments.repeats, only=arguments.only,
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
