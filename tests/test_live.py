"""The live loop: the newest frame wins, frames never stop coming, and it ends cleanly however it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeGenerator, FakeSink, FakeSource, FakeTracker, picture, write_video
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import DriverError, GeneratorError, SinkError, WeightsError
from engines.generators.open import GENERATORS
from engines.motion import Motion
from streamer.avatar import FAULT_EASE_S, Avatar
from streamer.clock import SystemClock
from streamer.drive.driver import Driver
from streamer.drive.idle import IDLE_AFTER_S
from streamer.frame import Frame
from streamer.latency.ledger import Ledger
from streamer.live import LiveLoop, Outcome
from streamer.options import AvatarOptions
from streamer.sinks.sink import Sink, SinkClosed
from streamer.sources.open import open_source
from streamer.sources.source import Source
from streamer.start_live import LiveOptions, run_live

FPS = 25.0
THREADS = ("loop", "capture", "tracking", "drawing")
GREY = (120, 120, 120)
GREEN = (20, 220, 20)


class SlowGenerator(FakeGenerator):
    """Takes `seconds` for every picture."""

    def __init__(self) -> None:
        super().__init__(GREY)
        self.seconds = 0.0

    def render(self, *arguments: object) -> NDArray[np.uint8]:
        time.sleep(self.seconds)
        return super().render(*arguments)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Write:
    """One delivered frame: when (from the start of the loop), how old, which picture."""

    at_s: float
    lag_s: float
    sequence: int
    colour: tuple[int, int, int]


@dataclass
class Stage:
    """A live loop of fakes around a real avatar, running in a thread of its own."""

    source: FakeSource
    sink: FakeSink
    generator: SlowGenerator
    tracker: FakeTracker
    ledger: Ledger
    avatar: Avatar
    loop: LiveLoop
    writes: list[Write] = field(default_factory=list[Write])
    outcome: Outcome | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def run(self) -> None:
        try:
            with self.sink:
                self.outcome = self.loop.run()
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        self.thread = threading.Thread(target=self.run, name="loop")
        self.thread.start()

    def end(self) -> Outcome:
        self.loop.stop()
        return self.join()

    def join(self, timeout_s: float = 5.0) -> Outcome:
        assert self.thread is not None
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the loop does not end"
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    def wait(self, what: Callable[[], bool], timeout_s: float = 5.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline_s, "it never happened"
            time.sleep(0.005)


SetUp = Callable[..., Stage]


@pytest.fixture
def stage(astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """`stage(source=…, sink=…, tracker=…, repeat=…)`; afterwards no thread of the loop may be left."""
    made: list[Stage] = []
    begin_s = time.monotonic()

    def make(
        source: Source | None = None,
        *,
        sink: Sink | None = None,
        tracker: FakeTracker | None = None,
        repeat: bool = False,
    ) -> Stage:
        source = source or FakeSource(fps=FPS, is_live=True)
        generator = SlowGenerator()
        tracker = tracker or FakeTracker([astronaut.motion], neutral=astronaut.motion)
        monkeypatch.setitem(GENERATORS, "fake", lambda _: generator)
        ledger = Ledger()
        driver = Driver(tracker, on_fault=lambda error: ledger.fault("tracked", error))
        options = AvatarOptions(generator="fake", size_px=64)
        avatar = Avatar(astronaut, driver, options, on_fault=ledger.fault)
        sink = sink or FakeSink()
        loop = LiveLoop(source, avatar, sink, ledger=ledger, clock=SystemClock(), repeat=repeat)
        it = Stage(source, sink, generator, tracker, ledger, avatar, loop)  # type: ignore[arg-type]

        def note(frame: Frame) -> None:
            lag_s = (time.monotonic_ns() - frame.capture_time_ns) / 1e9
            r, g, b = (int(v) for v in frame.image[32, 32])
            it.writes.append(Write(time.monotonic() - begin_s, lag_s, frame.sequence, (r, g, b)))

        if isinstance(sink, FakeSink):
            sink._on_write = note
        made.append(it)
        return it

    yield make
    for it in made:
        it.generator.gate.set()
        it.loop.stop()
        if it.thread is not None:
            it.thread.join(5)
    left = [t.name for t in threading.enumerate() if t.name in THREADS]
    assert left == [], f"threads left behind: {left}"


def test_every_frame_arrives_in_order_with_its_capture_time(stage: SetUp) -> None:
    it = stage(FakeSource(fps=FPS, is_live=True, count=20))
    it.start()
    outcome = it.join()
    assert outcome.frames == len(it.writes) == 20 - outcome.dropped
    assert outcome.dropped <= 5
    sequences = [w.sequence for w in it.writes]
    assert sequences == sorted(set(sequences))
    assert max(w.lag_s for w in it.writes[2:]) < 0.2
    snapshot = it.ledger.snapshot()
    assert (snapshot.frames, snapshot.late, snapshot.faults) == (outcome.frames, 0, 0)
    assert it.sink.outcome == "closed"


def test_the_newest_frame_wins_and_drops_are_counted(stage: SetUp) -> None:
    """A generator that is four times too slow: lag stays at about one picture, nothing queues up."""
    it = stage(FakeSource(fps=100, is_live=True))
    it.generator.seconds = 0.04
    it.start()
    it.wait(lambda: len(it.writes) >= 25)
    outcome = it.end()
    assert outcome.dropped > 1.5 * outcome.frames
    dropped = it.ledger.snapshot().dropped
    assert sum(dropped.values()) == outcome.dropped
    assert dropped["fitted"] > 0.9 * outcome.dropped, "tracking keeps up: it is drawing that skips"
    assert it.source.sequence - outcome.frames - outcome.dropped in range(6), "frames are unaccounted for"
    lags = [w.lag_s for w in it.writes[3:]]
    assert np.median(lags) < 0.1
    assert np.mean(lags[-5:]) < np.mean(lags[:5]) + 0.05


def test_lag_is_flat_over_many_frames(stage: SetUp) -> None:
    """As many frames as minutes of a call, all too fast for the avatar: any queue would fill up."""
    it = stage(FakeSource(fps=250, is_live=True))
    it.generator.seconds = 0.006
    it.start()
    time.sleep(6)
    it.end()
    assert it.source.sequence > 700
    lags = np.array([w.lag_s for w in it.writes[20:]])
    quarter = len(lags) // 4
    first, last = np.median(lags[:quarter]), np.median(lags[-quarter:])
    print(f"\n{it.source.sequence} frames: lag {1e3 * first:.1f} -> {1e3 * last:.1f} ms")
    assert last < first + 0.01
    assert last < 0.1


@pytest.mark.parametrize("held_s", [2.0, pytest.param(5.0, marks=pytest.mark.soak)])
@pytest.mark.parametrize("repeat", [False, True], ids=["newest", "steady"])
def test_after_a_stall_the_lag_is_back_within_three_frames(stage: SetUp, held_s: float, repeat: bool) -> None:
    """A steady sink goes on with the last picture meanwhile."""
    it = stage(repeat=repeat)
    it.start()
    it.wait(lambda: len(it.writes) >= 15)
    it.generator.gate.clear()
    time.sleep(held_s)
    during = list(it.writes)
    released = len(it.writes)
    it.generator.gate.set()
    it.wait(lambda: len(it.writes) >= released + 15)
    it.end()
    last_before = during[-1].sequence
    after = [w for w in it.writes[released:] if w.sequence > last_before]
    fresh = [w for i, w in enumerate(after) if i == 0 or w.sequence != after[i - 1].sequence]
    print("\nlag after release, ms:", [round(1000 * w.lag_s) for w in fresh[:6]])
    seen_s = during[-1].lag_s if repeat else fresh[0].lag_s
    assert seen_s > 0.8 * held_s, "the stall was not seen"
    assert min(w.lag_s for w in fresh[:3]) < 2 / FPS
    assert np.median([w.lag_s for w in fresh[2:]]) < 2 / FPS
    gaps_s = np.diff([w.at_s for w in it.writes[5:]])
    if repeat:
        assert max(gaps_s) < 0.25, "frames stopped coming"
        assert it.ledger.snapshot().late > 0.7 * held_s * FPS
    else:
        assert max(gaps_s) > 0.8 * held_s


def test_a_lost_camera_gives_idle_life_and_comes_back(stage: SetUp, astronaut: Enrollment) -> None:
    it = stage()
    it.start()
    it.wait(lambda: len(it.writes) >= 10)
    it.source.lost = True
    time.sleep(0.1)
    lost = len(it.writes)
    it.wait(lambda: len(it.writes) >= lost + 25)
    idle_for = it.generator.motions[lost + 2 : lost + 24]
    lost_at_s, idle_at_s = it.writes[lost - 1].at_s, it.writes[lost + 1].at_s
    assert idle_at_s - lost_at_s < IDLE_AFTER_S + 0.3, "the picture froze before idle life set in"
    assert all(m.confidence == 0 for m in idle_for)
    assert len({m.rotation_rad.tobytes() for m in idle_for[12:]}) >= 8, "idle, but not alive"
    times_s = [m.time_s for m in it.generator.motions[1 : lost + 24]]
    assert all(b > a for a, b in pairwise(times_s)), "media time went back"
    it.source.lost = False
    asked = len(it.generator.motions)
    it.wait(lambda: it.generator.motions[-1].confidence > 0)
    it.wait(lambda: len(it.generator.motions) >= asked + 15)
    it.end()
    after = it.generator.motions[asked:]
    back = next(k for k, m in enumerate(after) if m.confidence > 0)
    assert back < 8, "the camera is back, the avatar is not"
    assert all(m.confidence > 0.3 for m in after[back:])
    # recovered: the third frame is the tracked motion again
    assert np.allclose(after[back + 2].expression, astronaut.motion.expression, atol=1e-3)


def test_a_camera_that_is_away_from_the_start(stage: SetUp) -> None:
    source = FakeSource(fps=FPS, is_live=True)
    source.lost = True
    it = stage(source)
    it.start()
    it.wait(lambda: len(it.writes) >= 5)
    it.end()
    assert {w.colour for w in it.writes} == {GREY}


def test_a_failing_tracker_is_counted_and_frames_go_on(stage: SetUp, astronaut: Enrollment) -> None:
    good, bad = [astronaut.motion] * 5, [RuntimeError("the tracker broke")] * 5
    it = stage(FakeSource(fps=FPS, is_live=True, count=15), tracker=FakeTracker([*good, *bad, *good]))
    it.start()
    outcome = it.join()
    snapshot = it.ledger.snapshot()
    assert snapshot.fault_stages["tracked"] == 5
    assert "the tracker broke" in str(snapshot.last_fault)
    assert outcome.frames + outcome.dropped == 15
    assert max(np.diff([w.at_s for w in it.writes])) < 0.25


def test_a_tracker_that_says_nan_is_a_lost_face(stage: SetUp, astronaut: Enrollment) -> None:
    nan = Motion(expression=np.full(52, np.nan, np.float32))
    it = stage(
        FakeSource(fps=FPS, is_live=True, count=15),
        tracker=FakeTracker([astronaut.motion] * 5 + [nan] * 10, neutral=astronaut.motion),
    )
    it.start()
    outcome = it.join()
    assert outcome.frames + outcome.dropped == 15
    assert all(m.is_finite() for m in it.generator.motions)
    assert it.ledger.snapshot().faults == 0


def test_a_failing_generator_shows_the_last_good_picture_easing_to_neutral(
    stage: SetUp, caplog: pytest.LogCaptureFixture
) -> None:
    it = stage()  # the neutral picture is drawn grey
    it.generator.colour = GREEN
    it.start()
    it.wait(lambda: len(it.writes) >= 5)
    it.generator.error = ValueError("out of memory")
    it.wait(lambda: it.ledger.snapshot().faults > 0)
    broken = len(it.writes)
    time.sleep(FAULT_EASE_S + 0.4)
    count = len(it.writes)
    eased = it.writes[broken:count]
    it.generator.error = None
    it.wait(lambda: len(it.writes) >= count + 5)
    it.end()

    colours = [w.colour for w in eased]
    assert np.abs(np.subtract(colours[0], GREEN)).max() <= 25, "the last good picture is not held first"
    assert np.abs(np.subtract(colours[-1], GREY)).max() <= 2, "it does not end in neutral"
    red = [c[0] for c in colours]
    assert red == sorted(red), "it jumps"
    assert max(np.diff(red)) < 40
    assert it.writes[-1].colour == GREEN
    assert max(np.diff([w.at_s for w in it.writes[2:]])) < 0.25, "frames stopped coming"
    assert it.ledger.snapshot().fault_stages["generated"] >= 20
    told = [r for r in caplog.records if "the generator failed" in r.message]
    assert len(told) == 1, "it is logged once, not once a frame"


def test_a_window_closed_by_its_user_is_no_failure(stage: SetUp) -> None:
    it = stage(sink=FakeSink(fail_at=10, error=SinkClosed("the window was closed")))
    it.start()
    assert it.join().frames == 10
    assert it.sink.outcome == "closed"


def test_a_failing_sink_ends_the_run_with_its_error(stage: SetUp) -> None:
    it = stage(sink=FakeSink(fail_at=10, error=SinkError("the disk is full; free some space")))
    it.start()
    with pytest.raises(SinkError, match="the disk is full"):
        it.join()
    assert it.sink.outcome == "aborted"


def test_a_generator_whose_weights_do_not_load_falls_back_and_the_run_says_so(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(_: object) -> FakeGenerator:
        raise WeightsError("the weights of damaged are cut short; download them again")

    monkeypatch.setitem(GENERATORS, "damaged", no_weights)
    driver = Driver(FakeTracker([astronaut.motion], neutral=astronaut.motion))
    avatar = Avatar(astronaut, driver, AvatarOptions(generator="damaged", size_px=64))
    assert avatar.generator_name == "geometric"
    assert avatar.notice is not None
    assert "damaged are cut short" in avatar.notice
    with FakeSink() as sink:
        source = FakeSource(count=3, notice="the clip has no sound")
        outcome = LiveLoop(source, avatar, sink, ledger=Ledger(), clock=SystemClock()).run()
    assert outcome.notice == f"{avatar.notice}; the clip has no sound"


def test_a_generator_that_loads_is_named_without_a_notice(stage: SetUp) -> None:
    it = stage(FakeSource(count=3))
    assert (it.avatar.generator_name, it.avatar.notice) == ("fake", None)
    it.start()
    assert it.join().notice is None


class BreakingSource(FakeSource):
    """Raises `error` at its tenth frame."""

    def __init__(self, error: Exception) -> None:
        super().__init__(fps=FPS, is_live=True)
        self.error = error

    def read(self, timeout_s: float | None = None) -> Frame | None:
        if self.sequence == 10:
            raise self.error
        return super().read(timeout_s)


@pytest.mark.parametrize("error", [DriverError("the video is damaged"), ZeroDivisionError("a bug")])
def test_a_source_that_breaks_ends_the_run_with_its_error(stage: SetUp, error: Exception) -> None:
    it = stage(BreakingSource(error))
    it.start()
    with pytest.raises(type(error), match=str(error)):
        it.join()
    assert len(it.writes) >= 5, "what was captured before is not shown"


@pytest.mark.parametrize("where", ["track", "show_drive"])
@pytest.mark.parametrize("repeat", [False, True], ids=["newest", "steady"])
def test_an_avatar_that_breaks_ends_the_run_and_does_not_hang(
    stage: SetUp, monkeypatch: pytest.MonkeyPatch, repeat: bool, where: str
) -> None:
    """What no fallback foresaw."""
    it = stage(repeat=repeat)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Avatar, where, broken)
    it.start()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        it.join()


def test_the_last_frame_is_shown(stage: SetUp) -> None:
    for _ in range(8):
        it = stage(FakeSource(count=7))  # as fast as it can
        it.start()
        it.join()
        assert it.writes[-1].sequence == 6


def test_stop_from_another_thread_ends_soon(stage: SetUp) -> None:
    it = stage()
    it.start()
    it.wait(lambda: len(it.writes) >= 3)
    begin_s = time.monotonic()
    outcome = it.end()
    assert time.monotonic() - begin_s < 0.6
    assert outcome.frames == len(it.writes)


def test_a_steady_sink_gets_its_own_rate_from_a_slow_source(stage: SetUp) -> None:
    """A camera at 8 fps does not make the virtual camera stutter below its rate, and repeats count as late."""
    source = FakeSource(fps=FPS, is_live=True)
    it = stage(source, repeat=True)
    it.generator.seconds = 1 / 8
    it.start()
    it.wait(lambda: len(it.writes) > 2)
    begin, begin_s = len(it.writes), time.monotonic()
    time.sleep(2)
    rate = (len(it.writes) - begin) / (time.monotonic() - begin_s)
    it.end()
    assert rate == pytest.approx(FPS, rel=0.2)
    snapshot = it.ledger.snapshot()
    assert 0.4 * snapshot.frames < snapshot.late < 0.9 * snapshot.frames


def test_sources_by_name(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="webcam:N"):
        open_source("webcam:front")
    with pytest.raises(DriverError, match="does not exist"):
        open_source(str(tmp_path / "nope.mp4"))
    with open_source(
        str(write_video(tmp_path / "v.mp4", [picture(k) for k in range(5)])), loop=True
    ) as source:
        assert source.info.duration_s is None
        assert not source.info.is_live


def test_run_refuses_what_cannot_work_and_closes_what_it_opened(
    astronaut: Enrollment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "v.mp4", [picture(k) for k in range(5)])
    before = clip.read_bytes()
    with pytest.raises(SinkError, match="the driving video itself"):
        run_live(astronaut, LiveOptions(str(clip), str(clip)))
    assert clip.read_bytes() == before

    closed: list[bool] = []
    close = Driver.close
    monkeypatch.setattr(Driver, "close", lambda self: (closed.append(True), close(self)))
    out = tmp_path / "o.mp4"
    with pytest.raises(GeneratorError, match="geometric"):
        run_live(astronaut, LiveOptions(str(clip), str(out), generator="nosuch"))
    assert closed == [True], "the tracker was left open"
    assert not out.exists()
