"""Phones → curves of the mouth, and what the text-to-speech engines print about time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT
from engines.speech.features import RATE_HZ
from engines.speech.network import CLOSURE, ROTATION, VOICE
from scripts.speech import tts_engines
from scripts.speech.tts import joined, read_phones, read_utterance, write_utterance
from scripts.speech.tts_engines import Spoken, TtsMissing, Voice
from scripts.speech.tts_phones import espeak_phones, festival_phones, flite_phones, with_closures
from scripts.speech.tts_text import LANGUAGES, sentence
from scripts.speech.visemes import (
    MOVED,
    Articulation,
    Phone,
    Style,
    articulations_of,
    curves_of,
    from_arpabet,
)

F32 = NDArray[np.float32]
JAW, PUCKER, STRETCH = (ARKIT_INDEX[n] for n in ("jawOpen", "mouthPucker", "mouthStretchLeft"))
LIPS = EXPRESSION_COUNT  # column of the closure

# of `flite -voice slt -psdur`, `utt.save.segs` of an Italian voice, and espeak-ng's events (en-us, IPA)
FLITE = "pau:0.193 b:0.224 aa:0.417 b:0.465 p:0.563 uh:0.683 t:0.736 y:0.790 pau:1.873 "
FESTIVAL = (
    "separator ;\nnfields 1\n#\n0.3000 100 # \n0.3481 100 l \n0.4244 100 a1 \n0.5600 100 SS \n0.6000 100 y \n"
)
ESPEAK = [
    ("", 0.0), ("(en)", 0.0), ("h", 0.01), ("ə", 0.05), ("", 0.1), ("p", 0.15), ("ɑː", 0.18), ("", 0.35), ("", 0.35),
]  # fmt: skip


def word(*symbols: str, each_s: float = 0.12, pause_s: float = 0.4) -> list[Phone]:
    """Phones of `each_s` between two pauses."""
    starts = [pause_s + each_s * k for k in range(len(symbols) + 1)]
    inner = [Phone(s, a, b) for s, a, b in zip(symbols, starts[:-1], starts[1:], strict=True)]
    return [Phone("_", 0, pause_s), *inner, Phone("_", starts[-1], starts[-1] + pause_s)]


def at(curves: F32, phone: Phone) -> F32:
    """The row in the middle of a phone."""
    return curves[round(50 * (phone.start_s + phone.end_s)) - 1]


def said(phones: list[Phone], style: Style | None = None) -> F32:
    return curves_of(phones, phones[-1].end_s, 100, style)


@pytest.mark.parametrize("symbol", ["p", "b", "m", "pʰ", "bʲ", "mː"])
@pytest.mark.parametrize("each_s", [0.035, 0.06, 0.12])
def test_bilabials_close_the_lips_between_open_vowels(symbol: str, each_s: float) -> None:
    phones = word("ɑ", symbol, "ɑ", each_s=each_s)
    middle = at(said(phones), phones[2])
    assert middle[LIPS] > 0.9
    assert middle[JAW] < 0.08


@pytest.mark.parametrize("symbol", ["t", "k", "s", "f", "w", "ɑ", "u"])
def test_other_sounds_keep_the_lips_apart(symbol: str) -> None:
    assert said(word("ɑ", symbol, "ɑ"))[:, LIPS].max() == 0


def test_vowels_have_their_shapes() -> None:
    rows = {}
    for symbol in ("ɑː", "iː", "uː", "s"):
        phones = word(symbol, each_s=0.2)
        rows[symbol] = at(said(phones), phones[1])
    assert 0.33 < rows["ɑː"][JAW] < 0.45
    assert 0.02 < rows["s"][JAW] < 0.08
    assert rows["iː"][JAW] < 0.5 * rows["ɑː"][JAW]
    assert rows["uː"][PUCKER] > 0.3 > rows["iː"][PUCKER] + 0.2
    assert rows["iː"][STRETCH] > rows["uː"][STRETCH] + 0.1


def test_silence_is_rest_and_only_the_mouth_moves() -> None:
    curves = said(word("b", "æ", "t", pause_s=1.0))
    assert np.abs(curves[:70]).max() < 1e-6
    assert np.abs(curves[-60:]).max() < 1e-6
    still = [k for k in range(EXPRESSION_COUNT) if k not in MOVED]
    assert not curves[:, still].any()
    assert not curves_of([Phone("_", 0, 1)], 1).any()
    assert not curves_of([], 1).any()


def test_neighbours_colour_a_consonant_and_rounding_comes_early() -> None:
    before_u, before_i = word("s", "t", "u"), word("s", "t", "i")
    assert at(said(before_u), before_u[2])[PUCKER] > at(said(before_i), before_i[2])[PUCKER] + 0.05
    open_k, close_k = word("ɑ", "k", "ɑ"), word("i", "k", "i")
    assert at(said(open_k), open_k[2])[JAW] > at(said(close_k), close_k[2])[JAW] + 0.08
    # 100 ms before the first sound the mouth is on its way, and it is not 300 ms before
    curves = said(word("ɑ", each_s=0.2))
    assert curves[29, JAW] > 0.005 > curves[9, JAW]


def test_curves_are_smooth_and_do_not_depend_on_the_rate() -> None:
    phones = word("p", "ɑ", "m", "uː", "b", "iː", "w", "ɑ", "p", each_s=0.06)
    curves = curves_of(phones, phones[-1].end_s, 100)
    assert np.abs(np.diff(curves[:, :EXPRESSION_COUNT], axis=0)).max() < 0.07
    assert np.abs(np.diff(curves[:, LIPS])).max() < 0.3
    slow = curves_of(phones, phones[-1].end_s, 50)
    assert np.abs(slow - curves[1::2][: len(slow)]).max() < 0.03


def test_style_scales_the_mouth() -> None:
    phones = word("ɑ", "u", each_s=0.2)
    plain, wide = said(phones), said(phones, Style(openness=1.5, rounding=0.5))
    np.testing.assert_allclose(wide[:, JAW], 1.5 * plain[:, JAW], atol=1e-6)
    np.testing.assert_allclose(wide[:, PUCKER], 0.5 * plain[:, PUCKER], atol=1e-6)


def test_phones_that_run_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        curves_of([Phone("a", 0.5, 0.4)], 1)


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("aɪ", "OPEN CLOSE_FRONT"),
        ("oU", "MID_BACK_ROUND CLOSE_BACK_ROUND"),
        ("ow", "MID_BACK_ROUND CLOSE_BACK_ROUND"),
        ("A:", "OPEN"),
        ("ˈɛ̃ː", "MID_FRONT"),
        ("tʃ", "POSTALVEOLAR"),
        ("tS", "POSTALVEOLAR"),
        ("a1", "OPEN"),
        ("y", "FRONT_ROUND"),
        ("2", "FRONT_ROUND"),
        ("yː", "FRONT_ROUND"),
        ("pp", "BILABIAL"),
        ("ã", "OPEN"),
        ("pau", "SILENCE"),
        ("", "SILENCE"),
        ("_:", "SILENCE"),
        ("€", "SCHWA"),
    ],
)
def test_symbols_of_every_alphabet(symbol: str, expected: str) -> None:
    assert " ".join(a.name for a in articulations_of(symbol)) == expected


def test_arpabet_is_known_whole() -> None:
    vowels = "aa|ae|ah|ao|aw|ax|axr|ay|eh|er|ey|ih|ix|iy|ow|oy|uh|uw"
    others = "b|ch|d|dh|dx|el|em|en|f|g|hh|jh|k|l|m|n|ng|p|r|s|sh|t|th|v|w|y|z|zh"
    phones = f"{vowels}|{others}".split("|")
    schwas = [p for p in phones if articulations_of(from_arpabet(p)) == (Articulation.SCHWA,)]
    assert schwas == ["ax", "ix"]
    assert articulations_of(from_arpabet("Y")) == (Articulation.PALATAL,)


def test_an_unknown_symbol_leaves_the_mouth_to_its_neighbours() -> None:
    curves = said(word("ɑ", "€", "ɑ"))
    assert np.isfinite(curves).all()
    assert curves[:, LIPS].max() == 0


def test_flite_prints_ends() -> None:
    phones = flite_phones(FLITE)
    assert [p.symbol for p in phones] == ["pau", "b", "aa", "b", "p", "uh", "t", "j", "pau"]
    assert (phones[4].start_s, phones[4].end_s) == (0.465, 0.563)
    assert phones[0].start_s == 0
    assert flite_phones("") == ()


def test_festival_labels_are_read_in_their_language() -> None:
    phones = festival_phones(FESTIVAL, "it")
    assert phones == (
        Phone("#", 0, 0.3), Phone("l", 0.3, 0.3481), Phone("a1", 0.3481, 0.4244), Phone("ʃ", 0.4244, 0.56),
        Phone("j", 0.56, 0.6),
    )  # fmt: skip
    # rounded in Finnish, a vowel like any other elsewhere
    assert articulations_of(festival_phones("#\n0.1 100 7\n", "fi")[0].symbol) == (Articulation.FRONT_ROUND,)


def test_espeak_events_are_starts_and_a_short_gap_belongs_to_its_stop() -> None:
    phones = espeak_phones(ESPEAK, 0.6)
    # what takes no time is no phone
    assert [p.symbol for p in phones] == ["_", "h", "ə", "p", "ɑː", "_"]
    stop = next(p for p in phones if p.symbol == "p")
    assert (stop.start_s, stop.end_s) == (0.1, 0.18)


def test_a_stop_begins_with_its_closure() -> None:
    sound = np.ones(RATE_HZ, np.float32)
    sound[int(0.44 * RATE_HZ) : int(0.5 * RATE_HZ)] = 0
    vowel, stop = with_closures([Phone("a", 0.2, 0.5), Phone("p", 0.5, 0.54)], sound)
    assert stop == Phone("p", 0.44, 0.54)
    assert vowel == Phone("a", 0.2, 0.44)
    longer = np.where(np.arange(RATE_HZ) < RATE_HZ // 2, 0, 1).astype(np.float32)
    assert with_closures([Phone("_", 0, 0.5), Phone("p", 0.5, 0.54)], longer)[1].start_s == pytest.approx(
        0.42
    )


def test_an_utterance_comes_back_from_its_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    loud = rng.standard_normal(RATE_HZ // 2).astype(np.float32) * 0.1
    part = Spoken(loud, (Phone("m", 0, 0.1), Phone("ɑ", 0.1, 0.5)))
    whole = joined([part, part], [0.3, 0.2, 0.4])
    assert len(whole.sound) == pytest.approx(1.9 * RATE_HZ, abs=2)
    write_utterance(tmp_path, "a", whole, Voice("flite", "slt", "en"))
    phones = read_phones(tmp_path / "a.npz")
    assert [p.symbol for p in phones] == ["_", "m", "ɑ", "_", "m", "ɑ", "_"]
    assert phones[4].start_s == pytest.approx(1.0, abs=1e-3)
    back = read_utterance(tmp_path / "a.npz")
    assert (back.name, back.subject) == ("a", "tts-flite-slt")
    # 16 bits
    np.testing.assert_allclose(back.sound, whole.sound[: len(back.sound)], atol=1 / 16000)
    assert back.targets[34, CLOSURE] > 0.9
    assert back.targets[104, CLOSURE] > 0.9
    assert back.targets[60, JAW] > 0.3
    assert back.targets[60, VOICE] == 1
    assert back.targets[5, VOICE] == 0
    assert not back.known[:, ROTATION].any()
    assert not back.known[:, ARKIT_INDEX["eyeBlinkLeft"]].any()
    assert back.known[:, [JAW, CLOSURE, VOICE]].all()


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_is_something_to_say_in_every_language(language: str) -> None:
    rng = np.random.default_rng(1)
    said_ = [sentence(language, rng) for _ in range(60)]
    assert len(set(said_)) > 20
    assert all(s.strip(" .") and "|" not in s and "{" not in s for s in said_)
    again = np.random.default_rng(1)
    assert said_ == [sentence(language, again) for _ in range(60)]


def test_missing_engines_name_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(tts_engines.shutil, "which", nothing)
    monkeypatch.setattr(tts_engines, "_espeak_library", lambda: None)
    with pytest.raises(TtsMissing, match="apt-get install flite espeak-ng"):
        tts_engines.installed_voices()
