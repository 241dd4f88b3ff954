"""Whether one more call may begin, with numbers instead of calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.enrollment import Enrollment
from streamer.serve.capacity import (
    FALLBACK_DRAWING_MS,
    FULL_FPS,
    LEAST_FPS,
    MOST_LAG_MS,
    TRANSPORT_MS,
    USABLE_SHARE,
    CallKind,
    Capacity,
    Reading,
    cores_here,
)
from streamer.serve.start import measure_drawing_ms

USUAL = CallKind("geometric", 512, "webcam", "avatar", "mediapipe")
HEAVY = replace(USUAL, generator="visavis")
SMALL = replace(USUAL, size_px=256)


class Bench:
    """Calls that run as they are told to, two seconds at a time."""

    def __init__(self, cores: float, **kinds: CallKind) -> None:
        self.capacity = Capacity(cores)
        self.readings: dict[str, Reading] = {
            n: Reading(kind, 1, 1, 1.0, 20.0, 1) for n, kind in kinds.items()
        }
        self.now_s = self.cpu_s = 0.0
        self.capacity.sample(self.now_s, self.cpu_s, self.readings)

    def run(
        self,
        cores: float,
        fps: float = 30.0,
        asked_fps: float = 30.0,
        lag_ms: float = 20.0,
        times: int = 20,
    ) -> None:
        """All calls draw `fps` of `asked_fps` and use `cores` together, each in proportion to its guessed cost."""
        drawn, asked = round(2 * fps), round(2 * asked_fps)
        for _ in range(times):
            self.now_s += 2
            self.cpu_s += 2 * cores
            for name, r in self.readings.items():
                busy_ms = r.busy_ms + drawn * (1000 * r.kind.guessed_cores / FULL_FPS - TRANSPORT_MS)
                self.readings[name] = Reading(
                    r.kind, r.drawn + drawn, r.asked + asked, busy_ms, lag_ms, r.timed + drawn
                )
            self.capacity.sample(self.now_s, self.cpu_s, self.readings)

    def refusal(self, asked: CallKind) -> str | None:
        return self.capacity.refusal({name: r.kind for name, r in self.readings.items()}, asked)


def test_the_first_call_always_may() -> None:
    assert Capacity(0.01).refusal({}, replace(HEAVY, size_px=1024)) is None


def test_a_call_that_fits_may_and_one_that_does_not_is_told_what_would() -> None:
    assert Bench(64, one=HEAVY).refusal(HEAVY) is None
    refusal = Bench(2, one=HEAVY).refusal(HEAVY)
    assert refusal is not None
    for says in (
        "1 call up",
        "2 processor cores",
        "hang one up",
        "smaller size",
        "geometric",
        "VISAVIS_MAX_SESSIONS",
    ):
        assert says in refusal
    assert "\n" not in refusal
    light = Bench(1.5, one=USUAL).refusal(USUAL)
    assert light is not None
    assert "geometric" not in light, "what was asked for already is no help"


def test_what_a_call_costs_is_learnt_from_those_that_run() -> None:
    bench = Bench(2, one=USUAL)
    assert bench.refusal(USUAL) is not None, "as it was guessed"
    bench.run(cores=0.5)
    assert bench.capacity.cores_of(USUAL) == pytest.approx(0.5, rel=0.02)
    assert bench.refusal(USUAL) is None
    assert bench.capacity.cores_of(HEAVY) < 0.6 * HEAVY.guessed_cores, "a fast computer is fast at all of it"
    bench.run(cores=1.7)
    assert bench.refusal(USUAL) is not None, "it became slower"


def test_a_slow_computer_is_known_before_any_call() -> None:
    capacity = Capacity(4)
    assert capacity.refusal({"one": USUAL}, USUAL) is None
    capacity.calibrate(2 * FALLBACK_DRAWING_MS)
    assert capacity.cores_of(USUAL) == 2 * USUAL.guessed_cores
    assert capacity.refusal({"one": USUAL}, USUAL) is not None


def test_what_a_picture_takes_is_measured_at_the_start(astronaut: Enrollment) -> None:
    assert measure_drawing_ms(astronaut, pictures=2) > 0


def test_a_call_of_fewer_pictures_is_counted_as_if_it_had_all() -> None:
    bench = Bench(2, one=USUAL)
    bench.run(cores=0.5, fps=15, asked_fps=15)
    assert bench.capacity.cores_of(USUAL) == pytest.approx(1.0, rel=0.02)


def test_each_call_is_told_from_the_other_by_its_work() -> None:
    bench = Bench(8, one=HEAVY, two=SMALL)
    together = HEAVY.guessed_cores + SMALL.guessed_cores
    bench.run(cores=0.5 * together)
    assert bench.capacity.cores_of(HEAVY) == pytest.approx(0.5 * HEAVY.guessed_cores, rel=0.05)
    assert bench.capacity.cores_of(SMALL) == pytest.approx(0.5 * SMALL.guessed_cores, rel=0.05)


@pytest.mark.parametrize(
    ("fps", "asked_fps", "lag_ms", "says"),
    [
        (LEAST_FPS - 1, 30, 20, "gets 23 pictures a second"),
        (30, 30, MOST_LAG_MS + 1, "is 151 ms late"),
        (LEAST_FPS + 1, 30, MOST_LAG_MS - 1, None),
        (15, 15, 20, None),  # a slow camera is no overload
    ],
)
def test_nobody_comes_to_calls_that_suffer_already(
    fps: float, asked_fps: float, lag_ms: float, says: str | None
) -> None:
    bench = Bench(1000, one=USUAL)
    bench.run(2, fps, asked_fps, lag_ms, times=1)
    refusal = bench.refusal(SMALL)
    assert says in refusal if says and refusal else refusal is None
    bench.run(2, times=1)
    assert bench.refusal(SMALL) is None, "and when they do no more, somebody may"


def test_what_was_dropped_is_not_learnt_as_the_cost_of_a_picture() -> None:
    bench = Bench(2, one=USUAL)
    bench.run(cores=0.5)
    bench.run(cores=2.0, fps=13)
    assert bench.capacity.cores_of(USUAL) == pytest.approx(0.5, rel=0.02)


def test_an_avatar_that_is_being_made_teaches_nothing() -> None:
    bench = Bench(2, one=USUAL)
    bench.readings["one"] = replace(bench.readings["one"], drawn=0, asked=0)
    bench.capacity.sample(1, 5, bench.readings)
    bench.readings["one"] = replace(bench.readings["one"], drawn=30, asked=30)
    bench.capacity.sample(2, 10, bench.readings)
    assert bench.capacity.cores_of(USUAL) == USUAL.guessed_cores


IDLE_ECHO = Reading(replace(USUAL, mode="echo"), 0, 0, 0.0, None, 0)


def test_a_call_that_draws_nothing_hides_no_other() -> None:
    bench = Bench(1000, one=USUAL)
    for _ in range(2):
        bench.now_s += 2
        one = bench.readings["one"]
        bench.readings["one"] = Reading(
            USUAL, one.drawn + 10, one.asked + 60, one.busy_ms + 600, 900, one.timed + 10
        )
        bench.capacity.sample(bench.now_s, 0, {**bench.readings, "idle": IDLE_ECHO})
    refusal = bench.refusal(SMALL)
    assert refusal is not None
    assert "gets 5 pictures a second" in refusal


def test_an_echo_is_not_free_and_says_nothing_of_drawing() -> None:
    echo = replace(USUAL, mode="echo")
    bench = Bench(1.7, one=USUAL, two=echo)
    bench.run(cores=USUAL.guessed_cores + echo.guessed_cores)
    assert bench.capacity.cores_of(echo) == pytest.approx(echo.guessed_cores, rel=0.05)
    assert bench.capacity.cores_of(HEAVY) == pytest.approx(HEAVY.guessed_cores, rel=0.05)
    assert bench.refusal(echo) is not None, "1.4 of the 1.5 that may be used are taken"


def test_an_old_lag_is_no_lag() -> None:
    bench = Bench(1000, one=USUAL)
    bench.run(2, lag_ms=400, times=1)
    assert bench.refusal(SMALL) is not None
    one = bench.readings["one"]
    for _ in range(2):  # the camera is off: idle life, of which no picture has a lag
        bench.now_s += 2
        one = replace(one, drawn=one.drawn + 40, asked=one.asked + 40)
        bench.capacity.sample(bench.now_s, 0, {"one": one})
    assert bench.refusal(SMALL) is None


def test_other_work_in_the_process_is_no_call_s_cost() -> None:
    bench = Bench(2, one=USUAL)
    bench.run(cores=0.5)
    one = bench.readings["one"]
    one = replace(one, drawn=one.drawn + 60, asked=one.asked + 60, busy_ms=one.busy_ms + 600)
    bench.capacity.sample(bench.now_s + 2, bench.cpu_s + 4, {"one": one}, is_alone=False)
    assert bench.capacity.cores_of(USUAL) == pytest.approx(0.5, rel=0.02)


def test_a_smaller_picture_is_guessed_to_cost_less() -> None:
    assert SMALL.guessed_cores < USUAL.guessed_cores < HEAVY.guessed_cores
    assert replace(USUAL, mode="echo").guessed_cores < SMALL.guessed_cores
    assert replace(USUAL, drive="voice").guessed_cores < USUAL.guessed_cores


@given(
    st.floats(0.1, 128),
    st.lists(st.sampled_from([USUAL, HEAVY, SMALL]), max_size=20),
    st.lists(
        st.tuples(st.floats(0, 200), st.floats(0, 60), st.floats(0, 60), st.floats(0, 1000)), max_size=6
    ),
)
def test_who_is_let_in_fits(
    cores: float, kinds: list[CallKind], runs: list[tuple[float, float, float, float]]
) -> None:
    bench = Bench(cores, **{f"call {k}": kind for k, kind in enumerate(kinds)})
    for used, fps, asked_fps, lag_ms in runs:
        bench.run(used, min(fps, asked_fps), asked_fps, lag_ms, times=1)
    refusal = bench.refusal(USUAL)
    needed = sum(bench.capacity.cores_of(kind) for kind in [*kinds, USUAL])
    assert needed >= 0
    if refusal is None and kinds:
        assert needed <= USABLE_SHARE * cores
    if not kinds:
        assert refusal is None


def test_no_more_kinds_are_kept_than_there_are_calls_for() -> None:
    capacity = Capacity(8)
    for size_px in range(64, 1024):
        kind = replace(USUAL, size_px=size_px)
        capacity.sample(2 * size_px, size_px, {"1": Reading(kind, 1, 1, 0, None, 0)})
        capacity.sample(
            2 * size_px + 1, size_px + 1, {"1": Reading(kind, 1 + round(FULL_FPS), 31, 9, None, 0)}
        )
    assert len(capacity._learnt) <= 64


def test_this_computer_has_cores() -> None:
    assert cores_here() > 0
