"""Phones with times → curves of the mouth, each phone coloured by its neighbours (coarticulation).

Every phone pulls the mouth towards its target with a dominance that fades in time (Cohen and Massaro 1993); the
curve is the mean of the targets by dominance. An alveolar hardly cares where the jaw is, so the vowels around it
say; a bilabial cares for the lips alone and closes them. Anticipation reaches further than carry-over.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Phone:
    """One sound of speech: its symbol (see `articulations_of`) and when it is heard."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Style:
    """How a person speaks: factors on the jaw's opening and on rounding, and a smile under all of it."""

    openness: float = 1.0
    rounding: float = 1.0
    smile: float = 0.0


class Articulation(Enum):
    """What the mouth does for a phone, as far as one sees it."""

    SILENCE = "silence"
    BILABIAL = "p b m"
    LABIODENTAL = "f v"
    LABIAL_GLIDE = "w"
    LABIAL_FRICATIVE = "bilabial, but never quite closed, as in Spanish"
    DENTAL = "th"
    ALVEOLAR = "t d n l"
    SIBILANT = "s z"
    POSTALVEOLAR = "sh zh ch j"
    RHOTIC = "English r"
    PALATAL = "y as in yes"
    VELAR = "k g ng, and further back"
    GLOTTAL = "h and the glottal stop"
    OPEN = "ah"
    OPEN_FRONT = "a as in cat"
    MID_FRONT = "e"
    CLOSE_FRONT = "i"
    SCHWA = "uh, and any unstressed vowel"
    RHOTIC_VOWEL = "er"
    MID_BACK_ROUND = "o"
    CLOSE_BACK_ROUND = "u"
    FRONT_ROUND = "French u, German ö and ü"


_PARTS = ("jaw", "height", "round", "spread")
# coefficient → which part of the mouth its dominance belongs to; Left and Right move alike
_CHANNELS = {
    "jawOpen": "jaw", "mouthClose": "height", "mouthPress": "height", "mouthRollLower": "height",
    "mouthRollUpper": "height", "mouthShrugUpper": "height", "mouthUpperUp": "height", "mouthLowerDown": "height",
    "mouthFunnel": "round", "mouthPucker": "round", "mouthStretch": "spread", "mouthSmile": "spread",
}  # fmt: skip
_NAMES = tuple(_CHANNELS)
_JAW, _FUNNEL, _PUCKER, _SMILE = (
    _NAMES.index(n) for n in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthSmile")
)
_SIDES = [
    (k, ARKIT_INDEX[name + side])
    for k, name in enumerate(_NAMES)
    for side in ("", "Left", "Right")
    if name + side in ARKIT_INDEX
]
# the coefficients that speech moves
MOVED = tuple(sorted(column for _, column in _SIDES))
_PART_OF = np.array([_PARTS.index(_CHANNELS[n]) for n in _NAMES])

