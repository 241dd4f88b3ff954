"""The live loop: the newest frame wins, frames never stop coming, and it ends cleanly however it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    AT_LAST_S,
    CountingGate,
    FakeGenerator,
    FakeSink,
    FakeSource,
    FakeTracker,
    GlancedClock,
    StepSource,
    entry,
    picture,
    write_video,
)

from calibration.neutral import NeutralReport
from engines.enrollment import Enrollment
from engines.errors import DriverError, GeneratorError, SinkError, WeightsError
from engines.generators.registry import GENERATORS
from engines.geometry import rotation_from_degrees
from engines.motion import Motion
from streamer.avatar import FAULT_EASE_S, Avatar
from streamer.clock import SystemClock
from streamer.drive.driver import Driver
from streamer.drive.idle import IDLE_AFTER_S, IDLE_FPS
from streamer.drive.trackers.tracker import Track
from streamer.frame import Frame
from streamer.latency.ledger import Ledger
from streamer.live import LiveLoop, Outcome
from streamer.options import AvatarOptions
from streamer.sinks.sink import SinkClosed
from streamer.sources.open import open_source
from streamer.start_live import LiveOptions, run_live

FPS = 25.0
THREADS = ("loop", "capture", "tracking", "drawing")
GREY = (120, 120, 120)
GREEN = (20, 220, 20)


class HeldTracker(FakeTracker):
    """`gate`, when clear, holds it."""

    def __init__(self, script: Sequence[Motion | BaseException | None], neutral: Motion) -> None:
        super().__init__(script, neutral=neutral)
        self.gate = CountingGate()

    def track(self, frame: Frame) -> Track:
        self.gate.wait()
        return super().track(frame)


@dataclass(frozen=True)
class Write:
    """One delivered frame: when by the loop's clock, when it was captured, which picture."""

    at_s: float
    capture_ns: int
    sequence: int
    colour: tuple[int, int, int]


