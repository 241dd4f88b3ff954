"""Arms that are measured against one another by turns in one process: what slows one down slows them all."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from engines.compile.names import ENGINES_SETTING, PRECISION_SETTING
from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.native.loader import refusal
from engines.renderer import Renderer

_PACKAGES = ("numpy", "torch", "openvino", "opencv-contrib-python", "tensorrt", "torch-tensorrt")
_WARM_UP = 8  # pictures that do not count


@dataclass(frozen=True, slots=True)
class Arm:
    """What is measured: a generator at a size, its networks by an engine in a precision ("": as a call chooses)."""

    generator: str
    size_px: int
    engine: str = ""
    precision: str = ""

    @property
    def label(self) -> str:
        """As a table and a plot name it."""
        by = " ".join(x for x in (self.engine, self.precision) if x)
        return f"{self.generator} {self.size_px}" + (f" ({by})" if by else "")


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds a picture: median, and between what ends nine of ten lie."""

    p50_ms: float
    p5_ms: float
    p95_ms: float
    count: int

    @staticmethod
    def of(times_ms: Sequence[float]) -> Spread:
        """Of at least one time."""
        p5, p50, p95 = (float(x) for x in np.percentile(times_ms, [5, 50, 95]))
        return Spread(p50, p5, p95, len(times_ms))


def by_turns(
    arms: Sequence[Arm], rounds: int, draw: Callable[[Arm, int], None], clock_s: Callable[[], float]
) -> dict[Arm, Spread]:
    """Each arm draws picture `k` of each round, one arm after the other, the first of them another in each round."""
    times_ms: dict[Arm, list[float]] = {arm: [] for arm in arms}
    for k in range(-_WARM_UP, rounds):
        first = k % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            begin_s = clock_s()
            draw(arm, k % max(rounds, 1))
            if k >= 0:
                times_ms[arm].append((clock_s() - begin_s) * 1e3)
    return {arm: Spread.of(taken) for arm, taken in times_ms.items()}


@contextmanager
def _settings(arm: Arm) -> Generator[None]:
    told = {ENGINES_SETTING: arm.engine, PRECISION_SETTING: arm.precision}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update({name: value for name, value in told.items() if value})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def open_arms(enrollment: Enrollment, arms: Sequence[Arm]) -> tuple[dict[Arm, Renderer], dict[Arm, str]]:
    """Renderers ready to draw, and why the others cannot be measured."""
    able: dict[Arm, Renderer] = {}
    unable: dict[Arm, str] = {}
    for arm in arms:
        with _settings(arm):
            renderer = Renderer(enrollment, generator=arm.generator, size_px=arm.size_px)
            renderer.wait_until_compiled()
        if renderer.generator_name != arm.generator:
            unable[arm] = renderer.notice or f"{renderer.generator_name} draws"
        else:
            able[arm] = renderer
    return able, unable


def measure_matrix(
    enrollment: Enrollment,
    motions: Sequence[Motion],
    arms: Sequence[Arm],
    clock_s: Callable[[], float],
    rivals: Mapping[Arm, Callable[[], None]] | None = None,
) -> tuple[dict[Arm, Spread], dict[Arm, str]]:
    """(milliseconds of each arm over `motions`, why an arm was not measured); `rivals` take turns like the others."""
    able, unable = open_arms(enrollment, arms)
    others = rivals or {}
    if not able and not others:
        return {}, unable

    def draw(arm: Arm, k: int) -> None:
        if arm in others:
            others[arm]()
        else:
            able[arm].render(motions[k])

    return by_turns([*able, *others], len(motions), draw, clock_s), unable


def conditions() -> dict[str, Any]:
    """What a number depends on: computer, versions, threads."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads()},
        "drawing": refusal() or "compiled for this CPU",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def as_dict(
    measured: Mapping[Arm, Spread], unable: Mapping[Arm, str], told: Mapping[str, Any]
) -> dict[str, Any]:
    """For a JSON file."""
    return {
        "conditions": dict(told),
        "measured": [{**asdict(arm), **asdict(spread)} for arm, spread in measured.items()],
        "not_measured": [{**asdict(arm), "reason": reason} for arm, reason in unable.items()],
    }


def as_markdown(measured: Mapping[Arm, Spread], unable: Mapping[Arm, str], told: Mapping[str, Any]) -> str:
    """For people."""
    lines = [
        f"{told['cpu']}, {told['cores']} cores, {told['system']}; "
        + ", ".join(f"{name} {found}" for name, found in told["versions"].items()),
        "",
        "| generator | px | engine | precision | ms a picture, p50 | p5 … p95 | pictures a second |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm, s in measured.items():
        by = f"{arm.engine or 'chosen'} | {arm.precision or 'chosen'}"
        lines.append(
            f"| {arm.generator} | {arm.size_px} | {by} | {s.p50_ms:.1f} | {s.p5_ms:.1f} … {s.p95_ms:.1f} "
            f"| {1e3 / s.p50_ms:.0f} |"
        )
    lines += ["", *(f"- not measured: {arm.label}: {reason}" for arm, reason in unable.items())]
    return "\n".join(lines).rstrip() + "\n"
