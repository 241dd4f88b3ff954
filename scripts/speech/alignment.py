"""Phones of English speech in time, by pocketsphinx: words by its language model, then phones aligned by force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import VisavisError
from engines.files import write_whole
from engines.speech.features import RATE_HZ
from scripts.speech.visemes import Phone, from_arpabet

F32 = NDArray[np.float32]

ALIGN_HZ = 100.0


class AlignerMissing(VisavisError):
    """pocketsphinx is not installed."""


def aligned(sound: F32) -> list[Phone]:
    """Phones of (S,) float32 English speech at 16 kHz; empty where no words are understood.

    The words may be wrong where the phones are right: what is said counts here, not what is meant.
    Raises AlignerMissing.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise AlignerMissing("pocketsphinx is missing: pip install -e '.[eval]'") from error
    loud = np.clip(sound / max(float(np.abs(sound).max(initial=0)), 1e-3) * 0.7, -1, 1)
    raw = (loud * 32767).astype(np.int16).tobytes()
    decoder = Decoder(samprate=float(RATE_HZ), loglevel="FATAL")

    def decode() -> None:
        decoder.start_utt()
        decoder.process_raw(raw, full_utt=True)
        decoder.end_utt()

    try:
        decode()
        words = (
            [s.word.split("(")[0] for s in decoder.seg() if s.word[0] not in "<["] if decoder.hyp() else []
        )
        if not words:
            return []
        decoder.set_align_text(" ".join(words))
        decode()
        decoder.set_alignment()
        decode()
    except RuntimeError:  # it gives up on what it cannot align
        return []
    return [
        Phone(from_arpabet(p.name), p.start / ALIGN_HZ, (p.start + p.duration) / ALIGN_HZ)
        for word in decoder.get_alignment()
        for p in word
        if p.name != "SIL"
    ]


def kept_alignment(path: Path, sound: F32) -> list[Phone]:
    """`aligned`, read from `path` when it is there and written to it when not."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = aligned(sound)
        write_whole(path, json.dumps([[p.symbol, p.start_s, p.end_s] for p in found]))
        return found
    return [Phone(*row) for row in json.loads(path.read_text())]