# targets in the order of _NAMES, then the dominances of _PARTS
_A = Articulation
_TABLE: dict[Articulation, tuple[tuple[float, ...], tuple[float, ...]]] = {
    #                      jaw  close press rollL rollU shrug upper lower funnel pucker stretch smile
    _A.SILENCE:          ((.00, .00, .00, .00, .00, .00, .00, .00, .00, .00, .00, .00), (.6, .6, .6, .6)),
    _A.BILABIAL:         ((.03, .05, .22, .14, .12, .10, .00, .00, .00, .02, .00, .00), (2, 3.5, .15, .15)),
    _A.LABIODENTAL:      ((.04, .02, .02, .20, .00, .08, .16, .00, .00, .00, .03, .00), (1.4, 2.5, .5, .3)),
    _A.LABIAL_GLIDE:     ((.06, .02, .00, .00, .00, .05, .02, .04, .18, .42, .00, .00), (.8, 1, 1.6, .8)),
    _A.LABIAL_FRICATIVE: ((.06, .02, .06, .06, .05, .05, .02, .04, .02, .06, .00, .00), (1.2, 2.5, .2, .2)),
    _A.DENTAL:           ((.09, .00, .00, .00, .00, .02, .08, .16, .00, .00, .04, .00), (.5, .6, .2, .3)),
    _A.ALVEOLAR:         ((.08, .00, .00, .00, .00, .00, .08, .14, .00, .00, .03, .01), (.35, .35, .1, .2)),
    _A.SIBILANT:         ((.04, .00, .00, .00, .00, .00, .10, .16, .00, .00, .08, .03), (1.1, .7, .25, .5)),
    _A.POSTALVEOLAR:     ((.06, .00, .00, .00, .00, .04, .14, .14, .24, .18, .00, .00), (1.0, .8, .9, .5)),
    _A.RHOTIC:           ((.08, .00, .00, .00, .00, .03, .06, .10, .12, .18, .00, .00), (.5, .5, .7, .3)),
    _A.PALATAL:          ((.07, .00, .00, .00, .00, .00, .08, .13, .00, .00, .08, .04), (.5, .5, .4, .6)),
    _A.VELAR:            ((.10, .00, .00, .00, .00, .00, .06, .12, .00, .00, .02, .00), (.25, .2, .08, .1)),
    _A.GLOTTAL:          ((.12, .00, .00, .00, .00, .00, .05, .10, .00, .00, .00, .00), (.1, .1, .05, .05)),
    _A.OPEN:             ((.40, .00, .00, .00, .00, .00, .14, .30, .02, .00, .02, .00), (1.2, 1, .6, .6)),
    _A.OPEN_FRONT:       ((.34, .00, .00, .00, .00, .00, .20, .34, .00, .00, .10, .05), (1.2, 1, .6, .8)),
    _A.MID_FRONT:        ((.22, .00, .00, .00, .00, .00, .16, .28, .00, .00, .12, .06), (1, 1, .7, .9)),
    _A.CLOSE_FRONT:      ((.10, .00, .00, .00, .00, .00, .12, .22, .00, .00, .18, .08), (.9, 1, .9, 1)),
    _A.SCHWA:            ((.15, .00, .00, .00, .00, .00, .08, .17, .00, .00, .02, .00), (.4, .4, .2, .2)),
    _A.RHOTIC_VOWEL:     ((.14, .00, .00, .00, .00, .00, .08, .16, .10, .16, .00, .00), (.8, .7, .8, .5)),
    _A.MID_BACK_ROUND:   ((.24, .00, .00, .00, .00, .00, .06, .16, .18, .26, .00, .00), (1, 1, 1.2, .8)),
    _A.CLOSE_BACK_ROUND: ((.10, .02, .00, .00, .00, .00, .04, .10, .18, .40, .00, .00), (.9, 1, 1.4, .8)),
    _A.FRONT_ROUND:      ((.12, .02, .00, .00, .00, .00, .08, .12, .18, .36, .00, .00), (.9, 1, 1.3, .8)),
}  # fmt: skip

# IPA, ARPAbet in lower case and X-SAMPA, told apart where they differ; ARPAbet's "y" comes as "j" (`from_arpabet`)
_SYMBOLS: dict[Articulation, str] = {
    _A.SILENCE: "_ # pau sil sp h# ssil",
    _A.BILABIAL: "p b m em ɓ",
    _A.LABIODENTAL: "f v ʋ ɱ P",
    _A.LABIAL_GLIDE: "w ʍ W ɥ",
    _A.LABIAL_FRICATIVE: "β ɸ B",
    _A.DENTAL: "th dh θ ð T D",
    _A.ALVEOLAR: "t d n l r dx el en ɾ ɫ ɭ ɳ ʈ ɖ ɗ ɽ ɬ L",
    _A.SIBILANT: "s z ts dz ʦ ʣ c",
    _A.POSTALVEOLAR: "ʃ ʒ sh zh ch jh tʃ dʒ tS dZ S Z tɕ tɕʰ dʑ ɕ ʑ tʂ dʐ ʂ ʐ ʧ ʤ sch č š ž",
    _A.RHOTIC: "ɹ ɻ R",
    _A.PALATAL: "j ʝ ɲ ʎ ɟ ç J C",
    _A.VELAR: "k g ɡ ng ŋ N x ɣ X G q ɢ χ ʁ ʀ ɴ ħ ɰ",
    _A.GLOTTAL: "h hh hv ɦ ʔ ?",
    _A.OPEN: "aa ah a ɑ ʌ ɐ A V ɒ Q",
    _A.OPEN_FRONT: "ae æ & {",
    _A.MID_FRONT: "eh e ɛ E",
    _A.CLOSE_FRONT: "iy ih i ɪ I ɨ ᵻ 1 ɯ M",
    _A.SCHWA: "ax ix ə @ ɤ ɘ axh",
    _A.RHOTIC_VOWEL: "er axr ɜ ɝ ɚ 3",
    _A.MID_BACK_ROUND: "ao o ɔ O",
    _A.CLOSE_BACK_ROUND: "uw uh u ʊ U ʉ",
    _A.FRONT_ROUND: "y ʏ ø œ ɶ ɵ Y 2 9",
}
_OF_SYMBOL = {s: a for a, symbols in _SYMBOLS.items() for s in symbols.split()}
_DIPHTHONGS = {
    "ay": "aɪ", "ey": "eɪ", "oy": "ɔɪ", "aw": "aʊ", "ow": "oʊ",
}  # fmt: skip
_LONGEST = max(map(len, _OF_SYMBOL))

