"""What is spoken is heard so much later: to the sample, without clicks, and never before it is there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.frame import LatencyTrace
from streamer.sound.lag import FAR_S, FAR_TIMES, MOST_S, Lag
from streamer.sound.line import KEPT_S, LATELY_S, MARGIN_S, STEADY_S, SoundLine

F32 = NDArray[np.float32]
RATE_HZ, PIECE = 48_000, 480
PIECE_S = PIECE / RATE_HZ


def spoken(first: int, count: int) -> F32:
    """A sound whose every sample tells its own moment, slowly enough that no step is a click."""
    return (np.arange(first, first + count) / RATE_HZ).astype(np.float32)


def through(
    line: SoundLine,
    seconds: float,
    *,
    delay_s: float,
    in_rate: float = 1.0,
    out_latency_s: float = 0.02,
    jitter_s: float = 0.0,
    begin_s: float = 0.0,
) -> tuple[F32, F32]:
    """(moments in s at which samples are heard, what is heard then).

    A microphone whose clock runs at `in_rate` is put in by pieces as they are complete, and pieces are taken out at the
    true pace; `jitter_s`: how far told times are off.
    """
    rng = np.random.default_rng(0)
    heard_at: list[F32] = []
    heard: list[F32] = []
    put = 0
    for k in range(round(seconds / PIECE_S)):
        now_s = begin_s + k * PIECE_S
        while (put + PIECE) / (RATE_HZ * in_rate) + begin_s <= now_s:
            off_s = rng.uniform(-jitter_s, jitter_s)
            at_s = begin_s + put / (RATE_HZ * in_rate) + off_s
            line.put(spoken(put, PIECE), round(1e9 * at_s))
            put += PIECE
        at_s = now_s + out_latency_s
        heard.append(line.take(PIECE, round(1e9 * (at_s + rng.uniform(-jitter_s, jitter_s))), delay_s))
        heard_at.append((at_s + np.arange(PIECE) / RATE_HZ).astype(np.float32))
    return np.concatenate(heard_at), np.concatenate(heard)


@pytest.mark.parametrize("delay_s", [0.06, 0.1234, 0.5])
def test_sound_is_heard_exactly_so_much_later(delay_s: float) -> None:
    line = SoundLine(RATE_HZ)
    at, heard = through(line, 3.0, delay_s=delay_s)
    settled = at > delay_s + 0.1
    assert np.abs(at[settled] - delay_s - heard[settled]).max() < 2e-5
    assert np.all(heard[at < delay_s] == 0), "nothing is heard before it was spoken"
    assert line.late_s == 0


@pytest.mark.parametrize("drift", [1 - 2e-4, 1 + 2e-4])
def test_devices_whose_clocks_differ_stay_together_without_a_click(drift: float) -> None:
    """200 ppm, twenty times what devices have: 36 ms in three minutes."""
    line = SoundLine(RATE_HZ)
    at, heard = through(line, 180.0, delay_s=0.1, in_rate=drift)
    settled = at > 1
    # what sample n tells was spoken at n / (rate · drift)
    off_s = at[settled] - 0.1 - heard[settled].astype(np.float64) / drift
    assert np.abs(off_s).max() < STEADY_S + 0.003
    assert np.abs(np.diff(heard[settled])).max() < 1e-3, "a jump would be a click"
    assert np.abs(off_s).max() > 0.004, "it is moved seldom: between two moves it plays on as it is"


def test_times_that_jitter_move_nothing() -> None:
    line = SoundLine(RATE_HZ)
    at, heard = through(line, 20.0, delay_s=0.1, jitter_s=0.004)
    settled = at > 1
    steps = np.diff(heard[settled].astype(np.float64))
    assert np.allclose(steps, 1 / RATE_HZ, atol=4e-6), "every sample follows the one before"
    assert np.abs(at[settled] - 0.1 - heard[settled]).max() < STEADY_S


def test_what_is_not_there_yet_comes_later_and_nothing_is_missing() -> None:
    """The picture takes 10 ms, and sound 30 through its devices."""
    line = SoundLine(RATE_HZ)
    at, heard = through(line, 5.0, delay_s=0.01)
    settled = at > 0.5
    late_s = at[settled] - 0.01 - heard[settled]
    missing_before = line.missing
    assert missing_before < 0.2 * RATE_HZ
    assert late_s.min() > 0
    assert late_s.max() <= 0.02 + PIECE_S + MARGIN_S + STEADY_S + 1e-4
    assert 0.02 <= line.late_s <= 0.02 + 2 * PIECE_S + MARGIN_S


def test_what_was_slow_once_is_not_late_for_ever() -> None:
    """A device that starts slowly, as null sinks do, keeps the sound late for some seconds and no longer."""
    line = SoundLine(RATE_HZ)
    late: list[float] = []
    for k in range(1000):
        now = k * PIECE_S
        slow_s = 0.2 if k < 50 else 0.0
        line.put(spoken(k * PIECE, PIECE), round(1e9 * now))
        line.take(PIECE, round(1e9 * (now + 0.02 + slow_s)), 0.1)
        late.append(line.late_s)
    assert max(late[:60]) > 0.1
    assert late[-1] == 0
    assert late[60] > 0.1
    assert late.index(0.0, 60) * PIECE_S < 0.6 + 2 * LATELY_S


def test_a_longer_delay_is_a_longer_delay() -> None:
    line = SoundLine(RATE_HZ)
    through(line, 2.0, delay_s=0.05)
    found: list[float] = []
    for k in range(200):
        now = 2.0 + k * PIECE_S
        line.put(spoken(round(now * RATE_HZ), PIECE), round(1e9 * now))
        heard = line.take(PIECE, round(1e9 * (now + 0.02)), 0.25)
        found.append(now + 0.02 - float(heard[-1]) + PIECE_S)
    assert found[-1] == pytest.approx(0.25, abs=0.002)


def test_what_a_device_lost_is_silence_and_what_follows_comes_in_time() -> None:
    line = SoundLine(RATE_HZ)
    line.put(np.ones(4800, np.float32), 0)
    line.put(np.full(4800, 2, np.float32), round(0.4e9))  # 0.3 s are missing
    heard = [line.take(PIECE, round(1e9 * (0.5 + k * PIECE_S)), 0.5) for k in range(50)]
    told = np.concatenate(heard)
    assert np.all(told[:4800] == 1)
    assert np.all(told[4800 + PIECE : 19_200 - PIECE] == 0)
    assert np.all(told[19_200 + PIECE : 24_000 - PIECE] == 2)


def test_a_pause_of_minutes_takes_no_memory_and_the_newest_is_heard() -> None:
    line = SoundLine(RATE_HZ)
    line.put(np.ones(PIECE, np.float32), 0)
    line.take(PIECE, round(0.1e9), 0.1)
    for k in range(100):
        line.put(np.full(PIECE, 3, np.float32), round(1e9 * (600 + k * PIECE_S)))
    heard = line.take(PIECE, round(600.6e9), 0.1)
    assert np.all(heard[PIECE // 2 :] == 3)
    held = line._held  # pyright: ignore[reportPrivateUsage]
    assert len(held) <= KEPT_S * RATE_HZ


def test_a_microphone_that_was_away_is_heard_as_before_when_it_is_back() -> None:
    """And not as much later as it was away: somebody listened to the silence meanwhile."""
    line = SoundLine(RATE_HZ)
    through(line, 2.0, delay_s=0.1)
    late_s = line.late_s
    silence = [line.take(PIECE, round(1e9 * (2 + k * PIECE_S)), 0.1) for k in range(3000)]
    assert np.all(np.concatenate(silence[50:]) == 0)
    found: list[float] = []
    for k in range(100):
        now = 32.0 + k * PIECE_S
        line.put(np.full(PIECE, now, np.float32), round(1e9 * now))
        found.append(now + 0.02 - float(line.take(PIECE, round(1e9 * (now + 0.02)), 0.1)[-1]))
    assert line.late_s <= late_s
    assert found[-1] == pytest.approx(0.1, abs=PIECE_S + STEADY_S)


def test_before_the_first_sound_there_is_silence() -> None:
    assert np.all(SoundLine(RATE_HZ).take(10, 10**9, 0.1) == 0)


def test_the_lag_of_pictures_is_smoothed_and_bounded() -> None:
    lag = Lag()
    assert lag.after(LatencyTrace({"sent": 5})).seconds is None
    for _ in range(200):
        lag = lag.after(LatencyTrace({"captured": 10**9, "sent": 10**9 + 60_000_000}))
    assert lag.seconds == pytest.approx(0.06)
    once = lag.after(LatencyTrace({"captured": 0, "sent": 10**11})).seconds
    assert once is not None
    assert 0.06 < once < 0.06 + 0.06 * MOST_S
    assert Lag().after(LatencyTrace({"captured": 9, "sent": 3})).seconds == 0


def test_a_lag_that_is_another_is_believed_at_once_and_a_few_late_ones_are_not() -> None:
    lag = Lag()
    for _ in range(50):
        lag = lag.after_s(0.05)
    for _ in range(FAR_TIMES - 1):  # a burst after a blackout
        lag = lag.after_s(0.05 + 2 * FAR_S)
    assert lag.seconds is not None
    assert lag.seconds < 0.05 + FAR_S + 0.02
    steady = Lag(0.05)
    for _ in range(FAR_TIMES):
        steady = steady.after_s(0.2)
    assert steady.seconds == pytest.approx(0.2)


def test_what_is_far_off_on_both_sides_is_jitter() -> None:
    lag = Lag(0.2)
    for k in range(10 * FAR_TIMES):
        lag = lag.after_s(0.2 + (0.1 if k % 2 else -0.1))
    assert lag.seconds == pytest.approx(0.2, abs=0.02)