@dataclass
class Stage:
    """A live loop of fakes around a real avatar, running in a thread and in a time of its own."""

    clock: GlancedClock
    source: FakeSource
    sink: FakeSink
    generator: FakeGenerator
    generator_gate: CountingGate
    tracker: HeldTracker
    ledger: Ledger
    avatar: Avatar
    loop: LiveLoop
    writes: list[Write] = field(default_factory=list[Write])
    on_write: Callable[[], None] = lambda: None
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

    def join(self) -> Outcome:
        assert self.thread is not None
        self.thread.join(AT_LAST_S)
        assert not self.thread.is_alive(), "the loop does not end"
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    def wait(self, what: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + AT_LAST_S
        while not what():
            assert time.monotonic() < deadline_s, "it never happened"
            time.sleep(0.002)

    def step(self) -> None:
        """One more frame in."""
        assert isinstance(self.source, StepSource)
        self.source.step()

    def give(self, count: int) -> None:
        """`count` frames, each when the one before has been delivered."""
        for _ in range(count):
            sequence, begin_ns = self.source.sequence, self.clock.now_ns()
            self.step()
            self.wait(
                lambda sequence=sequence, begin_ns=begin_ns: any(
                    w.sequence == sequence and w.capture_ns > begin_ns for w in self.writes[-3:]
                )
            )

    def fresh(self) -> list[int]:
        """The numbers of the frames delivered, repetitions left out."""
        pairs = pairwise([None, *self.writes])
        return [w.sequence for v, w in pairs if w and (v is None or w.capture_ns != v.capture_ns)]


SetUp = Callable[..., Stage]


@pytest.fixture
def stage(astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """`stage(source, sink=…, script=…, repeat=…)`; afterwards no thread of the loop may be left."""
    made: list[Stage] = []

    def make(
        source: FakeSource | None = None,
        *,
        sink: FakeSink | None = None,
        script: Sequence[Motion | BaseException | None] = (astronaut.motion,),
        repeat: bool = False,
    ) -> Stage:
        clock = GlancedClock()
        source = source or StepSource(fps=FPS, is_live=True)
        source.clock = clock
        generator = FakeGenerator(GREY)
        generator_gate = generator.gate = CountingGate()
        monkeypatch.setitem(GENERATORS, "fake", entry(lambda _: generator))
        ledger = Ledger()
        tracker = HeldTracker(script, astronaut.motion)
        driver = Driver(tracker, on_fault=lambda error: ledger.fault("tracked", error))
        options = AvatarOptions(generator="fake", size_px=64)
        avatar = Avatar(astronaut, driver, options, clock=clock, on_fault=ledger.fault)
        sink = sink or FakeSink()
        loop = LiveLoop(source, avatar, sink, ledger=ledger, clock=clock, repeat=repeat)
        it = Stage(clock, source, sink, generator, generator_gate, tracker, ledger, avatar, loop)

        def note(frame: Frame) -> None:
            r, g, b = (int(v) for v in frame.image[32, 32])
            it.writes.append(Write(clock.now_ns() / 1e9, frame.capture_time_ns, frame.sequence, (r, g, b)))
            it.on_write()

        sink._on_write = note
        made.append(it)
        return it

    yield make
    for it in made:
        it.generator_gate.set()
        it.tracker.gate.set()
        it.sink.gate.set()
        it.loop.stop()
        if it.thread is not None:
            it.thread.join(AT_LAST_S)
    left = [t.name for t in threading.enumerate() if t.name in THREADS]
    assert left == [], f"threads left behind: {left}"


def test_every_frame_arrives_in_order_with_its_capture_time(stage: SetUp) -> None:
    it = stage(StepSource(fps=FPS, is_live=True, count=20))
    it.start()
    it.give(20)
    outcome = it.join()
    assert (outcome.frames, outcome.dropped) == (20, 0)
    assert [w.sequence for w in it.writes] == list(range(20))
    captured_s = [w.capture_ns / 1e9 for w in it.writes]
    assert captured_s == pytest.approx([(k + 1) / FPS for k in range(20)], abs=0.01)
    snapshot = it.ledger.snapshot()
    assert (snapshot.frames, snapshot.late, snapshot.faults) == (20, 0, 0)
    assert it.sink.outcome == "closed"


@pytest.mark.parametrize("where", ["tracked", "fitted", "sent"])
def test_the_newest_frame_wins_and_drops_are_counted(stage: SetUp, where: str) -> None:
    """Whatever is too slow, the frame after the one in work is the newest."""
    it = stage()
    it.sink.gate = CountingGate()
    gates = {"tracked": it.tracker.gate, "fitted": it.generator_gate, "sent": it.sink.gate}
    # how many frames came as far as the slot before what is held
    before = {
        "tracked": lambda: it.source.sequence,
        "fitted": lambda: it.tracker.calls,
        "sent": lambda: len(it.generator.motions),
    }[where]
    gate = gates[where]
    it.start()
    it.give(3)
    arrived = gate.arrived
    gate.clear()
    it.step()
    it.wait(lambda: gate.arrived == arrived + 1)
    for _ in range(10):
        passed = before()
        it.step()
        it.wait(lambda passed=passed: before() == passed + 1)
    it.wait(lambda: it.ledger.snapshot().dropped.get(where) == 9)
    assert len(it.writes) == 3
    gate.set()
    it.wait(lambda: it.writes[-1].sequence == 13)
    outcome = it.end()
    # the frame in work may itself be overtaken on the rest of its way
    assert it.fresh() in ([0, 1, 2, 3, 13], [0, 1, 2, 13])
    assert outcome.frames + outcome.dropped == 14, "frames are unaccounted for"
    assert sum(it.ledger.snapshot().dropped.values()) == outcome.dropped


class FastSource(FakeSource):
    """Far more frames than can be drawn."""

    def read(self, timeout_s: float | None = None) -> Frame | None:
        time.sleep(0.0005)
        return super().read(timeout_s)


@pytest.mark.slow
def test_nothing_queues_up_however_fast_frames_come(stage: SetUp) -> None:
    """Of all frames captured, those neither delivered nor counted as dropped fit into hands and slots."""
    source = FastSource()
    it = stage(source)
    on_the_way: list[int] = []

    def count() -> None:
        captured = source.sequence
        on_the_way.append(captured - sum(it.ledger.snapshot().dropped.values()) - len(it.writes))

    it.on_write = count
    it.start()
    it.wait(lambda: len(it.writes) >= 200)
    it.end()
    assert source.sequence > len(it.writes)
    # three hands and three slots, and three more that were overwritten but are not counted yet
    assert max(on_the_way) <= 9


@pytest.mark.parametrize("repeat", [False, True], ids=["newest", "steady"])
def test_after_a_stall_the_newest_frame_comes_next(stage: SetUp, repeat: bool) -> None:
    """A steady sink goes on with the last picture meanwhile, at its own rate, and repetitions count as late."""
    it = stage(StepSource(fps=FPS), repeat=repeat)
    if repeat:
        it.on_write = lambda: time.sleep(0.001)  # its clock is virtual: it need not be that quick
    it.start()
    it.give(5)
    arrived = it.generator_gate.arrived
    it.generator_gate.clear()
    it.step()
    it.wait(lambda: it.generator_gate.arrived == arrived + 1)
    for k in range(10):
        it.step()
        it.wait(lambda k=k: it.tracker.calls == 7 + k)
    it.wait(lambda: it.ledger.snapshot().dropped.get("fitted") == 9)
    stalled = len(it.writes)
    if repeat:
        it.wait(lambda: len(it.writes) >= stalled + 50)
    assert {w.sequence for w in it.writes[stalled:]} <= {4}
    it.generator_gate.set()
    it.wait(lambda: it.writes[-1].sequence == 15)
    it.end()
    assert it.fresh() in ([0, 1, 2, 3, 4, 5, 15], [0, 1, 2, 3, 4, 15])
    assert it.ledger.snapshot().late == len(it.writes) - len(it.fresh())
    if repeat:
        steps_s = np.diff([w.at_s for w in it.writes])
        assert steps_s == pytest.approx(1 / FPS, abs=0.005), "frames stopped coming, or came in bursts"
    else:
        assert len(it.writes) == len(it.fresh())


@pytest.mark.slow
def test_a_lost_camera_gives_idle_life_and_comes_back(stage: SetUp, astronaut: Enrollment) -> None:
    it = stage()
    it.start()
    it.give(10)
    lost = len(it.generator.motions)
    it.on_write = lambda: it.clock.advance(1 / IDLE_FPS)
    it.clock.advance(IDLE_AFTER_S)
    it.wait(lambda: len(it.generator.motions) >= lost + 26)
    idle_for = it.generator.motions[lost : lost + 26]
    assert all(m.confidence == 0 for m in idle_for)
    assert len({m.rotation_rad.tobytes() for m in idle_for[14:]}) >= 8, "idle, but not alive"
    times_s = [m.time_s for m in it.generator.motions[1 : lost + 26]]
    assert all(b > a for a, b in pairwise(times_s)), "media time went back"
    asked = len(it.generator.motions)
    it.give(15)
    it.end()
    after = it.generator.motions[asked:]
    back = next(k for k, m in enumerate(after) if m.confidence > 0)
    assert len(after) - back == 15, "idle life goes on beside the camera"
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
    it = stage(StepSource(fps=FPS, is_live=True, count=15), script=[*good, *bad, *good])
    it.start()
    it.give(15)
    outcome = it.join()
    snapshot = it.ledger.snapshot()
    assert snapshot.fault_stages["tracked"] == 5
    assert "the tracker broke" in str(snapshot.last_fault)
    assert (outcome.frames, outcome.dropped) == (15, 0)


def test_a_tracker_that_says_nan_is_a_lost_face(stage: SetUp, astronaut: Enrollment) -> None:
    nan = Motion(expression=np.full(52, np.nan, np.float32))
    it = stage(StepSource(fps=FPS, is_live=True, count=15), script=[astronaut.motion] * 5 + [nan] * 10)
    it.start()
    it.give(15)
    outcome = it.join()
    assert (outcome.frames, outcome.dropped) == (15, 0)
    assert all(m.is_finite() for m in it.generator.motions)
    assert it.ledger.snapshot().faults == 0


def test_a_failing_generator_shows_the_last_good_picture_easing_to_neutral(
    stage: SetUp, caplog: pytest.LogCaptureFixture
) -> None:
    it = stage()  # the neutral picture is drawn grey
    it.generator.colour = GREEN
    it.start()
    it.give(5)
    it.generator.error = ValueError("out of memory")
    broken = round((FAULT_EASE_S + 0.4) * FPS)
    it.give(broken)
    eased = it.writes[5:]
    it.generator.error = None
    it.give(5)
    it.end()

    colours = [w.colour for w in eased]
    assert np.abs(np.subtract(colours[0], GREEN)).max() <= 25, "the last good picture is not held first"
    assert np.abs(np.subtract(colours[-1], GREY)).max() <= 2, "it does not end in neutral"
    red = [c[0] for c in colours]
    assert red == sorted(red), "it jumps"
    assert max(np.diff(red)) < 40
    assert it.writes[-1].colour == GREEN
    assert it.ledger.snapshot().fault_stages["generated"] == broken
    told = [r for r in caplog.records if "the generator failed" in r.message]
    assert len(told) == 1, "it is logged once, not once a frame"


def test_a_window_closed_by_its_user_is_no_failure(stage: SetUp) -> None:
    it = stage(FakeSource(fps=FPS), sink=FakeSink(fail_at=10, error=SinkClosed("the window was closed")))
    it.start()
    assert it.join().frames == 10
    assert it.sink.outcome == "closed"


def test_a_failing_sink_ends_the_run_with_its_error(stage: SetUp) -> None:
    it = stage(
        FakeSource(fps=FPS), sink=FakeSink(fail_at=10, error=SinkError("the disk is full; free some space"))
    )
    it.start()
    with pytest.raises(SinkError, match="the disk is full"):
        it.join()
    assert it.sink.outcome == "aborted"


def test_a_generator_whose_weights_do_not_load_falls_back_and_the_run_says_so(
    astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(_: object) -> FakeGenerator:
        raise WeightsError("the weights of damaged are cut short; download them again")

    monkeypatch.setitem(GENERATORS, "damaged", entry(no_weights))
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


def test_what_the_face_at_rest_waits_for_is_said_while_it_waits_and_only_to_a_camera(
    stage: SetUp, astronaut: Enrollment
) -> None:
    for live in (True, False):
        told: list[str] = []
        source = StepSource(fps=FPS, is_live=live, count=80)
        it = stage(source, script=[astronaut.motion])
        it.loop._say = told.append
        it.tracker.report = NeutralReport("waiting", ("talking",), 0)
        it.start()
        it.give(70)
        it.tracker.report = NeutralReport("taken", (), 1)
        it.give(5)
        notice = it.end().notice
        assert notice is None, "what is over is no outcome"
        if live:
            assert [t for t in told if "rest" in t] == [
                "waiting for your face at rest: be silent for a second",
                "your face at rest was taken",
            ]
        else:
            assert told == []


def test_whoever_a_phone_sees_is_told_what_rest_waits_for_and_nothing_of_a_camera(
    stage: SetUp, astronaut: Enrollment
) -> None:
    lying = replace(astronaut.motion, rotation_rad=rotation_from_degrees(0, 0, 90).astype(np.float32))
    told: list[str] = []
    source = StepSource(fps=FPS, is_live=True, count=80)
    source._info = replace(source.info, size_px=None, tells_motion=True)
    it = stage(source, script=[lying])
    it.loop._say = told.append
    it.tracker.report = NeutralReport("waiting", ("moving",), 0)
    it.start()
    it.give(70)
    it.end()
    assert told == ["waiting for your face at rest: hold your head still"]


def test_a_camera_that_lies_on_its_side_is_said_once_and_only_of_cameras(
    stage: SetUp, astronaut: Enrollment
) -> None:
    lying = replace(astronaut.motion, rotation_rad=rotation_from_degrees(0, 0, 90).astype(np.float32))
    it = stage(StepSource(fps=FPS, is_live=True, count=60), script=[lying])
    it.start()
    it.give(60)
    notice = it.end().notice
    assert notice is not None
    assert notice.startswith("the camera's picture lies on its side")
    it = stage(FakeSource(count=60), script=[lying])  # a file: it was turned before, or nobody could tell
    it.start()
    assert it.join().notice is None


class BreakingSource(StepSource):
    """Raises `error` after its tenth frame."""

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
    it.give(9)
    it.step()
    with pytest.raises(type(error), match=str(error)):
        it.join()
    assert [w.sequence for w in it.writes] == list(range(10)), "what was captured before is not shown"


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
    it.step()
    it.start()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        it.join()


@pytest.mark.slow
def test_the_last_frame_is_shown(stage: SetUp) -> None:
    for _ in range(8):
        it = stage(FakeSource(count=7))  # as fast as it can
        it.start()
        it.join()
        assert it.writes[-1].sequence == 6


def test_stop_from_another_thread_waits_for_no_frame(stage: SetUp) -> None:
    it = stage()
    it.start()
    it.give(3)
    outcome = it.end()
    assert outcome.frames == len(it.writes) == 3


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


@pytest.mark.parametrize(
    ("number", "raises"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_run_that_is_ended_before_its_first_picture_says_so(
    number: int,
    raises: type[BaseException],
    astronaut: Enrollment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(loop: LiveLoop) -> Outcome:
        signal.raise_signal(number)
        return Outcome(0, 0.1, 0)

    monkeypatch.setattr(LiveLoop, "run", run)
    clip = write_video(tmp_path / "v.mp4", [picture(k) for k in range(5)])
    options = LiveOptions(str(clip), str(tmp_path / "o.mp4"), generator="geometric", size_px=64)
    said: list[str] = []
    with pytest.raises(raises) as ended:
        run_live(astronaut, options, said.append)
    assert said == ["stopped before the first picture; nothing was recorded"]
    if isinstance(ended.value, SystemExit):
        assert ended.value.code == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]
