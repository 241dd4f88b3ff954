"""Which phones the text-to-speech engines say they have spoken, each in its own notation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.speech.features import RATE_HZ
from scripts.speech.visemes import Articulation, Phone, articulations_of, from_arpabet

F32 = NDArray[np.float32]

# names that mean something else in ARPAbet or IPA
_FESTIVAL_NAMES: dict[str, dict[str, str]] = {
    "cs": {
        "c": "ts",
        "c*": "tʃ",
        "s*": "ʃ",
        "z*": "ʒ",
        "r*": "ʒ",
        "n*": "ɲ",
        "t*": "c",
        "d*": "ɟ",
        "ch": "x",
    },
    "ru": {
        "y": "ɨ",
        "yy": "ɨ",
        "ay": "ə",
        "ae": "ə",
        "ee": "ɛ",
        "c": "ts",
        "h": "x",
        "hh": "x",
        "sch": "ɕ",
        "ur": "ə",
    },
    "it": {"y": "j", "SS": "ʃ", "LL": "ʎ", "JJ": "ɲ"},
    "fi": {"@": "æ", "@:": "æ", "7": "ø", "7:": "ø"},
    "ca": {"y": "j", "x": "ʃ"},
}


def flite_phones(printed: str) -> tuple[Phone, ...]:
    """Phones of `flite -psdur`: NAME:END in seconds."""
    ends = [(m[1], float(m[2])) for m in re.finditer(r"(\S+?):(\d+\.\d+)", printed)]
    return _from_ends((from_arpabet(name), end) for name, end in ends)


def festival_phones(labels: str, language: str) -> tuple[Phone, ...]:
    """Phones of festival's `utt.save.segs`: lines END NUMBER NAME after a line "#"."""
    names = _FESTIVAL_NAMES.get(language)
    rows = [line.split() for line in labels.split("#\n", 1)[-1].splitlines()]
    return _from_ends(
        (from_arpabet(row[2]) if names is None else names.get(row[2], row[2]), float(row[0]))
        for row in rows
        if len(row) >= 3
    )


def espeak_phones(events: Sequence[tuple[str, float]], seconds: float) -> tuple[Phone, ...]:
    """Phones of espeak's phoneme events (IPA, start in seconds); a stop's event comes with its burst."""
    heard = [(s, t) for s, t in events if not s.startswith("(")]
    ends = [t for _, t in heard[1:]] + [seconds]
    out: list[Phone] = []
    for (symbol, start), end in zip(heard, ends, strict=True):
        if end <= start:
            continue
        before = out[-1] if out else None
        short_gap = before is not None and _silent(before) and before.end_s - before.start_s < 0.12
        if before is not None and short_gap and len(out) > 1 and _is_stop(symbol):
            out.pop()  # that silence is the closure
            start = before.start_s
        out.append(Phone(symbol or "_", start, end))
    return tuple(out)


def with_closures(phones: Sequence[Phone], sound: F32, longest_s: float = 0.08) -> tuple[Phone, ...]:
    """Phones with stops that start when it gets quiet before their burst, at most `longest_s` earlier."""
    step = RATE_HZ // 200
    power = (sound[: len(sound) // step * step].reshape(-1, step).astype(np.float64) ** 2).mean(1)
    quiet = power < np.percentile(power, 95) * 10**-2.5
    out = list(phones)
    for k, phone in enumerate(out):
        if not _is_stop(phone.symbol):
            continue
        first = at = min(int(phone.start_s * 200), len(quiet))
        while at > 0 and quiet[at - 1] and first - at < longest_s * 200:
            at -= 1
        start = min(phone.start_s, max(at / 200, out[k - 1].start_s if k else 0.0))
        out[k] = replace(phone, start_s=start)
        if k:
            out[k - 1] = replace(out[k - 1], end_s=min(out[k - 1].end_s, start))
    return tuple(out)


def _from_ends(ends: Iterable[tuple[str, float]]) -> tuple[Phone, ...]:
    out: list[Phone] = []
    at = 0.0
    for name, end in ends:
        out.append(Phone(name, at, max(at, end)))
        at = max(at, end)
    return tuple(out)


def _silent(phone: Phone) -> bool:
    return articulations_of(phone.symbol) == (Articulation.SILENCE,)


def _is_stop(symbol: str) -> bool:
    return symbol[:1] in "pbtdkgɡcqʈ" and symbol != ""
