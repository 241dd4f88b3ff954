"""Training of `SpeechToMotion`: sound meets its motion, speakers stay apart, stages go on where they stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from engines.motion import ARKIT_INDEX
from engines.speech.features import RATE_HZ
from engines.speech.network import CLOSURE, OUTPUT_COUNT, VOICE, load_network
from engines.speech.opening import opening_weights
from scripts.speech.data import (
    LOOK_AHEAD_HOPS,
    USUAL_OPENING,
    Pool,
    Quiet,
    Recording,
    batch_of,
    plain,
    read_clip,
    read_sound,
    recording,
    scaled_to_usual,
)
from scripts.speech.losses import correlation
from scripts.speech.recipe import IFACEUV, RECIPES, VISAVIS, Recipe
from scripts.speech.task import SpeechNet
from scripts.train_speech import (
    Stages,
    folds_of,
    late_of,
    load_net,
    save_net,
    shifted_correlations,
    train_stages,
)
from scripts.training import loop
from scripts.training.errors import TrainingError
from scripts.training.loop import CHECKPOINT
from scripts.training.state import Training
from scripts.training.table import read_table

JAW = ARKIT_INDEX["jawOpen"]


def syllables(seconds: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A buzz whose loudness wanders, and that loudness at 100 Hz, 0 … 1."""
    rng = np.random.default_rng(seed)
    hops = round(seconds * 100)
    loud = np.clip(np.convolve(rng.normal(size=hops + 20), np.hanning(20), "valid")[:hops] / 3, 0, 1)
    t = np.arange(hops * 160) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 12))
    sound = 0.1 * buzz * np.interp(t, (np.arange(hops) + 1) / 100, loud)
    return sound.astype(np.float32), loud.astype(np.float32)


def spoken(name: str, subject: str, seconds: float = 6.0, seed: int = 0) -> Recording:
    sound, loud = syllables(seconds, seed)
    targets = np.zeros((len(loud), OUTPUT_COUNT), np.float32)
    targets[:, JAW] = 0.4 * loud
    targets[:, VOICE] = 1
    return recording(name, subject, sound, targets, np.ones_like(targets))


def test_targets_lie_a_look_ahead_behind_their_features() -> None:
    r = spoken("a", "a")
    s = plain(r)
    assert len(s.features) == len(s.targets) == len(s.openings)
    # row k has heard up to hop 2k + LOOK_AHEAD_HOPS + 1 and answers for hop 2k + 1
    assert np.array_equal(s.targets[10], r.targets[21])
    heard = np.exp(s.features.astype(np.float64)).sum(1).astype(np.float32)
    shown = r.targets[LOOK_AHEAD_HOPS + 1 :: 2, JAW][: len(heard)]
    shifts = shifted_correlations(shown, heard[: len(shown)], np.ones(len(shown), bool), 10)
    assert abs(int(shifts.argmax()) - 10) <= 1


def test_a_mouth_that_opens_little_is_scaled_up() -> None:
    quiet, loud = spoken("a", "a"), spoken("b", "b", seed=1)
    for r in scaled_to_usual([quiet, loud]):
        assert 0.5 * USUAL_OPENING < np.percentile(r.openings, 95) < 1.5 * USUAL_OPENING
    assert scaled_to_usual([]) == []


