"""Figures of speech → motion, where the right answer is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.speech.features import RATE_HZ
from engines.speech.network import OUTPUT_COUNT, VOICE
from scripts.evaluate_speech import said, table_of
from scripts.speech import alignment
from scripts.speech.alignment import AlignerMissing, aligned, kept_alignment
from scripts.speech.data import Recording, recording
from scripts.speech.evaluation import Curve, closure_scores, envelope_curve, median, opening_scores, share
from scripts.speech.visemes import Phone


def wandering(seconds: float, seed: int = 0) -> np.ndarray[Any, Any]:
    """(T,) at 100 Hz, smooth, 0 … about 0.2."""
    noise = np.random.default_rng(seed).normal(size=round(seconds * 100) + 30)
    return np.abs(np.convolve(noise, np.hanning(31), "valid"))[: round(seconds * 100)] / 20


def clip_of(openings: np.ndarray[Any, Any], known: slice | None = None) -> Recording:
    targets = np.zeros((len(openings), OUTPUT_COUNT), np.float32)
    targets[:, VOICE] = 1
    seen = np.zeros_like(targets)
    seen[known or slice(None)] = 1
    sound = np.zeros(len(openings) * 160, np.float32)
    return recording("clip", "anna", sound, targets, seen, openings.astype(np.float32))


def curve_of(openings: np.ndarray[Any, Any], late_s: float = 0.0) -> Curve:
    return Curve((np.arange(len(openings)) + 1) / 100 + late_s, openings)


@pytest.mark.parametrize("frames", [-3.0, 0.0, 2.0])
def test_a_curve_that_is_late_is_found_to_be_late(frames: float) -> None:
    truth = wandering(10)
    found = opening_scores(curve_of(3 * truth + 1, frames / 25), clip_of(truth))
    assert found is not None
    assert found.lag_frames == frames
    assert found.best_r == pytest.approx(1, abs=0.01)
    assert (found.r > 0.99) == (frames == 0)


def test_only_what_is_known_counts() -> None:
    truth = wandering(10)
    wrong = truth.copy()
    wrong[500:] = wandering(5, 7)
    found = opening_scores(curve_of(wrong), clip_of(truth, slice(0, 500)))
    assert found is not None
    assert found.r > 0.98
    assert opening_scores(curve_of(truth), clip_of(truth, slice(0, 50))) is None  # too short to tell


def test_the_envelope_follows_loudness_and_nothing_of_the_future() -> None:
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    sound = (0.3 * np.sin(2 * np.pi * 300 * t) * (t > 2)).astype(np.float32)
    for smooth_s in (0.0, 0.1):
        curve = envelope_curve(sound, smooth_s)
        assert curve.openings[:198].max() == 0
        assert curve.openings[-1] > 3


def lips(*closed_s: tuple[float, float]) -> Curve:
    times = (np.arange(400) + 1) / 100
    openings = np.full(400, 0.1)
    for begin, end in closed_s:
        openings[(times >= begin) & (times <= end)] = 0
    return Curve(times, openings)


WORD = (
    Phone("m", 0.5, 0.6), Phone("ah", 0.6, 0.9), Phone("p", 0.9, 1.0), Phone("ah", 1.0, 1.4),
    Phone("f", 1.4, 1.5), Phone("ah", 1.5, 2.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("closed", "shown", "met", "right"),
    [
        (((0.5, 0.6), (0.9, 1.0)), 2, 2, 2),
        (((0.93, 0.95),), 1, 1, 1),
        ((), 0, 0, 0),
        (((0.9, 1.0), (1.15, 1.25)), 1, 2, 1),  # shut on a vowel
        (((0.9, 1.0), (1.42, 1.48)), 1, 1, 1),  # at the teeth: neither right nor wrong
        (((0.9, 1.0), (2.5, 3.0)), 1, 1, 1),  # at rest after the word
    ],
)
def test_lips_that_meet_are_counted(
    closed: tuple[tuple[float, float], ...], shown: int, met: int, right: int
) -> None:
    found = closure_scores(lips(*closed), WORD)
    assert (found.said, found.shown, found.met, found.right) == (2, shown, met, right)


def test_every_spelling_of_a_bilabial_and_every_pause_is_known() -> None:
    phones = [Phone("_", 0.0, 0.5), Phone("pp", 0.5, 0.6), Phone("a:", 0.6, 1.0), Phone("#", 1.0, 2.0)]
    found = closure_scores(lips((0.1, 0.3), (0.5, 0.6), (1.2, 1.8)), phones)
    assert (found.said, found.shown, found.met, found.right) == (1, 1, 1, 1)


def test_intervals_draw_whole_people() -> None:
    values = [0.2, 0.2, 0.2, 0.2, 0.8, 0.5, 0.6]
    people = ["a", "a", "a", "a", "b", "c", "d"]
    found = median(values, people)
    assert found.value == 0.2
    assert found.low == 0.2
    assert found.high >= 0.6
    assert (found.count, found.subjects) == (7, 4)
    assert np.isnan(median([0.5], ["a"]).low)


def test_shares() -> None:
    found = share([1, 2, 0], [2, 2, 4], ["a", "b", "c"])
    assert found.value == pytest.approx(3 / 8)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert np.isnan(share([0], [0], ["a"]).value)


def test_tables_are_markdown() -> None:
    row: dict[str, object] = {
        "of": "x",
        "r": {"value": 0.5, "low": 0.4, "high": 0.6, "count": 3, "subjects": 3},
    }
    assert said(row["r"]) == "0.50 (0.40 … 0.60; n 3)"
    assert table_of([row, {"of": "y"}]).splitlines()[-1] == "| y |  |"


def test_without_the_aligner_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(AlignerMissing, match="pip install"):
        aligned(np.zeros(RATE_HZ, np.float32))


class FakeDecoder:
    """Understands "map"; `words` is what it hears."""

    words: tuple[str, ...] = ("<s>", "map(2)", "</s>")

    def __init__(self, **_: object) -> None:
        self.asked: list[str] = []

    def start_utt(self) -> None:
        return

    def end_utt(self) -> None:
        return

    def process_raw(self, raw: bytes, *, full_utt: bool) -> None:
        assert full_utt
        assert len(raw) == 2 * RATE_HZ

    def hyp(self) -> object:
        return object()

    def seg(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(word=w) for w in self.words]

    def set_align_text(self, text: str) -> None:
        assert text == "map"

    def set_alignment(self) -> None:
        return

    def get_alignment(self) -> list[list[SimpleNamespace]]:
        names = ("SIL", "M", "AE", "P")
        return [[SimpleNamespace(name=n, start=10 * k, duration=10) for k, n in enumerate(names)]]


def test_words_become_phones_in_time_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=FakeDecoder))  # type: ignore[arg-type]
    path = tmp_path / "deep" / "a.json"
    found = kept_alignment(path, np.zeros(RATE_HZ, np.float32))
    assert found == [Phone("m", 0.1, 0.2), Phone("ae", 0.2, 0.3), Phone("p", 0.3, 0.4)]
    assert len(json.loads(path.read_text())) == 3
    monkeypatch.setattr(alignment, "aligned", lambda _: pytest.fail("it was kept"))
    assert kept_alignment(path, np.zeros(1, np.float32)) == found


def test_nothing_understood_is_nothing_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(FakeDecoder):
        words = ("<s>", "<sil>", "</s>")

    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Deaf))  # type: ignore[arg-type]
    assert aligned(np.zeros(RATE_HZ, np.float32)) == []