# fading of the dominance, seconds for a factor of e: ahead of the phone and after it
_AHEAD_S = {"jaw": 0.055, "height": 0.045, "round": 0.085, "spread": 0.07}
_AFTER_S = {"jaw": 0.040, "height": 0.035, "round": 0.055, "spread": 0.05}
_CLOSE_S = 0.045  # the lips' way to and from contact
_MIN_CONTACT_S = 0.05
_OPENING_S = 0.18  # from rest to speech, before the first sound
_CLOSING_S = 0.22
_FINE_HZ = 200.0
_SMOOTH_S = 0.016


def from_arpabet(symbol: str) -> str:
    """ARPAbet as flite and festival's English voices print it, less its clash with IPA."""
    return "j" if symbol.lower() == "y" else symbol.lower()


def articulations_of(symbol: str) -> tuple[Articulation, ...]:
    """What the mouth does for a phone in IPA, espeak's mnemonics, X-SAMPA or `from_arpabet`; several for a diphthong.

    Stress, length and other marks do not matter. A symbol nobody knows is a weak schwa: its neighbours decide.
    """
    bare = symbol.strip()
    if bare in _OF_SYMBOL:
        return (_OF_SYMBOL[bare],)
    plain = unicodedata.normalize("NFD", bare)
    bare = "".join(
        c for c in plain if unicodedata.category(c) not in ("Mn", "Lm", "Sk") and c not in "'\":;!|~-^*"
    )
    if len(bare) > 1 and not bare[0].isdigit():
        bare = bare.rstrip("0123456789") or bare
    if not bare:
        return (Articulation.SILENCE,)
    bare = _DIPHTHONGS.get(bare, bare)
    found: list[Articulation] = []
    at = 0
    while at < len(bare):
        for size in range(min(_LONGEST, len(bare) - at), 0, -1):
            known = _OF_SYMBOL.get(bare[at : at + size])
            if known is not None:
                found.append(known)
                at += size
                break
        else:
            at += 1
    kept = [a for k, a in enumerate(found) if k == 0 or found[k - 1] != a]
    return tuple(kept) or (Articulation.SCHWA,)


