"""Two threads, one slot: order, the newest wins, every fault is survived, idle life goes on, and both threads end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from fakes import AT_LAST_S, FakeTracker, GlancedClock, picture

from engines.motion import ARKIT_INDEX, Motion
from streamer import pipeline as pipeline_module
from streamer.avatar import Driven, Shown
from streamer.drive.driver import Drive, Driver
from streamer.drive.idle import IDLE_AFTER_S, IDLE_FPS
from streamer.drive.presence import EASE_S, HOLD_S
from streamer.drive.trackers.tracker import Track
from streamer.frame import STAGES, Frame, LatencyTrace
from streamer.pipeline import TrackThenDraw
from streamer.slot import Slot

FPS = 30.0
FACE = Motion(expression=np.full(52, 0.5, np.float32))
Incoming = tuple[Frame, int] | Exception


class ThreadedTracker(FakeTracker):
    """Notes in which threads it is used; `gate`, when clear, holds it."""

    def __init__(self) -> None:
        super().__init__([FACE], neutral=Motion())
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.threads: set[str] = set()

    def track(self, frame: Frame) -> Track:
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        self.gate.wait()
        return super().track(frame)

    def retake_neutral(self) -> None:
        self.threads.add(threading.current_thread().name)
        super().retake_neutral()


class Figure:
    """Stands in for `Avatar`: a real driver on a fake tracker; the picture is the frame's own.

    `track_error` and `draw_error`, when set, are raised; `gate`, when clear, holds the drawing.
    """

    def __init__(self) -> None:
        self.clock = GlancedClock()
        self.tracker = ThreadedTracker()
        self.driver = Driver(self.tracker, smooth=False)
        self.gate = threading.Event()
        self.gate.set()
        self.track_error: Exception | None = None
        self.draw_error: Exception | None = None
        self.draws = 0
        self.threads: set[str] = set()

    def track(self, frame: Frame) -> Driven:
        if self.track_error is not None:
            raise self.track_error
        drive = self.driver.drive(frame)
        return Driven(frame.mark("tracked", self.clock.now_ns()), drive)

    def track_idle(self, time_s: float, sequence: int) -> Driven:
        now_ns = self.clock.now_ns()
        frame = Frame(time_s, now_ns, LatencyTrace({"captured": now_ns}), sequence, image=picture())
        return Driven(frame, self.driver.idle(time_s))

    def show_drive(self, drive: Drive, frame: Frame) -> Shown:
        self.threads.add(threading.current_thread().name)
        self.draws += 1
        self.gate.wait()
        if self.draw_error is not None:
            raise self.draw_error
        for stage in ("fitted", "generated", "composited"):
            frame = frame.mark(stage, self.clock.now_ns())
        return Shown(frame, drive)


@dataclass
class Bench:
    """A pipeline that runs in a thread called "tracking"."""

    figure: Figure = field(default_factory=Figure)
    frames: Slot[Incoming] = field(default_factory=Slot[Incoming])
    given: list[tuple[Shown, int | None]] = field(default_factory=list[tuple[Shown, int | None]])
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    drops: int = 0
    looks: int = 0
    on_give: Callable[[], None] = lambda: None
    ended: threading.Event = field(default_factory=threading.Event)
    give_error: Exception | None = None
    pipeline: TrackThenDraw[int] = field(init=False)
    thread: threading.Thread = field(init=False)

    def start(self, *, idles: bool = False) -> None:
        self.pipeline = TrackThenDraw[int](
            self.figure,  # type: ignore[arg-type]
            self.figure.clock,
            take=self.take,
            give=self.give,
            on_dropped=self.drop,
            on_fault=lambda stage, error: self.faults.append((stage, str(error))),
            ended=self.ended.is_set,
            idles=idles,
        )
        self.thread = threading.Thread(target=self.pipeline.run, name="tracking", daemon=True)
        self.thread.start()

    def start_in_drawing(self) -> None:
        """Start, with frame 0 in drawing until `figure.gate` is set."""
        self.start()
        self.figure.gate.clear()
        self.put(0)
        wait(lambda: self.figure.draws == 1, "the first frame to be drawn")

    def take(self, timeout_s: float) -> tuple[Frame, int] | None:
        self.looks += 1
        taken = self.frames.take(timeout_s)
        if isinstance(taken, Exception):
            raise taken
        return taken

    def give(self, shown: Shown, note: int | None) -> None:
        if self.give_error is not None:
            raise self.give_error
        self.given.append((shown, note))
        self.on_give()

    def drop(self) -> None:
        self.drops += 1

    def put(self, k: int, time_s: float | None = None) -> None:
        now_ns = self.figure.clock.now_ns()
        trace = LatencyTrace({"captured": now_ns, "decoded": now_ns})
        frame = Frame(k / FPS if time_s is None else time_s, now_ns, trace, k, image=picture(k))
        assert not self.frames.put((frame, 100 + k)), "the bench itself was too fast"

    def show(self, k: int) -> None:
        """Frame k in, and wait for its picture."""
        self.put(k)
        wait(lambda: bool(self.given) and self.given[-1][1] == 100 + k, f"picture {k}")

    @property
    def notes(self) -> list[int | None]:
        return [note for _, note in self.given]

    def end(self) -> None:
        self.pipeline.stop()
        self.frames.close()
        self.thread.join(AT_LAST_S)
        assert not self.thread.is_alive()


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + AT_LAST_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.002)


def threads_left() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in ("tracking", "drawing")]


@pytest.fixture
def bench() -> Iterator[Bench]:
    it = Bench()
    yield it
    it.figure.gate.set()
    it.figure.tracker.gate.set()
    it.end()
    assert threads_left() == []


def test_every_frame_of_a_quiet_system_is_drawn_in_order_with_its_note(bench: Bench) -> None:
    bench.start()
    for k in range(25):
        bench.show(k)
    assert bench.notes == [100 + k for k in range(25)]
    assert [shown.frame.sequence for shown, _ in bench.given] == list(range(25))
    assert [shown.frame.pts_s for shown, _ in bench.given] == [k / FPS for k in range(25)], "times are exact"
    assert all(shown.drive.state == "tracking" for shown, _ in bench.given)
    assert (bench.drops, bench.pipeline.dropped, bench.faults) == (0, 0, [])


def test_stamps_rise_from_stage_to_stage_and_add_up(bench: Bench) -> None:
    bench.start()
    for k in range(10):
        bench.show(k)
    for shown, _ in bench.given:
        stamps = shown.frame.trace.stamps_ns
        passed = [s for s in STAGES if s in stamps]
        assert passed == ["captured", "decoded", "tracked", "waited", "fitted", "generated", "composited"]
        assert all(stamps[b] >= stamps[a] for a, b in pairwise(passed))
        assert sum(shown.frame.trace.stage_ms().values()) == pytest.approx(shown.frame.trace.total_ms())
    for stage in ("captured", "tracked", "waited", "composited"):
        times_ns = [shown.frame.trace.stamps_ns[stage] for shown, _ in bench.given]
        assert times_ns == sorted(times_ns)


def test_drawing_and_stopping_are_woken_and_do_not_poll(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "_LOOK_AGAIN_S", 10 * AT_LAST_S)
    bench.start()
    for k in range(5):
        bench.show(k)
    bench.end()


def test_the_next_frame_is_tracked_while_one_is_drawn(bench: Bench) -> None:
    bench.start_in_drawing()
    bench.put(1)
    wait(lambda: bench.figure.tracker.calls == 2, "the second to be tracked meanwhile")
    assert bench.given == []
    bench.figure.gate.set()
    wait(lambda: bench.notes == [100, 101], "both pictures")
    assert bench.drops == 0


def test_the_newest_wins_and_what_it_replaced_is_counted(bench: Bench) -> None:
    bench.start_in_drawing()
    for k in range(1, 6):
        bench.put(k)
        wait(lambda k=k: bench.figure.tracker.calls == k + 1, f"frame {k} to be tracked")
    wait(lambda: bench.drops == 4, "the drops")
    bench.figure.gate.set()
    wait(lambda: bench.notes == [100, 105], "the newest after the one in work")
    assert bench.pipeline.dropped == bench.drops == 4


def test_each_side_stays_in_its_thread_and_a_new_neutral_is_taken_by_the_tracking_one(bench: Bench) -> None:
    bench.start(idles=True)
    bench.show(0)
    bench.figure.tracker.entered.clear()
    bench.figure.tracker.gate.clear()
    bench.put(1)
    wait(bench.figure.tracker.entered.is_set, "a frame in the tracker")
    bench.figure.driver.recalibrate()  # from this thread, in the middle of a frame
    assert bench.figure.tracker.retakes == 0
    bench.figure.tracker.gate.set()
    wait(lambda: bench.notes == [100, 101], "that frame")
    bench.show(2)
    bench.show(3)
    assert bench.figure.tracker.retakes == 1
    assert bench.figure.tracker.threads == {"tracking"}
    assert bench.figure.threads == {"drawing"}


@pytest.mark.parametrize("where", ["decoded", "tracked", "generated", "encoded"])
def test_a_fault_costs_its_own_frame_and_no_other(bench: Bench, where: str) -> None:
    bench.start()
    bench.show(0)
    error = ZeroDivisionError("a bug")
    for k in range(1, 4):
        if where == "decoded":
            bench.frames.put(error)
        else:
            bench.figure.track_error = error if where == "tracked" else None
            bench.figure.draw_error = error if where == "generated" else None
            bench.give_error = error if where == "encoded" else None
            bench.put(k)
        wait(lambda k=k: len(bench.faults) == k, f"fault {k}")
    bench.figure.track_error = bench.figure.draw_error = bench.give_error = None
    bench.show(4)
    bench.show(5)
    assert bench.notes == [100, 104, 105]
    assert bench.faults == [(where, "a bug")] * 3


def test_a_tracker_that_fails_costs_the_face_not_the_picture(bench: Bench) -> None:
    bench.start()
    bench.show(0)
    bench.figure.tracker.script.append(RuntimeError("the graph has died"))
    for k in range(1, 5):
        bench.show(k)
    assert [shown.drive.state for shown, _ in bench.given] == ["tracking"] + ["fault"] * 4
    assert bench.faults == [], "the driver has an answer to it"


@pytest.mark.slow
def test_missing_frames_are_made_up_for_by_idle_life_that_eases_in_and_out(bench: Bench) -> None:
    bench.start(idles=True)
    for k in range(5):
        bench.show(k)
    quiet_from_s = bench.figure.clock.now_ns() / 1e9
    bench.figure.clock.advance(0.9 * IDLE_AFTER_S)
    looks = bench.looks
    wait(lambda: bench.looks >= looks + 3, "a look for frames")
    assert len(bench.given) == 5, "idle though the camera is only late"
    bench.on_give = lambda: bench.figure.clock.advance(1 / IDLE_FPS)
    bench.figure.clock.advance(0.2 * IDLE_AFTER_S)
    wait(lambda: len(bench.given) > 5, "idle life")
    wait(lambda: bench.given[-1][0].drive.state == "idle", "the end of holding")

    def quiet_s() -> float:
        return bench.figure.clock.now_ns() / 1e9 - quiet_from_s

    wait(lambda: quiet_s() > IDLE_AFTER_S + HOLD_S + EASE_S + 0.2, "the easing")
    idle = [shown for shown, _ in bench.given[5:]]
    assert set(bench.notes[5:]) == {None}
    assert all(not shown.drive.face for shown in idle)
    jaw = [float(shown.drive.motion.expression[ARKIT_INDEX["jawOpen"]]) for shown in idle]
    assert jaw == sorted(jaw, reverse=True), "it jumps"
    assert jaw[0] == pytest.approx(0.5)
    assert jaw[-1] == pytest.approx(0, abs=0.01)
    bench.on_give = lambda: None
    bench.put(5, time_s=5 / FPS + quiet_s() + 0.1)  # as its camera tells it
    wait(lambda: bench.notes[-1] == 105, "the camera again")
    times_s = [shown.frame.pts_s for shown, _ in bench.given]
    assert all(b > a for a, b in pairwise(times_s)), "media time went back"
    assert bench.given[-1][0].drive.face


def test_without_idle_life_nothing_comes_where_nothing_went_in(bench: Bench) -> None:
    bench.start(idles=False)
    bench.show(0)
    bench.figure.clock.advance(10 * IDLE_AFTER_S)
    looks = bench.looks
    wait(lambda: bench.looks >= looks + 3, "a look for frames")
    assert len(bench.given) == 1


def test_a_camera_that_comes_late_goes_on_in_the_time_of_idle_life(bench: Bench) -> None:
    bench.on_give = lambda: bench.figure.clock.advance(1 / IDLE_FPS)
    bench.start(idles=True)
    wait(lambda: bench.looks > 0, "the first look for frames")
    bench.figure.clock.advance(IDLE_AFTER_S)
    wait(lambda: len(bench.given) >= 6, "idle life before any camera")
    bench.on_give = lambda: None
    before_s = bench.given[-1][0].frame.pts_s
    assert before_s > IDLE_AFTER_S
    for k in range(3):
        bench.show(k)  # its own time starts at 0
    first, *_, last = (shown.frame.pts_s for shown, note in bench.given if note is not None)
    assert first > before_s
    assert last - first == pytest.approx(2 / FPS), "the camera's own steps are kept"


@pytest.mark.slow
def test_at_the_end_the_last_frame_is_drawn_and_both_threads_are_gone(bench: Bench) -> None:
    for k in range(8):
        it = bench if k == 0 else Bench()
        it.put(7)
        it.ended.set()
        it.start()
        it.thread.join(AT_LAST_S)
        assert not it.thread.is_alive()
        assert it.notes == [107]
    assert threads_left() == []


def test_stop_ends_both_threads(bench: Bench) -> None:
    bench.start(idles=True)
    bench.show(0)
    bench.pipeline.stop()
    bench.thread.join(AT_LAST_S)
    assert threads_left() == []


def test_stop_waits_for_the_frames_in_work_and_draws_no_other(bench: Bench) -> None:
    bench.start_in_drawing()
    bench.put(1)
    wait(lambda: bench.figure.tracker.calls == 2, "the second to be tracked")
    bench.pipeline.stop()
    bench.thread.join(0.3)
    assert bench.thread.is_alive(), "whoever frees the avatar now frees what is in use"
    bench.figure.gate.set()
    bench.thread.join(AT_LAST_S)
    assert not bench.thread.is_alive()
    assert bench.notes == [100]


def test_stopped_before_it_runs_it_takes_and_draws_nothing() -> None:
    it = Bench()
    it.put(0)
    pipeline = TrackThenDraw[int](
        it.figure,  # type: ignore[arg-type]
        it.figure.clock,
        take=it.take,
        give=it.give,
        on_dropped=it.drop,
        on_fault=lambda *_: None,
    )
    pipeline.stop()
    pipeline.run()
    assert it.given == []
    assert it.frames.take(0) is not None, "it took a frame"
