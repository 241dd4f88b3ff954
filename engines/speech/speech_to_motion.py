"""`SpeechToMotion`: sound in, `Motion` out, by the hop of 10 ms; the state of a stream is a value.

The network answers for a moment `look_ahead_s` back. What the paper lacks is added here: the mouth is still
without a voice, and lips that the network calls closed meet. Blinks, saccades and sway are `streamer.idle`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT, Motion
from engines.speech.features import FRAME_HZ, HOP, RATE_HZ, WINDOW, FeatureState, log_mel
from engines.speech.network import (
    CLOSURE,
    OUTPUT_COUNT,
    ROTATION,
    VOICE,
    NetworkState,
    SpeechNetwork,
    load_network,
)

F32 = NDArray[np.float32]

OPEN_S, SHUT_S = 0.03, 0.12  # how fast a voice lets the mouth move, and its end stills it
VOICE_KNEE, VOICE_FULL = 0.35, 0.65  # probability of a voice: below it nothing moves, above it everything
CLOSURE_KNEE, CLOSURE_FULL = 0.35, 0.7
# the eyes have a life of their own: speech does not say where they look
_SPOKEN = np.array([not name.startswith("eye") for name in ARKIT_NAMES])


@dataclass(frozen=True, slots=True)
class SpeechState:
    """Where a stream stands: features (with the unfinished hop), network, how much voice there is, hops heard."""

    features: FeatureState = field(default_factory=FeatureState)
    network: NetworkState | None = None
    voice: float = 0.0
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the sound says of one moment: `time_s` in the stream, `answer` (OUTPUT_COUNT,), `voice` 0 … 1."""

    time_s: float
    answer: F32
    voice: float


def _ramp(value: float, knee: float, full: float) -> float:
    return float(np.clip((value - knee) / (full - knee), 0, 1))


class SpeechToMotion:
    """The trained network and the rules around it; holds no state, so one serves many streams."""

    def __init__(self, network: SpeechNetwork | None = None) -> None:
        """Raises WeightsError when the weights are missing or damaged."""
        self._network = network or load_network()

    @property
    def look_ahead_s(self) -> float:
        """How much later than its moment an answer is known, in seconds of sound."""
        return self._network.look_ahead_hops / FRAME_HZ

    @property
    def latency_ms(self) -> float:
        """From a sound to its motion, in ms: look-ahead, one hop, and half a window of features."""
        return 1e3 * (self.look_ahead_s + HOP / RATE_HZ + WINDOW / RATE_HZ / 2)

    def hear(self, samples: F32, state: SpeechState | None = None) -> tuple[list[Spoken], SpeechState]:
        """What the next `samples` ((S,) float32 at 16 kHz) say, one entry a hop, and the state after them."""
        state = state or SpeechState()
        features, after = log_mel(samples, state.features)
        network = state.network or NetworkState.fresh(self._network.hidden)
        voice, hops = state.voice, state.hops
        spoken: list[Spoken] = []
        for row in features:
            answer, network = self._network(row[None], network)
            hops += 1
            wanted = _ramp(_probability(float(answer[0, VOICE])), VOICE_KNEE, VOICE_FULL)
            step_s = OPEN_S if wanted > voice else SHUT_S
            voice += (wanted - voice) * min(1.0, 1 / (step_s * FRAME_HZ))
            spoken.append(Spoken(hops / FRAME_HZ - self.look_ahead_s, answer[0], voice))
        return spoken, SpeechState(after, network, voice, hops)


def _probability(logit: float) -> float:
    return 0.5 * (1 + float(np.tanh(0.5 * logit)))


def motion_of(spoken: Spoken, rest: Motion | None = None) -> Motion:
    """The motion of one moment on top of `rest` (default: neutral), without idle life."""
    rest = rest or Motion()
    answer = np.asarray(spoken.answer, np.float64)
    if answer.shape != (OUTPUT_COUNT,) or not np.isfinite(answer).all():
        answer = np.zeros(OUTPUT_COUNT)
    moved = np.where(_SPOKEN, answer[:EXPRESSION_COUNT], 0.0) * spoken.voice
    turn = rotation_matrix(answer[ROTATION] * spoken.voice)
    closed = _ramp(_probability(float(answer[CLOSURE])), CLOSURE_KNEE, CLOSURE_FULL) * spoken.voice
    closure = np.array([closed, 0, 0], np.float32)
    return Motion(
        time_s=spoken.time_s,
        expression=np.clip(rest.expression + moved, -1, 1.5).astype(np.float32),
        rotation_rad=rotation_vector(turn @ rotation_matrix(rest.rotation_rad)).astype(np.float32),
        translation_hu=rest.translation_hu,
        gaze_rad=rest.gaze_rad,
        closure=closure,
    )


def motions_of(speech: SpeechToMotion, blocks: Iterable[F32], fps: float) -> Iterator[Motion]:
    """Motion of a whole recording at `fps`, from its first sample to its last; no idle life.

    `blocks` are pieces (S,) of it; one at a time is in memory, whatever the length.
    """
    state = SpeechState()
    samples = frame = 0
    latest: list[Spoken] = []

    def due(until_s: float) -> Iterator[Motion]:
        nonlocal frame
        for spoken in latest:
            while frame / fps <= spoken.time_s + 0.5 / FRAME_HZ and frame / fps < until_s:
                yield replace(motion_of(spoken), time_s=frame / fps)
                frame += 1

    for block in blocks:
        samples += len(block)
        latest, state = speech.hear(block, state)
        yield from due(samples / RATE_HZ)
    if samples:  # what is still to come through the look-ahead
        tail = np.zeros(round((speech.look_ahead_s + 0.06) * RATE_HZ), np.float32)
        latest, state = speech.hear(tail, state)
        yield from due(samples / RATE_HZ)
