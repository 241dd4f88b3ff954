"""Emotions as ready expressions: action units (AU) of the Facial Action Coding System, told in ARKit coefficients.

The categories are the 22 of Du, Tao & Martinez, "Compound facial expressions of emotion", PNAS 111(15), 2014:
neutral, six basic and 15 compound ones.

- `EMOTIONS[name].always`: the AUs of their Table 1 that more than 70 % of the people showed. The table was read in
  a reprint, not in the paper itself.
- `EMOTIONS[name].often`: of the further AUs that the table gives for some of the people, those chosen here, drawn
  at `OFTEN` of their strength. Without them several emotions would be the same face (the table has 4 + 10 for
  sadly disgusted, appalled and hatred; 1 + 4 + 20 + 25 for fearful and sadly fearful; 4 + 15 for sad and sadly
  angry). Awed has none: with AU 26 it would be surprised, with AU 20 nearly fearfully surprised. The table's
  shares of people per AU are not used: the reprint has none. Its AUs 11 and 23 are left out: ARKit has no
  coefficient for them.
- `ACTION_UNITS`: AU → coefficients. The pairing follows the names of the muscles' effects; the sizes are ours, a
  clear but natural face at strength 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT

F32 = NDArray[np.float32]


class PresetError(VisavisError):
    """There is no emotion of that name; the message lists them."""


@dataclass(frozen=True, slots=True)
class Emotion:
    """Action units that an emotion always shows, and those that it shows often."""

    always: tuple[int, ...]
    often: tuple[int, ...] = ()


EMOTIONS: dict[str, Emotion] = {
    "neutral": Emotion(()),
    "happy": Emotion((12, 25), (6,)),
    "sad": Emotion((4, 15), (1, 17)),
    "fearful": Emotion((1, 4, 20, 25), (2, 5)),
    "angry": Emotion((4, 7, 24), (17,)),
    "surprised": Emotion((1, 2, 25, 26), (5,)),
    "disgusted": Emotion((9, 10, 17), (4,)),
    "happily_surprised": Emotion((1, 2, 12, 25), (5, 26)),
    "happily_disgusted": Emotion((10, 12, 25), (6, 9)),
    "sadly_fearful": Emotion((1, 4, 20, 25), (6, 15)),
    "sadly_angry": Emotion((4, 15), (7, 17)),
    "sadly_surprised": Emotion((1, 4, 25, 26), (2,)),
    "sadly_disgusted": Emotion((4, 10), (1, 6, 15)),
    "fearfully_angry": Emotion((4, 20, 25), (5, 7)),
    "fearfully_surprised": Emotion((1, 2, 5, 20, 25), (4, 26)),
    "fearfully_disgusted": Emotion((1, 4, 10, 20, 25), (2, 5)),
    "angrily_surprised": Emotion((4, 25, 26), (5, 7)),
    "angrily_disgusted": Emotion((4, 10, 17), (7, 9)),
    "disgustedly_surprised": Emotion((1, 2, 5, 10), (4, 17)),
    "appalled": Emotion((4, 10), (6, 9, 17)),
    "hatred": Emotion((4, 10), (7, 24)),
    "awed": Emotion((1, 2, 5, 25)),
}
PRESET_NAMES: tuple[str, ...] = tuple(EMOTIONS)
OFTEN = 0.6

# A name that ends in * stands for its left and its right coefficient.
ACTION_UNITS: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 0.8},  # inner brow raiser
    2: {"browOuterUp*": 0.75},  # outer brow raiser
    4: {"browDown*": 0.8},  # brow lowerer
    5: {"eyeWide*": 0.8},  # upper lid raiser
    6: {"cheekSquint*": 0.8, "eyeSquint*": 0.25},  # cheek raiser
    7: {"eyeSquint*": 0.7},  # lid tightener
    9: {"noseSneer*": 0.9},  # nose wrinkler
    10: {"mouthUpperUp*": 0.7},  # upper lip raiser
    12: {"mouthSmile*": 0.85},  # lip corner puller
    15: {"mouthFrown*": 0.8},  # lip corner depressor
    17: {"mouthShrugLower": 0.7, "mouthShrugUpper": 0.2},  # chin raiser
    20: {"mouthStretch*": 0.75},  # lip stretcher
    # lip pressor: the head model's mouthPress alone draws the corners out and up, a smile
    24: {
        "mouthPress*": 0.4,
        "mouthFrown*": 0.4,
        "mouthRollLower": 0.3,
        "mouthRollUpper": 0.3,
        "mouthPucker": 0.2,
    },
    25: {"mouthLowerDown*": 0.3, "mouthUpperUp*": 0.15, "jawOpen": 0.06},  # lips part
    26: {"jawOpen": 0.45},  # jaw drop
}
# brows that AU 1 holds up are drawn together by AU 4, not lowered, and ARKit has one coefficient for both
DOWN_BESIDE_UP = 0.4


def _coefficients(unit: int) -> F32:
    out = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, size in ACTION_UNITS[unit].items():
        for one in (name[:-1] + "Left", name[:-1] + "Right") if name.endswith("*") else (name,):
            out[ARKIT_INDEX[one]] = size
    return out


def _expression(emotion: Emotion) -> F32:
    shown = dict.fromkeys(emotion.always, 1.0) | dict.fromkeys(emotion.often, OFTEN)
    if 4 in shown and 1 in shown:
        shown[4] *= 1 - (1 - DOWN_BESIDE_UP) * shown[1]
    total = sum((size * _coefficients(unit) for unit, size in shown.items()), np.zeros(EXPRESSION_COUNT))
    return np.minimum(total, 1).astype(np.float32)


_EXPRESSIONS: dict[str, F32] = {name: _expression(emotion) for name, emotion in EMOTIONS.items()}


def preset_names() -> tuple[str, ...]:
    """The 22 emotions in the paper's order, without "none"."""
    return PRESET_NAMES


def parts_lips(name: str) -> bool:
    """Whether the emotion `name` (of `PRESET_NAMES`) opens the mouth: AU 25 or 26. False for "none"."""
    emotion = EMOTIONS.get(name, Emotion(()))
    return bool({25, 26} & {*emotion.always, *emotion.often})


def preset_motion(name: str, strength: float = 1.0) -> F32:
    """Expression (52,) of the emotion `name` (of `PRESET_NAMES`) or of "none", times `strength`.

    Raises PresetError for any other name.
    """
    if name == "none":
        return np.zeros(EXPRESSION_COUNT, np.float32)
    if name not in _EXPRESSIONS:
        raise PresetError(f"there is no emotion {name!r}; choose one of: {', '.join(PRESET_NAMES)}")
    return (strength * _EXPRESSIONS[name]).astype(np.float32)
