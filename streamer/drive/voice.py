"""`Voice`: one stream of sound heard as it comes in, and the motion of any moment of its last seconds.

The sound's own samples are the clock: moments are seconds of sound heard, whatever the wall clock says, so what is
shown and what is heard cannot drift apart.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.speech.features import RATE_HZ
from engines.speech.speech_to_motion import SpeechState, SpeechToMotion, Spoken

KEPT_S = 2.0  # a picture that comes later than this shows the oldest moment kept


class Voice:
    """Hears in one thread, is asked in another."""

    def __init__(self, speech: SpeechToMotion | None = None) -> None:
        """Raises WeightsError when the network's weights are missing or damaged."""
        self.speech = speech or SpeechToMotion()
        self._state = SpeechState()
        self._samples = 0  # since `_begin_s`
        self._begin_s = 0.0
        self._said: deque[Spoken] = deque()
        self._lock = threading.Lock()

    def hear(self, samples: NDArray[np.float32]) -> None:
        """The next (S,) float32 samples of 16 kHz mono."""
        spoken, state = self.speech.hear(samples, self._state)
        with self._lock:
            self._state = state
            self._samples += len(samples)
            last_s = self._said[-1].time_s if self._said else -1.0
            moved = (replace(s, time_s=s.time_s + self._begin_s) for s in spoken)
            self._said.extend(s for s in moved if s.time_s > last_s)
            while self._said and self._said[0].time_s < self._said[-1].time_s - KEPT_S:
                self._said.popleft()

    def skip(self, seconds: float) -> None:
        """Time passed unheard, as when a microphone was away: what comes next is heard afresh."""
        with self._lock:
            self._begin_s += self._samples / RATE_HZ + max(0.0, seconds)
            self._samples = 0
            self._state = SpeechState()

    @property
    def heard_s(self) -> float:
        """Seconds of sound heard so far, with those that were skipped."""
        with self._lock:
            return self._begin_s + self._samples / RATE_HZ

    @property
    def answered_s(self) -> float | None:
        """The newest moment whose motion is known; None before the first."""
        with self._lock:
            return self._said[-1].time_s if self._said else None

    def at(self, time_s: float) -> Spoken | None:
        """What was said at `time_s`, or at the nearest moment known; None before anything is."""
        with self._lock:
            return min(self._said, key=lambda s: abs(s.time_s - time_s), default=None)
