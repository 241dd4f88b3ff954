"""`SoundFiller`: decoded sound at its time → sound with its short gaps filled and its long ones left as jumps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I16 = NDArray[np.int16]
F32 = NDArray[np.float32]

LONGEST_FILL_S = 0.120  # a listener bridges a longer gap better than sound that comes that late
HEARD_ON_S = 0.060  # the last sound goes on for so long, ever softer
FADE_S = 0.005
_PERIODS_S = (0.0025, 0.015)  # of voices: 400 Hz … 67 Hz
_COMPARED_S = 0.010
_KEPT_S = _PERIODS_S[1] + _COMPARED_S


@dataclass(slots=True)
class SoundCounts:
    """Seconds of sound of one stream: `heard` as it was sent, of lost packets `recovered` by FEC and `concealed`, and
    `left_out` where so much was lost that time jumped. Written by the decoder's thread alone."""

    heard_s: float = 0.0
    recovered_s: float = 0.0
    concealed_s: float = 0.0
    left_out_s: float = 0.0

    def told(self) -> dict[str, float]:
        """By name: `heard`, `recovered`, `concealed`, `left_out`."""
        return {
            "heard": self.heard_s,
            "recovered": self.recovered_s,
            "concealed": self.concealed_s,
            "left_out": self.left_out_s,
        }


@dataclass(frozen=True, slots=True)
class Sound:
    """(S, C) int16 whose first sample belongs to `at`, in samples since the first packet."""

    samples: I16
    at: int


def period_of(heard: F32, rate_hz: int) -> int:
    """The length in samples after which (S,) mono sound repeats itself best, within those of voices."""
    compared = round(_COMPARED_S * rate_hz)
    shortest, longest = (round(s * rate_hz) for s in _PERIODS_S)
    longest = min(longest, len(heard) - compared)
    if longest <= shortest:
        return max(1, len(heard))
    end = heard[-compared:]
    past = heard[-compared - longest :]
    likeness = np.correlate(past, end, "valid")[: longest - shortest + 1]
    power = np.convolve(np.square(past), np.ones(compared, np.float32), "valid")[: longest - shortest + 1]
    return longest - int(np.argmax(likeness / np.sqrt(power + 1e-3)))


def continued(heard: I16, count: int, rate_hz: int) -> F32:
    """(count, C) samples that go on after (S, C): the last period over and over, gone within `HEARD_ON_S`."""
    sound = heard.astype(np.float32)
    if not len(sound):
        return np.zeros((count, sound.shape[1]), np.float32)
    period = sound[-period_of(sound.mean(1), rate_hz) :]
    level = 1 - np.arange(1, count + 1, dtype=np.float32) / (HEARD_ON_S * rate_hz)
    return period[np.arange(count) % len(period)] * np.maximum(level, 0)[:, None]


def rising_over(count: int) -> F32:
    """(count, 1): a fade, up to 1."""
    return np.linspace(0, 1, count + 1, dtype=np.float32)[1:, None]


def faded_in(samples: I16, rate_hz: int) -> I16:
    """(S, C) that begins softly, after a jump in time."""
    fade = min(round(FADE_S * rate_hz), len(samples))
    return _joined(samples[:fade] * rising_over(fade), samples[fade:])


class SoundFiller:
    """The sound of one stream: as many samples as its time says, to the sample.

    For codecs without concealment, and for Opus where only libavcodec has it, which reads an empty packet as the end of
    the stream: the last period of the sound is repeated, softer and softer (G.711 appendix I). Else `opus_sound.py`.
    """

    def __init__(self, rate_hz: int, counts: SoundCounts | None = None) -> None:
        self._rate_hz = rate_hz
        self._counts = counts or SoundCounts()
        self._heard: I16 | None = None
        self._end: int | None = None

    def next(self, samples: I16, at: int) -> Sound:
        """The next (S, C) samples and their time → the same with what was missing before them.

        What overlaps the sound before is left out: none may be left.
        """
        end, heard = self._end, self._heard
        self._counts.heard_s += len(samples) / self._rate_hz
        if end is None or heard is None or heard.shape[1] != samples.shape[1]:
            return self._keep(samples, at)
        gap = at - end
        if gap <= 0:
            return self._keep(samples[-gap:], end)
        if gap > LONGEST_FILL_S * self._rate_hz:
            self._counts.left_out_s += gap / self._rate_hz
            return self._keep(faded_in(samples, self._rate_hz), at)
        fade = min(round(FADE_S * self._rate_hz), len(samples))
        rising = rising_over(fade)
        start = samples[:fade] * rising
        filled = continued(heard, gap + fade, self._rate_hz)
        self._counts.concealed_s += gap / self._rate_hz
        return self._keep(_joined(filled[:gap], start + filled[gap:] * (1 - rising), samples[fade:]), end)

    def _keep(self, samples: I16, at: int) -> Sound:
        self._end = at + len(samples)
        heard = self._heard
        if heard is not None and heard.shape[1] == samples.shape[1]:
            samples_kept = np.concatenate([heard, samples])
        else:
            samples_kept = samples
        self._heard = samples_kept[-round(_KEPT_S * self._rate_hz) :]
        return Sound(samples, at)


def _joined(*parts: NDArray[np.generic]) -> I16:
    joined = np.concatenate([p.astype(np.float32) for p in parts])
    return np.clip(np.rint(joined), -32768, 32767).astype(np.int16)