def curves_of(
    phones: Sequence[Phone], seconds: float, rate_hz: float = 100, style: Style | None = None
) -> F32:
    """(T, 53) the 52 coefficients and the closure of the lips (0 … 1), of `seconds` of speech.

    Row t is the mouth at the end of the t-th step of `1 / rate_hz` s, T = floor(seconds · rate_hz). Only the mouth
    and the jaw move. Raises ValueError for phones that end before they start.
    """
    style = style or Style()
    if any(p.end_s < p.start_s for p in phones):
        raise ValueError("a phone ends before it starts; give phones as (symbol, start_s, end_s)")
    count = int(seconds * rate_hz + 1e-6)
    fine = np.arange(int(np.ceil(seconds * _FINE_HZ)) + 2) / _FINE_HZ
    pieces = [piece for p in phones for piece in _pieces(p)]
    speech = _speech(pieces, fine)
    mouth = _blended(pieces, fine) * speech[:, None]
    mouth[:, _JAW] *= style.openness
    mouth[:, [_FUNNEL, _PUCKER]] *= style.rounding
    mouth[:, _SMILE] += style.smile
    closure = _closure(pieces, fine)
    mouth = _closed(mouth, closure)
    values = _smooth(np.concatenate([mouth, closure[:, None]], 1))
    at = (np.arange(count) + 1) / rate_hz
    out = np.zeros((count, EXPRESSION_COUNT + 1), np.float32)
    for k, column in _SIDES:
        out[:, column] = np.interp(at, fine, values[:, k])
    out[:, EXPRESSION_COUNT] = np.interp(at, fine, values[:, -1])
    return out


_Piece = tuple[Articulation, float, float]


def _pieces(phone: Phone) -> list[_Piece]:
    parts = articulations_of(phone.symbol)
    ends = np.linspace(phone.start_s, phone.end_s, len(parts) + 1).tolist()
    return list(zip(parts, ends[:-1], ends[1:], strict=True))


def _speech(pieces: list[_Piece], t: F64) -> F64:
    """(T,) 1 while sounds are made, 0 in silence, with the mouth ahead of the first sound."""
    out = np.zeros(len(t))
    for articulation, start, end in pieces:
        if articulation is Articulation.SILENCE:
            continue
        ramp = np.minimum((t - start) / _OPENING_S + 1, (end - t) / _CLOSING_S + 1)
        out = np.maximum(out, np.clip(ramp, 0, 1))
    return out * out * (3 - 2 * out)


def _blended(pieces: list[_Piece], t: F64) -> F64:
    """(T, channels) the mean of the targets by dominance."""
    above = np.zeros((len(t), len(_NAMES)))
    below = np.full((len(t), len(_PARTS)), 1e-9)
    for articulation, start, end in pieces:
        targets, dominances = _TABLE[articulation]
        # the target is held in the phone's middle and given up towards its ends
        inset = 0.25 * (end - start)
        before, after = np.maximum(start + inset - t, 0), np.maximum(t - end + inset, 0)
        near = np.flatnonzero((before < 0.6) & (after < 0.6))
        weight = np.stack(
            [
                strength * np.exp(-before[near] / _AHEAD_S[part] - after[near] / _AFTER_S[part])
                for part, strength in zip(_PARTS, dominances, strict=True)
            ],
            1,
        )
        below[near] += weight
        above[near] += weight[:, _PART_OF] * np.array(targets)
    return above / below[:, _PART_OF]


def _closure(pieces: list[_Piece], t: F64) -> F64:
    """(T,) 1 while a bilabial keeps the lips together, with the way there before it."""
    out = np.zeros(len(t))
    for articulation, start, end in pieces:
        if articulation is not Articulation.BILABIAL:
            continue
        spare = max(0.0, _MIN_CONTACT_S - (end - start)) / 2
        ramp = np.minimum((t - start + spare) / _CLOSE_S + 1, (end + spare - t) / _CLOSE_S + 1)
        out = np.maximum(out, np.clip(ramp, 0, 1))
    return out * out * (3 - 2 * out)


def _closed(mouth: F64, closure: F64) -> F64:
    """(T, channels) with lips that do meet where they should, however short the time between wide vowels."""
    # the jaw comes most of the way, the lips do the rest
    weight = np.array([0.8, 1, 0, 0])[_PART_OF] * closure[:, None]
    return mouth + weight * (np.array(_TABLE[Articulation.BILABIAL][0]) - mouth)


def _smooth(values: F64) -> F64:
    """Columns through a symmetric window of `_SMOOTH_S` (standard deviation): lips have mass."""
    reach = int(3 * _SMOOTH_S * _FINE_HZ)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (_SMOOTH_S * _FINE_HZ)) ** 2)
    window /= window.sum()
    padded = np.pad(values, ((reach, reach), (0, 0)), "edge")
    return np.stack([np.convolve(c, window, "valid") for c in padded.T], 1)
