"""The pure pieces of what measures calls: freezes, recovery, slopes, shares and verdicts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from clips import DemoClip

from scripts.measure.calls import SOUND_HZ, voice, write_camera
from scripts.measure.gaps import back_after_s, frozen, slope_per_min
from scripts.measure.soak_call import Soaked, plot
from scripts.measure.watched_server import counted
from scripts.measure_loss import Row, parse, shares


def test_pictures_that_come_evenly_or_jitter_a_little_are_no_freeze() -> None:
    assert frozen([k / 30 for k in range(100)]).count == 0
    assert frozen([k / 30 + 0.06 * (k % 3 == 0) for k in range(100)]).count == 0
    assert (frozen([]).count, frozen([1.0]).count, frozen([1.0, 9.0]).count) == (0, 0, 0)


def test_a_freeze_is_as_long_as_the_picture_stood() -> None:
    times = [k / 30 for k in range(60)]
    still = frozen(times[:40] + [t + 0.5 for t in times[40:]])
    assert (still.count, still.seconds) == (1, pytest.approx(0.5 + 1 / 30))
    slow = [k / 5 for k in range(60)]
    assert frozen(slow[:40] + [t + 0.5 for t in slow[40:]]).count == 1
    assert frozen(slow[:40] + [t + 0.3 for t in slow[40:]]).count == 0, "of a slow stream"


def test_recovery_is_when_a_new_picture_is_shown_and_one_of_after_it_is_answered() -> None:
    old, new = (10.1, 300.0), (10.6, 100.0)
    assert back_after_s(10.0, [9.0, 10.2], [old, new]) == pytest.approx(0.6)
    assert back_after_s(10.0, [9.0, 10.9], [old, new]) == pytest.approx(0.9)
    assert back_after_s(10.0, [9.0, 10.9], [old]) is None
    assert back_after_s(10.0, [9.0], [old, new]) is None


def test_a_slope_is_a_minutes() -> None:
    line = [(float(t), 5.0 + 2 * t / 60) for t in range(100)]
    assert slope_per_min(line) == pytest.approx(2)
    assert slope_per_min([*((t, 900.0) for t in (0.0, 1.0, 2.0)), *line[30:]], 30) == pytest.approx(2)
    assert slope_per_min(line[:1]) == 0


def test_shares_are_of_what_came_between_two_looks() -> None:
    before = {"heard": 10.0, "recovered": 1.0, "concealed": 0.0, "left_out": 2.0}
    after = {"heard": 19.0, "recovered": 1.5, "concealed": 0.2, "left_out": 2.3}
    assert shares(before, after) == (pytest.approx(5), pytest.approx(5))
    assert all(math.isnan(v) for v in shares(after, after))


def test_a_row_says_what_is_not_known() -> None:
    row = Row(5, 1.0, 2.0, 3.0, 4.0, 29.95, 0.5, 0.25, 61.2, float("nan"))
    assert row.line() == "| 5 % | 1.00 % | 2.00 % | 3.00 % | 4.00 % | 29.9 | 0.5 | 0.25 % | 61 ms | ? |"
    assert Row.head().splitlines()[0].count("|") == row.line().count("|")
    assert parse(["--loss", "0", "5"]).loss == [0, 5]


def soaked(grows_ms: float = 0.0, mb_per_min: float = 0.0, back_s: float = 0.8, left: int = 0) -> Soaked:
    made = Soaked(10)
    made.lag_ms = [(float(t), 80 + grows_ms * t / 600) for t in range(600)]
    made.memory_mb = [(float(t), 400 + mb_per_min * t / 60) for t in range(600)]
    made.back_s = [(30.0 + 60 * k, back_s if k == 5 else 0.5) for k in range(10)]
    made.before = {"threads": 9, "tasks": 4, "descriptors": 20, "sockets": 1}
    made.after = {**made.before, "tasks": 4 + left}
    return made


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, None),
        ({"grows_ms": 200.0}, 0),
        ({"back_s": 2.1}, 1),
        ({"back_s": float("nan")}, 1),
        ({"mb_per_min": 1.5}, 2),
        ({"left": 1}, 3),
    ],
)
def test_each_verdict_of_a_soak(changed: dict[str, float], wrong: int | None) -> None:
    verdicts = soaked(**changed).verdicts()  # pyright: ignore[reportArgumentType]
    assert [k for k, (_, holds) in enumerate(verdicts) if not holds] == ([] if wrong is None else [wrong])


def test_a_soak_that_saw_nothing_is_not_met() -> None:
    assert [holds for _, holds in Soaked(1).verdicts()] == [False, False, True, False]


def test_it_is_drawn(tmp_path: Path) -> None:
    plot(soaked(), tmp_path / "soak.svg")
    assert "memory" in (tmp_path / "soak.svg").read_text()


async def test_what_runs_here_is_counted() -> None:
    now = counted()
    assert now["tasks"] >= 1
    assert now["threads"] >= 1
    assert now["descriptors"] > 2


def test_a_camera_and_a_microphone_of_a_clip(demo_clip: DemoClip, tmp_path: Path) -> None:
    clip = demo_clip(1, 30, 64)
    camera, sound = write_camera(clip, tmp_path)
    assert camera.read_bytes().count(b"FRAME\n") == 30
    assert sound.stat().st_size > 44
    heard = voice(clip, 2.0)
    assert (heard.dtype, len(heard)) == (np.int16, 2 * SOUND_HZ)
    assert np.abs(heard).max() > 1000
