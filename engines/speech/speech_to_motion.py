"""`SpeechToMotion`: sound in, `Motion` out, 50 times a second; the state of a stream is a value.

The network answers for a moment `look_ahead_s` back. What the paper lacks is added here: the mouth is still
without a voice, lips that the network calls closed meet, and the head goes with the prosody. Blinks, saccades and
sway are `streamer.drive.idle`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT, Motion
from engines.speech.features import FRAME_HZ, MEL_COUNT, RATE_HZ, WINDOW, FeatureState, log_mel
from engines.speech.layer import sigmoid
from engines.speech.network import (
    ANSWER_HZ,
    CLOSURE,
    HOPS,
    INPUT_COUNT,
    OUTPUT_COUNT,
    ROTATION,
    VOICE,
    NetworkState,
    SpeechNetwork,
    load_network,
)
from engines.speech.prosody import HeadState, advance

F32 = NDArray[np.float32]

OPEN_S, SHUT_S = 0.03, 0.12  # how fast a voice lets the mouth move, and its end stills it
VOICE_KNEE, VOICE_FULL = 0.35, 0.65  # probability of a voice: below it nothing moves, above it everything
# How likely closed lips are counts against what is usual for this voice lately: a closure is a short event, and the
# level of it differs from speaker to speaker more than it does within their speech.
CLOSURE_USUAL_S = 1.5
# Logits above the usual: from the first on lips draw near, at the second they meet. Higher, and fewer closures are
# wrong but more of p, b and m are missed.
CLOSURE_NEAR, CLOSURE_MET = -0.5, 0.55
# the eyes have a life of their own: speech does not say where they look
_SPOKEN = np.array([not name.startswith("eye") for name in ARKIT_NAMES])


def _no_features() -> F32:
    return np.zeros((0, MEL_COUNT), np.float32)


@dataclass(frozen=True, slots=True)
class SpeechState:
    """Where a stream stands: features (with the unfinished hop), hops that wait for their second, network, head,
    how much voice there is, the usual logit of closed lips, answers given.
    """

    features: FeatureState = field(default_factory=FeatureState)
    waiting: F32 = field(default_factory=_no_features)
    network: NetworkState | None = None
    head: HeadState = field(default_factory=HeadState)
    voice: float = 0.0
    usual_closure: float = 0.0
    answers: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the sound says of one moment: `time_s` in the stream, `answer` (OUTPUT_COUNT,), `voice` 0 … 1.

    `closed` 0 … 1: how far the lips have met. `turn_rad` (3,): what the head does with the prosody, a rotation about
    x, y and z.
    """

    time_s: float
    answer: F32
    voice: float
    closed: float = 0.0
    turn_rad: F32 = field(default_factory=lambda: np.zeros(3, np.float32))


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
        return self._network.config.look_ahead_hops / FRAME_HZ

    @property
    def latency_ms(self) -> float:
        """From a sound to its motion, in ms: look-ahead, the hops of one answer, and half a window of features."""
        return 1e3 * (self.look_ahead_s + 1 / ANSWER_HZ + WINDOW / RATE_HZ / 2)

    def hear(self, samples: F32, state: SpeechState | None = None) -> tuple[list[Spoken], SpeechState]:
        """What the next `samples` ((S,) float32 at 16 kHz) say, one entry for 20 ms, and the state after them."""
        state = state or SpeechState()
        features, after = log_mel(samples, state.features)
        features = np.concatenate([state.waiting, features])
        network = state.network or self._network.fresh()
        voice, head, usual, answers = state.voice, state.head, state.usual_closure, state.answers
        count = len(features) // HOPS
        spoken: list[Spoken] = []
        for row in features[: count * HOPS].reshape(count, INPUT_COUNT):
            answer, network = self._network(row[None], network)
            answers += 1
            wanted = _ramp(float(sigmoid(answer[0, VOICE])), VOICE_KNEE, VOICE_FULL)
            step_s = OPEN_S if wanted > voice else SHUT_S
            voice += (wanted - voice) * -math.expm1(-1 / (step_s * ANSWER_HZ))
            logit = float(answer[0, CLOSURE])
            usual = usual_closure(usual, logit, voice)
            closed = heard_closure(logit, usual)
            head = advance(head, float(np.log(np.exp(row).sum() / HOPS)), voice, 1 / ANSWER_HZ)
            time_s = answers / ANSWER_HZ - self.look_ahead_s
            spoken.append(Spoken(time_s, answer[0], voice, closed, head.turn_rad))
        waiting = features[count * HOPS :].copy()
        return spoken, SpeechState(after, waiting, network, head, voice, usual, answers)


def usual_closure(usual: float, logit: float, voice: float) -> float:
    """The usual logit of closed lips after one answer: its mean over the last `CLOSURE_USUAL_S` of speech."""
    return usual + (logit - usual) / (CLOSURE_USUAL_S * ANSWER_HZ) if voice > 0.5 else usual


def heard_closure(logit: float, usual: float) -> float:
    """How closed the lips are, 0 … 1."""
    return _ramp(logit - usual, CLOSURE_NEAR, CLOSURE_MET)


def motion_of(spoken: Spoken, rest: Motion | None = None) -> Motion:
    """The motion of one moment on top of `rest` (default: neutral), without idle life."""
    rest = rest or Motion()
    answer = np.asarray(spoken.answer, np.float64)
    if answer.shape != (OUTPUT_COUNT,) or not np.isfinite(answer).all():
        answer = np.zeros(OUTPUT_COUNT)
    moved = np.where(_SPOKEN, answer[:EXPRESSION_COUNT], 0.0) * spoken.voice
    turn = rotation_matrix(answer[ROTATION] * spoken.voice + spoken.turn_rad)
    closure = np.array([spoken.closed * spoken.voice, 0, 0], np.float32)
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
            while frame / fps <= spoken.time_s + 0.5 / ANSWER_HZ and frame / fps < until_s:
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
