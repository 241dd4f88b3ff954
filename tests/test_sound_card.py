"""When a sound was played, from pieces of a recording that come late (`scripts.measure.heard`)."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.measure.heard import LOUD, RATE_HZ, onsets, sample_times_s


def test_a_sound_begins_after_a_silence_and_not_at_each_swing() -> None:
    samples = np.zeros(RATE_HZ, np.int16)
    for begin in (4_800, 24_000):
        samples[begin : begin + 2_400] = (3 * LOUD * np.sin(np.arange(2_400) / 8 + 1.6)).astype(np.int16)
    samples[10_000] = LOUD // 2  # noise
    assert onsets(samples).tolist() == [4_800, 24_000]
    assert len(onsets(samples[:4_000])) == 0


def test_samples_are_timed_by_the_pieces_that_came_soonest() -> None:
    """A piece comes when its last sample is there, or later when the computer was busy."""
    random = np.random.default_rng(0)
    ends = np.cumsum(random.integers(60, 500, 400))
    late_s = random.exponential(0.02, 400)
    late_s[::25] = 0
    came_s = (1e9 + ends / RATE_HZ + late_s).tolist()
    at = np.array([1_000, 40_000, 80_000])
    found = sample_times_s(at, ends.tolist(), came_s)
    assert found == pytest.approx(1e9 + at / RATE_HZ, abs=1e-6)