def write_clip(folder: Path, name: str, subject: str, *, late_s: float = 0.0, seed: int = 0) -> None:
    """A label file as `scripts.speech.labels` writes it, and its sound, `late_s` behind the picture."""
    sound, loud = syllables(8.0, seed)
    shift = round(late_s * RATE_HZ)
    late = np.concatenate([np.zeros(shift, np.float32), sound])[: len(sound)]
    frames = np.concatenate([loud[:1], loud[3::4]])  # what is there at k / 25 s
    expression = np.zeros((len(frames), 52), np.float32)
    expression[:, JAW] = 0.4 * frames
    gaps = expression @ opening_weights()
    (folder / "clips").mkdir(exist_ok=True, parents=True)
    (folder / "audio16k").mkdir(exist_ok=True)
    np.savez(
        folder / "clips" / f"{name}.npz", expression=expression, closure=np.zeros((len(frames), 3), np.float32),
        rotation_rad=np.zeros((len(frames), 3), np.float32), lip_gap=gaps.astype(np.float32),
        seen=np.ones(len(frames), bool), fps=np.float32(25), subject=np.str_(subject),
    )  # fmt: skip
    with av.open(str(folder / "audio16k" / f"{name}.flac"), "w") as out:
        stream = out.add_stream("flac", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray((late * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = RATE_HZ
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def test_pauses_are_not_known_and_late_sound_is_taken_out(tmp_path: Path) -> None:
    write_clip(tmp_path, "a", "anna")
    label = tmp_path / "clips" / "a.npz"
    sound, _ = syllables(8.0)
    sound[3 * RATE_HZ : 5 * RATE_HZ] = 0
    on_time, late = read_clip(label, sound), read_clip(label, sound, 0.1)
    assert not on_time.known[330:470, JAW].any()
    assert on_time.known[330:470, VOICE].all()
    assert on_time.subject == "anna"
    assert np.allclose(late.openings[110:200], on_time.openings[100:190], atol=1e-6)


class Loudness(SpeechNet):
    """Opens the mouth with the loudness of the moment it answers for."""

    def forward(self, heard: torch.Tensor) -> torch.Tensor:
        now = torch.exp(heard).sum(2).clamp(max=2)
        out = torch.zeros((*heard.shape[:2], OUTPUT_COUNT))
        back = LOOK_AHEAD_HOPS // 2
        out[:, back:, JAW] = now[:, :-back]
        return out


@pytest.mark.parametrize("late_s", [0.0, 0.06, 0.12])
def test_the_lateness_of_sound_is_found(tmp_path: Path, late_s: float) -> None:
    write_clip(tmp_path, "a", "anna", late_s=late_s)
    clip = read_clip(tmp_path / "clips" / "a.npz", read_sound(tmp_path / "audio16k" / "a.flac"))
    assert late_of(Loudness().eval(), clip) == pytest.approx(late_s, abs=0.03)


def test_correlations() -> None:
    x = np.random.default_rng(0).normal(size=200).astype(np.float32)
    r = shifted_correlations(x, np.roll(x, 3), np.ones(200, bool), 5)
    assert int(r.argmax()) - 5 == 3
    assert r.max() == pytest.approx(1, abs=0.02)
    assert not shifted_correlations(x, np.zeros(200, np.float32), np.ones(200, bool), 5).any()
    a = torch.from_numpy(x)[None]
    known = torch.ones_like(a)
    known[:, 100:] = 0
    other = a.clone()
    other[:, 100:] = 0  # not known: does not count
    assert float(correlation(a, 3 * other + 1, known)) == pytest.approx(1, abs=0.01)


def test_batches_hold_whole_chunks_of_every_source() -> None:
    rng = np.random.default_rng(0)
    people, quiet = Pool([spoken("a", "a")], rng, 1), Quiet(rng, 1)
    batch = batch_of([(0.5, people), (0.5, quiet)], rng, 16, 60)
    assert batch.features.shape[:2] == batch.targets.shape[:2] == batch.openings.shape == (16, 60)
    speaking = batch.targets[:, :, VOICE].max(1) > 0
    assert 0 < speaking.sum() < 16
    assert not batch.openings[~speaking].any()
    assert not batch.known[~speaking][:, :, CLOSURE].any()


def test_folds_leave_everybody_out_once() -> None:
    people = {f"person{k}" for k in range(11)}
    fold = folds_of(people, 4)
    assert set(fold) == people
    assert set(fold.values()) == {0, 1, 2, 3}
    assert folds_of(people, 4) == fold


def arguments_of(
    folder: Path, runs: Path, recipe: Recipe = VISAVIS, **changes: int
) -> tuple[list[Recording], list[Recording], Path, Path, Path, Stages, Recipe]:
    """What `train_stages` takes, for four people and a few steps."""
    if not (folder / "clips").exists():
        for k, subject in enumerate(("anna", "ben", "cleo", "dan")):
            write_clip(folder, f"clip{k}", subject, seed=k)
    stages = replace(Stages(pretrain_steps=2, steps=2, folds=2, variants=1, quiet=2), **changes)
    return [spoken("t", "tts")], [spoken("c", "curves")], folder, folder / "clips", runs, stages, recipe


def test_weights_of_another_recipe_are_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "pretrained.safetensors"
    save_net(path, SpeechNet(recipe=IFACEUV), {})
    assert load_net(path, 0.0, IFACEUV).recipe is IFACEUV
    with pytest.raises(
        TrainingError, match=r"\(LSTM on MFCC\) than --recipe visavis \(GRU on log-mel\); give another --runs"
    ):
        load_net(path, 0.0, VISAVIS)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other at every hop take minutes on a busy computer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_training_in_stages_and_going_on(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    arguments = arguments_of(tmp_path, runs)
    train_stages(*arguments)
    assert load_network(runs / "best.safetensors").config == VISAVIS.config
    assert set(json.loads((runs / "late.json").read_text())) == {f"clip{k}" for k in range(4)}
    folds = [runs / "folds" / f"fold{k}.safetensors" for k in range(2)]
    before = [p.stat().st_mtime_ns for p in folds]
    best = (runs / "best.safetensors").read_bytes()
    (runs / "best.safetensors").unlink()
    train_stages(*arguments)  # only what is missing
    assert [p.stat().st_mtime_ns for p in folds] == before
    assert (runs / "best.safetensors").read_bytes() == best  # whatever stages were there
    assert not list(runs.rglob(CHECKPOINT))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_stage_that_was_cut_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_stages(*arguments_of(tmp_path, whole, recipe, pretrain_steps=6))
    advance, calls = Training.advance, 0

    def broken(training: Training[Any], batch: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        advance(training, batch)

    monkeypatch.setattr(Training, "advance", broken)
    monkeypatch.setattr(loop, "CHECKPOINT_S", -1.0)  # after each step
    with pytest.raises(KeyboardInterrupt):
        train_stages(*arguments_of(tmp_path, cut, recipe, pretrain_steps=6))
    assert (cut / "pretrained" / CHECKPOINT).is_file()
    train_stages(*arguments_of(tmp_path, cut, recipe, pretrain_steps=6))
    for name in ("pretrained", "folds/fold0", "folds/fold1", "best"):
        a, b = (folder / f"{name}.safetensors" for folder in (whole, cut))
        assert a.read_bytes() == b.read_bytes(), name
    assert load_network(cut / "best.safetensors").config == recipe.config
    steps = [row["step"] for row in read_table(cut / "pretrained" / "log.csv")]
    assert steps == [1, 6]
    (cut / "pretrained.safetensors").unlink()
    calls = 0
    with pytest.raises(KeyboardInterrupt):
        train_stages(*arguments_of(tmp_path, cut, recipe, pretrain_steps=6))
    with pytest.raises(TrainingError, match=r"pretraining in 6 steps, not of .* in 7 steps"):
        train_stages(*arguments_of(tmp_path, cut, recipe, pretrain_steps=7))
