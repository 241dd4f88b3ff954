"""Stand-ins for what hears: a network that tells how loud each moment was, and sounds to give it."""

from __future__ import annotations

import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_INDEX
from engines.speech.features import RATE_HZ
from engines.speech.network import OUTPUT_COUNT
from engines.speech.speech_to_motion import SpeechState, SpeechToMotion, Spoken

F32 = NDArray[np.float32]

JAW = ARKIT_INDEX["jawOpen"]
STEP = 320  # samples for one answer, 20 ms


@dataclass(frozen=True)
class EchoState(SpeechState):
    """Samples of the answer to come, loudness of the moments still looked ahead of, answers given."""

    rest: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    ahead: tuple[float, ...] = ()
    count: int = 0


class EchoSpeech(SpeechToMotion):
    """Opens the jaw by how loud a moment is, known 60 ms later: what is heard can be told from what is shown."""

    LOOK_AHEAD = 3  # answers

    def __init__(self) -> None:
        self.heard = 0

    @property
    def look_ahead_s(self) -> float:
        return self.LOOK_AHEAD * STEP / RATE_HZ

    @property
    def latency_ms(self) -> float:
        return 92.5

    def hear(self, samples: F32, state: SpeechState | None = None) -> tuple[list[Spoken], SpeechState]:
        self.heard += len(samples)
        before = state if isinstance(state, EchoState) else EchoState()
        sound = np.concatenate([before.rest, samples])
        spoken: list[Spoken] = []
        ahead, count = before.ahead, before.count
        for at in range(0, len(sound) - STEP + 1, STEP):
            ahead = (*ahead, float(np.abs(sound[at : at + STEP]).max()))[-self.LOOK_AHEAD - 1 :]
            count += 1
            answer = np.zeros(OUTPUT_COUNT, np.float32)
            if len(ahead) > self.LOOK_AHEAD:
                answer[JAW] = ahead[0]
            spoken.append(Spoken((count - self.LOOK_AHEAD) * STEP / RATE_HZ, answer, 1.0))
        return spoken, EchoState(rest=sound[len(sound) // STEP * STEP :], ahead=ahead, count=count)


def tone(seconds: float, rate_hz: float = RATE_HZ, level: float = 0.3, hz: float = 220.0) -> F32:
    """(S,) of a sine."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def write_wav(path: Path, samples: F32, rate_hz: int = RATE_HZ) -> Path:
    """`samples` (S,) or (S, C) as 16 bit."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path
