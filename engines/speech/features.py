"""Streaming speech features: log-mel and MFCC of 16 kHz sound every 10 ms, independent of the microphone's gain.

State is a value: `log_mel` takes it and gives the next one, so a stream is restarted, copied or batched at will.
kaldi-native-fbank, the kept library that streams, hides its state in an object; its numbers are ours (tested).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

RATE_HZ = 16_000
HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
FFT = 512
MEL_COUNT = 40
MFCC_COUNT = 13
FRAME_HZ = RATE_HZ / HOP
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0

# Natural logarithms of power from here on: 1 is 4.3 dB.
QUIETEST = float(np.log(1e-10))  # −100 dBFS: below it there is nothing to hear
START_LEVEL = float(np.log(10**-5.0))  # −50 dBFS: quieter than anybody who speaks into a microphone
RISE_S, FALL_S, FORGET_S = 0.2, 15.0, 60.0
SPEECH_RANGE = 5.8  # 25 dB: what lies further below the speaker's level is not speech
LOWEST_FEATURE = -10.0  # 43 dB below the speaker's level


@dataclass(frozen=True, slots=True)
class FeatureState:
    """Where a stream of features stands: samples still needed, and the speaker's level."""

    tail: F32 = field(default_factory=lambda: np.zeros(WINDOW - HOP, np.float32))
    level: float = START_LEVEL


def hz_to_mel(hz: F64 | float) -> F64:
    """Mel scale of O'Shaughnessy (the HTK form)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


def mel_to_hz(mel: F64 | float) -> F64:
    """Inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (np.asarray(mel, np.float64) / 2595.0) - 1.0)


@lru_cache(1)
def mel_filters() -> F64:
    """(MEL_COUNT, FFT // 2 + 1): triangles of unit height, evenly spaced and straight on the mel scale."""
    edges = np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MEL_COUNT + 2)
    bins = hz_to_mel(np.arange(FFT // 2 + 1) * RATE_HZ / FFT)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


@lru_cache(1)
def _window() -> F64:
    w = np.hanning(WINDOW)
    return w / np.sqrt(np.sum(w**2))


def mel_power(samples: F32) -> F64:
    """(N, MEL_COUNT) mel power of every whole window in `samples` (…); N may be 0."""
    if len(samples) < WINDOW:
        return np.zeros((0, MEL_COUNT))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * _window(), FFT)
    return (spectrum.real**2 + spectrum.imag**2) @ mel_filters().T / FFT


def next_level(level: float, energy: float) -> float:
    """The speaker's level after 10 ms of `energy`: quickly up, slowly down while they speak, hardly in silence."""
    if energy > level:
        time_s = RISE_S
    elif energy > level - SPEECH_RANGE:
        time_s = FALL_S
    else:
        time_s = FORGET_S
    return max(START_LEVEL, level + (energy - level) / (time_s * FRAME_HZ))


def log_mel(samples: F32, state: FeatureState | None = None) -> tuple[F32, FeatureState]:
    """Features of the next `samples` ((S,) float32 in −1 … 1 at 16 kHz), and the state after them.

    (N, MEL_COUNT) float32: the logarithm of mel power relative to the speaker's level, not below
    `LOWEST_FEATURE`. Frame k of a stream covers the samples up to 160 (k + 1): nothing of the future.
    Samples that are not finite count as silence.
    """
    state = state or FeatureState()
    clean = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    both = np.concatenate([state.tail, np.clip(clean, -1.0, 1.0)])
    power = mel_power(both)
    used = len(power) * HOP
    logs = np.log(np.maximum(power, np.exp(QUIETEST)))
    energies = np.log(np.maximum(power.sum(1), np.exp(QUIETEST)))
    level = state.level
    out = np.empty((len(power), MEL_COUNT), np.float32)
    for k, energy in enumerate(energies):
        level = next_level(level, float(energy))
        out[k] = logs[k] - level
    return np.maximum(out, np.float32(LOWEST_FEATURE)), FeatureState(both[used:].copy(), level)


def mfcc(features: F32) -> F32:
    """(…, MFCC_COUNT) mel-frequency cepstral coefficients: the orthonormal DCT-II of log-mel (…, MEL_COUNT)."""
    cosine = np.asarray(dct(np.asarray(features, np.float64), type=2, norm="ortho", axis=-1))
    return np.ascontiguousarray(cosine[..., :MFCC_COUNT], np.float32)
