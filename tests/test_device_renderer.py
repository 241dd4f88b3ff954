"""The renderer with a GPU that is a CPU in disguise: the same pictures, and whatever fails the call goes on."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from accelerators import FakeGpu
from numpy.typing import NDArray
from test_generator import moved

from engines.device import renderer as edge
from engines.device.renderer import MOST_CALLS, driver_is_here
from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.picture.background import Background
from engines.renderer import Renderer

U8 = NDArray[np.uint8]
SIZE = 128


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """There is a GPU, and nobody draws on it yet."""
    fake = FakeGpu()
    monkeypatch.setattr(edge, "driver_is_here", lambda: True)
    monkeypatch.setattr("engines.compile.accelerator.NvidiaGpu", lambda: fake)
    monkeypatch.setattr(edge, "_all", {})
    yield fake
    gc.collect()


def renderer_of(e: Enrollment, background: Background | None = None) -> Renderer:
    made = Renderer(e, generator="geometric", size_px=SIZE, background=background or Background())
    assert made.wait_until_compiled(60)
    return made


def off(a: U8, b: U8) -> NDArray[np.int64]:
    return np.abs(a.astype(np.int64) - b)


def test_without_a_driver_nobody_asks_torch(astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu()
    monkeypatch.setattr(edge, "driver_is_here", lambda: False)
    monkeypatch.setattr("engines.compile.accelerator.NvidiaGpu", lambda: fake)
    made = renderer_of(astronaut)
    assert made.render(astronaut.motion).shape == (SIZE, SIZE, 3)
    assert fake.phases == []
    assert made.notice is None


def test_a_driver_is_looked_for_by_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "_DRIVER", "libno-such-driver.so.1")
    assert not driver_is_here()
    monkeypatch.setattr(edge, "_DRIVER", None)  # the program itself
    assert driver_is_here()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["photo", "transparent"])
def test_pictures_are_those_of_the_cpu(
    astronaut: Enrollment, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    background = Background(mode="transparent") if mode == "transparent" else Background()
    there = renderer_of(astronaut, background)
    monkeypatch.setattr(edge, "driver_is_here", lambda: False)
    here = renderer_of(astronaut, background)
    before = len(gpu.phases)
    motions = [astronaut.motion, moved(astronaut.motion, yaw=20, jawOpen=0.5)]
    for motion in motions:
        shown, wanted = there.render(motion), here.render(motion)
        assert shown.shape == wanted.shape == (SIZE, SIZE, 4 if mode == "transparent" else 3)
        assert (off(shown, wanted) > 2).mean() < 1e-3
        assert (off(shown, here.still) > 20).any()
    assert gpu.phases[before:] == ["replay"] * len(motions)
    assert there.notice is None


@pytest.mark.slow
def test_stages_are_marked_as_ever(astronaut: Enrollment, gpu: FakeGpu) -> None:
    marks: list[str] = []
    renderer_of(astronaut).render(astronaut.motion, marks.append)
    assert marks == ["fitted", "rasterised", "generated", "composited"]
    assert gpu.phases[-1] == "replay"


@pytest.mark.parametrize("phase", ["warm_up", "capture"])
def test_what_cannot_be_recorded_is_drawn_on_the_cpu_with_the_reason(
    astronaut: Enrollment, gpu: FakeGpu, phase: str
) -> None:
    gpu.fails_in = phase
    made = renderer_of(astronaut)
    assert made.render(astronaut.motion).std() > 10
    assert made.notice is not None
    assert f"no {phase} today" in made.notice
    told = made.notice
    made.render(astronaut.motion)
    assert made.notice == told
    assert gpu.phases.count(phase) == 1


@pytest.mark.slow
def test_a_fault_in_a_call_is_told_once_and_the_call_goes_on(astronaut: Enrollment, gpu: FakeGpu) -> None:
    made = renderer_of(astronaut)
    first = made.render(astronaut.motion)
    gpu.fails_in = "replay"
    again = made.render(astronaut.motion)
    assert (off(first, again) > 2).mean() < 1e-3
    assert made.notice is not None
    assert made.notice.count("no replay today") == 1
    gpu.fails_in = ""
    # who comes later begins anew
    second = renderer_of(astronaut)
    second.render(astronaut.motion)
    assert second.notice is None
    assert gpu.phases[-1] == "replay"


def test_a_gpu_that_refuses_is_not_worth_a_word(astronaut: Enrollment, gpu: FakeGpu) -> None:
    gpu.refusal = lambda: "this torch is a CPU build"  # type: ignore[method-assign]
    made = renderer_of(astronaut)
    assert made.notice is None
    assert gpu.phases == []


def test_a_gpu_that_does_not_answer_is_told(astronaut: Enrollment, gpu: FakeGpu) -> None:
    gpu.fails_in = "refusal"
    made = renderer_of(astronaut)
    assert made.render(astronaut.motion).std() > 10
    assert made.notice is not None
    assert "not drawing on the GPU" in made.notice
    assert "no refusal today" in made.notice


def test_a_frame_that_does_not_fit_is_drawn_on_the_cpu_and_the_next_is_not(
    astronaut: Enrollment, gpu: FakeGpu
) -> None:
    made = renderer_of(astronaut)
    rest: Motion = astronaut.motion
    near = replace(rest, translation_hu=rest.translation_hu * np.float32(0.3))
    before = len(gpu.phases)
    made.render(near)
    assert gpu.phases[before:] == []
    made.render(rest)
    assert gpu.phases[before:] == ["replay"]
    assert made.notice is None


def test_until_the_device_is_ready_the_cpu_draws(
    astronaut: Enrollment, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gpu.building:  # recording waits for it
        made = Renderer(astronaut, generator="geometric", size_px=SIZE)
        assert made.render(astronaut.motion).std() > 10
        assert not made.wait_until_compiled(0)
    assert made.wait_until_compiled(60)
    made.render(astronaut.motion)
    assert gpu.phases[-1] == "replay"


@pytest.mark.slow
def test_calls_share_what_draws_alike_and_leave_it_when_they_end(astronaut: Enrollment, gpu: FakeGpu) -> None:
    calls = [renderer_of(astronaut) for _ in range(2)]
    other = Renderer(astronaut, generator="geometric", size_px=96)
    assert other.wait_until_compiled(60)
    assert len(edge._all) == 2
    them = next(t for t in edge._all.values() if t.calls == 2)
    calls.pop()
    gc.collect()
    assert them.calls == 1
    calls[0].render(astronaut.motion)
    assert calls[0].notice is None


@pytest.mark.slow
def test_no_more_calls_are_let_in_than_half_the_free_memory_holds(
    astronaut: Enrollment, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def remember(drawing: object, accelerator: FakeGpu | None) -> int:
        made.append(most(drawing, accelerator))  # pyright: ignore[reportArgumentType]
        return made[-1]

    most = edge._most
    monkeypatch.setattr(edge, "_most", remember)
    for free in (None, 1 << 20, 8 << 30, 1 << 40):
        monkeypatch.setattr(edge, "_all", {})
        monkeypatch.setattr(gpu, "free_bytes", lambda free=free: free)
        renderer_of(astronaut)
    assert made[0] == made[3] == MOST_CALLS
    assert made[1] == 1
    assert 4 < made[2] < 17


@pytest.mark.slow
def test_nothing_of_a_person_stays_when_their_call_ends_and_others_go_on(
    astronaut: Enrollment, gpu: FakeGpu
) -> None:
    made = renderer_of(astronaut)
    canvas = weakref.ref(made._moving.cache.canvas)
    other = renderer_of(astronaut)
    made.render(astronaut.motion)
    del made
    gc.collect()
    (them,) = edge._all.values()
    # its thread has put it away
    other.render(astronaut.motion)
    assert them.calls == 1
    assert canvas() is None
