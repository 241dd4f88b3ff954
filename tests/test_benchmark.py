"""The pipelined benchmark: every frame counted, stages told apart, and whatever broke said instead of measured."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import FakeGenerator, FakeTracker, entry

from engines.enrollment import Enrollment
from engines.errors import WeightsError
from engines.generators.registry import GENERATORS
from scripts.benchmarks import pipelined
from scripts.benchmarks.measured import percentiles_of
from scripts.benchmarks.pipelined import run_pipelined
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.drive.trackers.open import TRACKERS
from streamer.frame import Frame

CLIP = [Frame(k / 30, 0, sequence=k, image=np.full((16, 16, 3), k, np.uint8)) for k in range(5)]


@pytest.fixture
def tracker(astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> FakeTracker:
    fake = FakeTracker([astronaut.motion], neutral=astronaut.motion)
    monkeypatch.setitem(TRACKERS, DEFAULT_TRACKER, lambda: fake)
    monkeypatch.setattr(pipelined, "WARM_UP_FRAMES", 4)
    return fake


def test_every_frame_after_the_warm_up_is_measured(
    astronaut: Enrollment, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GENERATORS, "fake", entry(lambda _: FakeGenerator()))
    ran = run_pipelined(astronaut, CLIP, 30.0, "fake", 64, 20)
    assert (ran.generator, ran.frames, ran.dropped) == ("fake", 20, 0)
    assert tracker.calls == 24, "the clip goes round"
    assert tracker.closed
    stages = ["tracked", "waited", "fitted", "rasterised", "generated", "composited", "total"]
    assert list(ran.times_ms) == stages
    for times_ms in ran.times_ms.values():
        assert len(times_ms) == 20
        assert min(times_ms) >= 0
    parts_ms = sum(np.array(ran.times_ms[s]) for s in stages[:-1])
    assert np.allclose(parts_ms, ran.times_ms["total"])
    assert ran.fps > 0
    keys = [m.key for m in percentiles_of(ran.times_ms, "pipelined_", "label")]
    assert "pipelined_generated_p95_ms" in keys
    assert len(keys) == 2 * len(stages)


def test_a_fallback_is_measured_under_its_own_name(
    astronaut: Enrollment,
    tracker: FakeTracker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_weights(_: object) -> FakeGenerator:
        raise WeightsError("the weights of damaged are cut short")

    monkeypatch.setitem(GENERATORS, "damaged", entry(no_weights))
    ran = run_pipelined(astronaut, CLIP, 30.0, "damaged", 64, 2)
    assert ran.generator == "geometric"
    assert "damaged are cut short" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["tracked", "generated"])
def test_a_stage_that_fails_is_raised_not_measured(
    astronaut: Enrollment, tracker: FakeTracker, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    generator = FakeGenerator()
    monkeypatch.setitem(GENERATORS, "fake", entry(lambda _: generator))
    error = ZeroDivisionError("a bug")
    if where == "tracked":
        tracker.script.append(error)
    else:
        broken = iter([None])  # the neutral picture is drawn; after it every picture fails
        render = generator.render

        def fails(*arguments: object) -> object:
            generator.error = error if next(broken, error) else None
            return render(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(generator, "render", fails)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_pipelined(astronaut, CLIP, 30.0, "fake", 64, 20)
    assert tracker.closed
