"""Bounds on what single parts cost, by the benchmark's own measurements. Not in the default run: `-m timing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.enrollment import Enrollment
from scripts.benchmarks.animating import measure_enrolling
from scripts.benchmarks.measured import Measured, time_s
from scripts.benchmarks.parts import measure_parts
from streamer.check.doctor import diagnose

pytestmark = pytest.mark.timing


def values(numbers: list[Measured]) -> dict[str, float]:
    for number in numbers:
        print(f"\n{number.label}: {number.value:.3f} {number.unit}", end="")
    return {n.key: n.value for n in numbers}


def test_enrolling_and_loading(astronaut: Enrollment, astronaut_photo: Path, tmp_path: Path) -> None:
    found = values(measure_enrolling(astronaut_photo, astronaut, tmp_path / "a.avatar", 3))
    assert found["enroll_s"] <= 3
    assert found["load_s"] < 0.3


def test_parts(astronaut: Enrollment, tmp_path: Path) -> None:
    found = values(measure_parts(astronaut, tmp_path))
    assert found["solve_ms"] < 1
    assert found["render_ms"] < 40
    assert found["write_ms"] < 25
    assert found["ledger_us"] < 500
    assert found["hand_over_us"] < 20_000


def test_a_diagnosis_is_there_in_five_seconds() -> None:
    assert time_s(diagnose) < 5
