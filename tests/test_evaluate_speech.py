"""Figures of speech → motion, where the right answer is known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy.signal import lfilter

from engines.compile.weights import WeightsHeader, save_weights
from engines.motion import ARKIT_INDEX
from engines.speech.features import RATE_HZ
from engines.speech.network import KIND, OUTPUT_COUNT, VOICE
from engines.speech.opening import WIDE_OPEN
from engines.speech.speech_to_motion import SpeechToMotion, Spoken
from scripts import evaluate_speech
from scripts.evaluate_speech import (
    ENVELOPES_S,
    Judged,
    changed_by,
    clip_lips,
    hear_clips,
    heard_by_all,
    judge_clips,
    left_out,
    lips_row,
    opening_rows,
    said,
    table_of,
)
from scripts.speech import alignment
from scripts.speech.alignment import AlignerMissing, aligned, kept_alignment
from scripts.speech.data import Recording, recording
from scripts.speech.evaluation import (
    Curve,
    Lips,
    Opening,
    closure_scores,
    envelope_curve,
    heard_curve,
    median,
    opening_scores,
    share,
)
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


class Ear:
    """Opens the jaw as far as each 20 ms are loud and says so 80 ms later; keeps what it was given to hear."""

    look_ahead_s = 0.08

    def __init__(self, closed: float = 0.0) -> None:
        self.closed = closed
        self.sounds: list[np.ndarray[Any, Any]] = []

    def hear(self, samples: np.ndarray[Any, Any]) -> tuple[list[Spoken], None]:
        self.sounds.append(samples)
        loud = np.abs(samples[: len(samples) // 320 * 320]).reshape(-1, 320).max(1)
        spoken: list[Spoken] = []
        for k, jaw in enumerate(np.concatenate([np.zeros(4), loud])[: len(loud)]):
            answer = np.zeros(OUTPUT_COUNT, np.float32)
            answer[ARKIT_INDEX["jawOpen"]] = jaw
            spoken.append(Spoken((k + 1) / 50 - self.look_ahead_s, answer, 1.0, self.closed))
        return spoken, None


def speech(ear: Ear) -> SpeechToMotion:
    return cast("SpeechToMotion", ear)


@pytest.mark.parametrize("closed", [0.0, 0.5])
def test_what_is_heard_has_the_times_of_the_sound_to_its_end(closed: float) -> None:
    sound = np.zeros(2 * RATE_HZ, np.float32)
    sound[round(1.8 * RATE_HZ) :] = 0.4
    curve = heard_curve(speech(Ear(closed)), sound)
    wide = 0.4 * WIDE_OPEN * (1 - closed)
    assert curve.at(np.array([1.5, 1.79, 1.83, 1.99])) == pytest.approx([0, 0, wide, wide], abs=0.01)
    assert curve.times_s[-1] >= 2.0


@pytest.mark.parametrize("frames", [-8.0, -3.0, 0.0, 2.0, 8.0])
def test_a_curve_that_is_late_is_found_to_be_late(frames: float) -> None:
    truth = wandering(10)
    found = opening_scores(curve_of(3 * truth + 1, frames / 25), clip_of(truth))
    assert found is not None
    assert found.lag_frames == frames
    assert found.best_r == pytest.approx(1, abs=0.01)
    assert (found.r > 0.99) == (frames == 0)


def test_what_never_moves_has_no_correlation() -> None:
    truth = wandering(10)
    found = opening_scores(curve_of(np.zeros(1000)), clip_of(truth))
    assert found is not None
    assert (found.r, found.best_r) == (0, 0)
    assert opening_scores(curve_of(truth), clip_of(np.full(1000, 0.1))) is None


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


def test_the_envelope_rises_when_the_sound_does_and_as_slowly_as_asked() -> None:
    t = np.arange(3 * RATE_HZ) / RATE_HZ
    sound = (0.3 * np.sin(2 * np.pi * 300 * t) * (t > 1)).astype(np.float32)
    at_once, slow = envelope_curve(sound, 0.0), envelope_curve(sound, 0.1)
    assert at_once.times_s[at_once.openings > 1][0] == pytest.approx(1.0, abs=0.03)
    keep = np.exp(-0.01 / 0.1)  # hops of 10 ms
    assert np.allclose(slow.openings, lfilter([1 - keep], [1, -keep], at_once.openings))
    assert np.array_equal(slow.times_s, at_once.times_s)


def lips(*closed_s: tuple[float, float], gap: float = 0.0) -> Curve:
    times = (np.arange(400) + 1) / 100
    openings = np.full(400, 0.1)
    for begin, end in closed_s:
        openings[(times > begin - 0.005) & (times < end + 0.005)] = gap
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
        (((1.03, 1.2),), 1, 1, 1),  # an alignment may be wrong by so much
        (((1.06, 1.2),), 0, 1, 0),  # but by no more
        (((0.83, 0.84), (1.06, 1.08)), 0, 2, 0),
        (((0.98, 1.45),), 1, 1, 1),  # from a p until f: right, though it also is at the teeth
    ],
)
def test_lips_that_meet_are_counted(
    closed: tuple[tuple[float, float], ...], shown: int, met: int, right: int
) -> None:
    found = closure_scores(lips(*closed), WORD)
    assert (found.said, found.shown, found.met, found.right) == (2, shown, met, right)


@pytest.mark.parametrize(("gap", "met"), [(0.015, 1), (0.04, 0)])
def test_a_gap_of_a_pixel_is_closed(gap: float, met: int) -> None:
    assert closure_scores(lips((0.93, 0.97), gap=gap), WORD).met == met


@pytest.mark.parametrize(("pause_s", "met"), [(0.1, 1), (0.3, 0)])
def test_lips_may_rest_in_a_pause_but_not_between_two_sounds(pause_s: float, met: int) -> None:
    phones = [Phone("ah", 0.0, 1.0), Phone("ah", 1.0 + pause_s, 3.99)]
    found = closure_scores(lips((1.02, 1.08)), phones)
    assert (found.met, found.right) == (met, 0)


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
    # a third of all draws are without the one person who has nearly all clips
    wide = median([0.0] * 100 + [1.0] * 3, ["a"] * 100 + ["b", "c", "d"])
    assert (wide.value, wide.low, wide.high) == (0, 0, 1)


def test_shares() -> None:
    found = share([1, 2, 0], [2, 2, 4], ["a", "b", "c"])
    assert found.value == pytest.approx(3 / 8)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert np.isnan(share([0], [0], ["a"]).value)
    none = share([0, 0, 0], [0, 0, 0], ["a", "b", "c"])
    assert np.isnan([none.value, none.low, none.high]).all()
    few = share([1, 1], [2, 2], ["a", "b"])
    assert few.value == 0.5
    assert np.isnan([few.low, few.high]).all()
    alike = share([1, 2, 3], [2, 4, 6], ["a", "b", "c"])
    assert (alike.low, alike.high) == (0.5, 0.5)


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
        loud = np.abs(np.frombuffer(raw, np.int16).astype(int)).max()
        assert loud in (0, int(0.7 * 32767))  # however quiet it was

    def hyp(self) -> object:
        return object()

    def seg(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(word=w) for w in self.words]

    def set_align_text(self, text: str) -> None:
        assert text == "map"

    def set_alignment(self) -> None:
        return

    def get_alignment(self) -> list[list[SimpleNamespace]]:
        names = ("SIL", "M", "AE", "P", "Y")  # ARPAbet's y is j to everybody else
        return [[SimpleNamespace(name=n, start=10 * k, duration=10) for k, n in enumerate(names)]]


def test_words_become_phones_in_time_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=FakeDecoder))  # type: ignore[arg-type]
    path = tmp_path / "deep" / "a.json"
    found = kept_alignment(path, np.full(RATE_HZ, 0.01, np.float32))
    assert found == [
        Phone("m", 0.1, 0.2), Phone("ae", 0.2, 0.3), Phone("p", 0.3, 0.4), Phone("j", 0.4, 0.5)
    ]  # fmt: skip
    assert len(json.loads(path.read_text())) == 4
    monkeypatch.setattr(alignment, "aligned", lambda _: pytest.fail("it was kept"))
    assert kept_alignment(path, np.zeros(1, np.float32)) == found


def test_nothing_understood_is_nothing_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(FakeDecoder):
        words = ("<s>", "<sil>", "</s>")

    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Deaf))  # type: ignore[arg-type]
    assert aligned(np.zeros(RATE_HZ, np.float32)) == []


def test_what_cannot_be_aligned_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(FakeDecoder):
        def set_alignment(self) -> None:
            raise RuntimeError("no path")

    monkeypatch.setitem(sys.modules, "pocketsphinx", SimpleNamespace(Decoder=Lost))  # type: ignore[arg-type]
    assert aligned(np.zeros(RATE_HZ, np.float32)) == []


def clip_with_sound(name: str, subject: str, seed: int) -> Recording:
    """Somebody whose voice is as loud as the mouth is open."""
    openings = wandering(10, seed).astype(np.float32)
    sound = np.repeat(openings / np.float32(WIDE_OPEN), 160)
    return replace(clip_of(openings), name=name, subject=subject, sound=sound)


def test_everybody_is_judged_by_the_weights_that_have_not_heard_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears: dict[str, Ear] = {}
    for fold, subject in (("fold0", "anna"), ("fold1", "bert")):
        path = tmp_path / f"{fold}.safetensors"
        notes = {"left_out": [subject, "nobody"]}
        save_weights(
            path, {"x": np.zeros(1, np.float32)}, WeightsHeader(KIND.name, KIND.version, {}, "", notes=notes)
        )
        assert left_out(path) == {subject, "nobody"}

    def fake_speech(fold: str) -> Ear:
        return ears.setdefault(fold, Ear())

    def fold_name(path: Path) -> str:
        return path.stem

    monkeypatch.setattr(evaluate_speech, "load_network", fold_name)
    monkeypatch.setattr(evaluate_speech, "SpeechToMotion", fake_speech)
    clips = [clip_with_sound(f"{s}_1", s, k) for k, s in enumerate(("anna", "bert", "carl"))]
    for clip in clips:
        rows = [["m", 1.0, 1.1], ["ah", 1.1, 9.9]] if clip.subject == "anna" else []
        (tmp_path / f"{clip.name}.json").write_text(json.dumps(rows))
    heard_of = hear_clips(clips, tmp_path)
    anna, bert = judge_clips(clips, heard_of, tmp_path)  # nothing has left Carl out
    assert (anna.subject, bert.subject) == ("anna", "bert")
    for fold, clip in zip(("fold0", "fold1"), clips, strict=False):
        (heard,) = ears[fold].sounds
        assert np.array_equal(heard[: len(clip.sound)], clip.sound)
    assert anna.ours.r > 0.98
    assert abs(anna.ours.lag_frames) <= 0.5
    assert anna.seconds == pytest.approx(10)
    assert len(anna.envelopes) == len(ENVELOPES_S)
    assert anna.lips is not None
    assert anna.tracked_lips is not None
    assert (anna.lips.said, anna.tracked_lips.said) == (1, 1)
    assert (bert.lips, bert.tracked_lips) == (None, None)  # nothing of theirs was understood


def test_other_microphones_are_quieter_louder_and_a_telephone() -> None:
    t = np.arange(8 * RATE_HZ) / RATE_HZ
    tones = np.sin(2 * np.pi * 1000 * t) + np.sin(2 * np.pi * 100 * t) + np.sin(2 * np.pi * 5000 * t)
    sound = (0.15 * tones * (1 + np.sin(2 * np.pi * 2 * t))).astype(np.float32)
    ear = Ear()
    found = changed_by(speech(ear), sound)
    assert list(found) == ["30 dB quieter", "12 dB louder, clipped", "telephone, 300 to 3400 Hz"]
    assert found["30 dB quieter"] == pytest.approx(1, abs=1e-3)  # this ear is linear
    assert found["12 dB louder, clipped"] < 0.99
    as_is, quiet, loud, telephone = (x[: len(sound)] for x in ear.sounds)
    assert np.array_equal(as_is, sound)
    assert np.abs(quiet).max() == pytest.approx(np.abs(sound).max() * 10**-1.5, rel=1e-3)
    assert np.abs(loud).max() == 1
    assert np.allclose(loud[np.abs(sound) < 0.2], 4 * sound[np.abs(sound) < 0.2])
    level = np.abs(np.fft.rfft(telephone)) / np.abs(np.fft.rfft(sound)).max()
    assert level[8 * 1000] > 0.9
    assert max(level[8 * 100], level[8 * 5000]) < 1e-3


def judged(subject: str, seconds: float, ours: Opening, theirs: Opening) -> Judged:
    """With a baseline that is worse by 0.1 at every other smoothing than the third."""
    worse = replace(theirs, r=theirs.r - 0.1)
    envelopes = tuple(theirs if k == 2 else worse for k in range(len(ENVELOPES_S)))
    return Judged(f"{subject}_1", subject, seconds, ours, envelopes, None, None, None)


def test_the_network_is_compared_with_the_best_baseline_on_the_same_clips() -> None:
    found = [judged(s, 6.0, Opening(0.8, 0.9, 0.5), Opening(0.5, 0.6, 3.0)) for s in "abc"]
    found.append(judged("d", 2.0, Opening(0.4, 0.4, -2.0), Opening(0.5, 0.6, -1.0)))
    rows: list[dict[str, Any]] = [dict(row) for row in opening_rows({"network": found})]
    every, long = rows[:3], rows[3:]
    assert [r["of"] for r in long] == [
        "network", "envelope, 60 ms", "network - envelope, 60 ms (means)"
    ]  # fmt: skip
    assert (every[0]["r"]["count"], long[0]["r"]["count"]) == (4, 3)
    assert (long[0]["r"]["value"], long[1]["r"]["value"]) == (0.8, 0.5)
    assert (long[0]["best_r"]["value"], long[0]["lag_frames"]["value"]) == (0.9, 0.5)
    assert (every[0]["within_a_frame"]["value"], every[1]["within_a_frame"]["value"]) == (0.75, 0.25)
    assert long[2]["r"]["value"] == pytest.approx(0.3)
    assert every[2]["r"]["value"] == pytest.approx((3 * 0.3 - 0.1) / 4)
    assert every[2]["r"]["low"] <= every[2]["r"]["value"] <= every[2]["r"]["high"]
    assert long[2]["off_frames"]["value"] == pytest.approx(-2.5)


def test_networks_stand_in_one_table_and_are_compared_on_the_same_clips() -> None:
    theirs = Opening(0.5, 0.6, 3.0)
    ours = [judged(s, 6.0, Opening(0.8, 0.9, 0.5), theirs) for s in "abcd"]
    papers = [
        judged(s, 6.0, Opening(r, 0.7, -2.0), theirs)
        for s, r in zip("abcd", (0.9, 0.6, 0.6, 0.5), strict=True)
    ]
    rows: list[dict[str, Any]] = [
        dict(row) for row in opening_rows({"gru": ours, "lstm": papers}, ", not shifted")
    ]
    every = [r for r in rows if r["clips"] == "all clips, not shifted"]
    assert len(rows) == 2 * len(every)
    assert [r["of"] for r in every] == [
        "gru", "lstm", "envelope, 60 ms",
        "gru - envelope, 60 ms (means)", "lstm - envelope, 60 ms (means)", "lstm - gru (means)",
    ]  # fmt: skip
    assert [row["r"]["value"] for row in every] == pytest.approx([0.8, 0.6, 0.5, 0.3, 0.15, -0.15])
    assert [row["off_frames"]["value"] for row in every[3:]] == pytest.approx([-2.5, -1.0, 1.5])


def test_only_clips_that_no_network_has_learned_from_are_compared() -> None:
    clips = [clip_with_sound(f"{s}_1", s, k) for k, s in enumerate(("anna", "bert", "carl"))]
    curve = curve_of(np.zeros(10))
    found = heard_by_all(
        clips, {"gru": {"anna_1": curve, "carl_1": curve}, "lstm": {"carl_1": curve, "bert_1": curve}}
    )
    assert [c.name for c in found] == ["carl_1"]


def test_recall_is_of_those_said_and_precision_of_those_shown() -> None:
    row: dict[str, Any] = dict(
        lips_row("x", [Lips(4, 3, 6, 2, 0.5, 2.0), Lips(6, 6, 2, 2, 0.5, 2.0)], ["a", "b"])
    )
    assert row["recall"]["value"] == pytest.approx(9 / 10)
    assert row["precision"]["value"] == pytest.approx(4 / 8)
    assert row["shut_share"] == pytest.approx(0.25)


def test_lips_of_each_network_and_once_the_peoples_own() -> None:
    def clip(shown: int) -> Judged:
        lips = Lips(4, shown, 4, 2, 0.5, 2.0)
        own = replace(lips, shown=4)
        blank = judged("a", 6.0, Opening(0.8, 0.9, 0.5), Opening(0.5, 0.6, 3.0))
        return replace(blank, lips=lips, moved_lips=replace(lips, shown=0), tracked_lips=own)

    deaf = judged("b", 6.0, Opening(0.8, 0.9, 0.5), Opening(0.5, 0.6, 3.0))
    rows: list[dict[str, Any]] = [
        dict(r) for r in clip_lips({"gru": [clip(3), deaf], "lstm": [clip(1), deaf]})
    ]
    assert [str(r["on"]).split(";")[0] for r in rows] == [
        "gru", "gru", "lstm", "lstm", "the people's own lips, tracked"
    ]  # fmt: skip
    assert [r["recall"]["value"] for r in rows] == [0.75, 0, 0.25, 0, 1]


def test_how_long_the_lips_are_shut_is_told() -> None:
    found = closure_scores(lips((0.5, 0.6), (1.0, 1.2), (2.5, 3.0)), WORD)
    assert found.speech_s == pytest.approx(1.5, abs=0.02)
    assert found.shut_s == pytest.approx(0.3, abs=0.03)  # the pause after the word does not count
    moved = closure_scores(lips((0.5, 0.6)).moved(1.0), WORD)
    assert (moved.shown, moved.right) == (0, 0)
