"""Judge `SpeechToMotion` on people it has not heard: table.md, table.json and curves.png.

python -m scripts.evaluate_speech DATA -o runs/speech/evaluation

Every clip is judged by the fold of `scripts.train_speech` that was trained without its speaker, beside the loudness
envelope. The sound of a clip is shifted by what the network that has seen no clip found (`late.json`), for both alike.
Lips are judged on English speech aligned by force, and on synthetic voices whose phones are known exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from engines.compile.weights import load_weights
from engines.speech.features import RATE_HZ
from engines.speech.network import ANSWER_HZ, KIND, load_network
from engines.speech.speech_to_motion import SpeechToMotion
from scripts.evaluation.statistics import Estimate, compare
from scripts.speech.alignment import kept_alignment
from scripts.speech.data import (
    USUAL_OPENING,
    Recording,
    band_of,
    coloured_noise,
    music,
    read_clips,
    read_sound,
)
from scripts.speech.evaluation import (
    FPS,
    LIPS_MEET_BELOW,
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
from scripts.speech.tts import read_phones

F32 = NDArray[np.float32]

ENVELOPES_S = (0.0, 0.03, 0.06, 0.1, 0.15)  # smoothing of the baseline: the best one over all clips is judged
LONG_S = 4.0
CHANCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Judged:
    """One clip: how long somebody speaks in it, the network and the baseline at each smoothing.

    `moved_lips`: with the lips' curve half a second late, which is what chance gives. `tracked_lips`: how the person's
    own lips fare by the same measure, which is what an alignment can tell.
    """

    name: str
    subject: str
    seconds: float
    ours: Opening
    envelopes: tuple[Opening, ...]
    lips: Lips | None
    moved_lips: Lips | None
    tracked_lips: Lips | None


def left_out(path: Path) -> set[str]:
    """Subjects that the weights were trained without."""
    return set(load_weights(path, KIND)[1].notes["left_out"])


def hear_clips(clips: Sequence[Recording], folds: Path) -> dict[str, Curve]:
    """What the fold without its speaker hears in each clip, by name; clips of people in all folds are left out."""
    curves: dict[str, Curve] = {}
    for path in sorted(folds.glob("fold*.safetensors")):
        speech, unheard = SpeechToMotion(load_network(path)), left_out(path)
        own = [c for c in clips if c.subject in unheard]
        curves.update(
            {c.name: heard_curve(speech, c.sound) for c in tqdm(own, desc=path.stem, mininterval=5)}
        )
    return curves


def judge_clips(clips: Sequence[Recording], heard: Mapping[str, Curve], alignments: Path) -> list[Judged]:
    """Every clip that was heard, as `hear_clips` heard it."""
    out: list[Judged] = []
    for clip in clips:
        curve = heard.get(clip.name)
        ours = opening_scores(curve, clip) if curve is not None else None
        if curve is None or ours is None:
            continue
        theirs = [opening_scores(envelope_curve(clip.sound, s), clip) for s in ENVELOPES_S]
        phones = kept_alignment(alignments / f"{clip.name}.json", clip.sound)
        tracked = Curve((np.arange(len(clip.openings)) + 1) / 100, clip.openings.astype(np.float64))
        lips = [
            closure_scores(c, phones) if phones else None for c in (curve, curve.moved(CHANCE_S), tracked)
        ]
        known_s = float(clip.known[:, 0].sum()) / 100
        out.append(Judged(clip.name, clip.subject, known_s, ours, tuple(t for t in theirs if t), *lips))
    return out


def quiet_openings(speech: SpeechToMotion) -> dict[str, float]:
    """The 95th percentile of the opening, of 1 for an open vowel, on what is no speech."""
    rng = np.random.default_rng(7)
    count = 20 * RATE_HZ
    hum = np.sin(2 * np.pi * 50 * np.arange(count) / RATE_HZ)
    sounds = {
        "digital silence": np.zeros(count),
        "room at -60 dBFS": coloured_noise(rng, count) * 1e-3,
        "noise at -20 dBFS": coloured_noise(rng, count) * 0.1,
        "mains hum": hum * 0.05,
        "music": music(rng, count) * 0.1,
    }
    return {
        name: float(np.percentile(heard_curve(speech, s.astype(np.float32)).openings[25:], 95))
        / USUAL_OPENING
        for name, s in sounds.items()
    }


def changed_by(speech: SpeechToMotion, sound: F32) -> dict[str, float]:
    """Correlation of the opening with that of the sound as it is, for other microphones."""
    as_is = heard_curve(speech, sound)
    others = {
        "30 dB quieter": sound * 10**-1.5,
        "12 dB louder, clipped": np.clip(sound * 4, -1, 1),
        "telephone, 300 to 3400 Hz": band_of(sound, 300, 3400),
    }
    late = slice(200, None)  # after four seconds the level is known
    return {
        name: float(
            np.corrcoef(as_is.openings[late], heard_curve(speech, s.astype(np.float32)).openings[late])[0, 1]
        )
        for name, s in others.items()
    }


def milliseconds_per_frame(speech: SpeechToMotion, sound: F32) -> float:
    """Median time to hear the sound of one video frame, features included."""
    size = round(RATE_HZ / FPS)
    state, took = None, list[float]()
    for at in range(0, len(sound) - size, size):
        begun = time.perf_counter()
        _, state = speech.hear(sound[at : at + size], state)
        took.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(took))


def lips_row(name: str, lips: Sequence[Lips], subjects: Sequence[str]) -> dict[str, object]:
    """Recall and precision with intervals."""
    return {
        "on": name,
        "recall": asdict(share([x.shown for x in lips], [x.said for x in lips], subjects)),
        "precision": asdict(share([x.right for x in lips], [x.met for x in lips], subjects)),
        "shut_share": sum(x.shut_s for x in lips) / max(1e-9, sum(x.speech_s for x in lips)),
    }


def languages(speech: SpeechToMotion, folder: Path, to: Path) -> list[dict[str, object]]:
    """Every recording of `folder`: how the mouth moves; a sheet of curves."""
    files = sorted(folder.glob("*.flac"))
    rows: list[dict[str, object]] = []
    figure, axes = plt.subplots(max(1, len(files)), 1, figsize=(14, 1.1 * max(1, len(files))), squeeze=False)
    for path, axis in zip(files, axes[:, 0], strict=False):
        sound = read_sound(path)
        heard, envelope = heard_curve(speech, sound), envelope_curve(sound, 0.03)
        speaking = envelope.at(heard.times_s) > 1.0
        opening = heard.openings[speaking] / USUAL_OPENING if speaking.any() else np.zeros(1)
        met = np.diff((heard.openings < LIPS_MEET_BELOW).astype(int)) > 0
        spoken_s = max(1e-3, speaking.sum() / ANSWER_HZ)
        rows.append(
            {"file": path.stem, "seconds": len(sound) / RATE_HZ, "median": float(np.median(opening)),
             "p95": float(np.percentile(opening, 95)), "closings_hz": float(met.sum() / spoken_s)}
        )  # fmt: skip
        shown = heard.times_s < 10
        axis.plot(heard.times_s[shown], heard.openings[shown] / USUAL_OPENING, "r", linewidth=0.8)
        axis.fill_between(heard.times_s[shown], -0.1 * envelope.at(heard.times_s[shown]), alpha=0.3)
        axis.set(ylabel=path.stem[-14:], xlim=(0, 10), ylim=(-1, 1.6), xticks=[])
        axis.yaxis.label.set(rotation=0, fontsize=7, ha="right")
    figure.tight_layout(pad=0.2)
    figure.savefig(to, dpi=70)
    plt.close(figure)
    return rows


def plot_clips(
    clips: Sequence[Recording], judged: Sequence[Judged], heard: Mapping[str, Curve], to: Path
) -> None:
    """Heard and tracked opening of the median clip and of every eighth other, best to worst."""
    by_name = {c.name: c for c in clips}
    ranked = sorted(judged, key=lambda j: -j.ours.r)[::8]
    figure, axes = plt.subplots(len(ranked), 1, figsize=(14, 1.5 * len(ranked)), squeeze=False)
    for j, axis in zip(ranked, axes[:, 0], strict=True):
        clip = by_name[j.name]
        curve = heard[j.name]
        times = (np.arange(len(clip.openings)) + 1) / 100
        axis.plot(times, np.where(clip.known[:, 0] > 0, clip.openings, np.nan), "k", label="tracked")
        axis.plot(curve.times_s, curve.openings, "r", label="heard")
        axis.set(xlim=(0, min(10, times[-1])), ylabel=f"{j.name}\nr {j.ours.r:.2f}")
    axes[0, 0].legend(loc="upper right")
    figure.tight_layout(pad=0.3)
    figure.savefig(to, dpi=70)
    plt.close(figure)


def opening_rows(judged: Sequence[Judged], shifted: str = "") -> list[dict[str, object]]:
    """Network, baseline and their difference, over all clips and over those that are long enough to tell.

    `shifted`: what the clips' sound was shifted by, for the title.
    """
    rows: list[dict[str, object]] = []
    for title, some in (
        (f"all clips{shifted}", list(judged)),
        (f"{LONG_S:.0f} s and more{shifted}", [j for j in judged if j.seconds >= LONG_S]),
    ):
        people = [j.subject for j in some]
        best = int(np.argmax([np.median([j.envelopes[k].r for j in some]) for k in range(len(ENVELOPES_S))]))
        theirs = [j.envelopes[best] for j in some]

        def within(found: Sequence[Opening], people: Sequence[str] = people) -> dict[str, object]:
            inside = [int(abs(o.lag_frames) <= 1) for o in found]
            return asdict(share(inside, [1] * len(found), people))

        for name, found in (
            ("network", [j.ours for j in some]),
            (f"envelope, {1e3 * ENVELOPES_S[best]:.0f} ms", theirs),
        ):
            rows.append(
                {"clips": title, "of": name, "r": asdict(median((o.r for o in found), people)),
                 "best_r": asdict(median((o.best_r for o in found), people)),
                 "lag_frames": asdict(median((o.lag_frames for o in found), people)), "within_a_frame": within(found)}
            )  # fmt: skip
        differ = compare(
            np.array([j.ours.r for j in some]), np.array([o.r for o in theirs]), people, "difference"
        )
        off = compare(
            np.array([abs(j.ours.lag_frames) for j in some]), np.array([abs(o.lag_frames) for o in theirs]), people,
            "difference",
        )  # fmt: skip
        rows.append(
            {
                "clips": title,
                "of": "network - envelope (means)",
                "r": asdict(differ),
                "off_frames": asdict(off),
            }
        )
    return rows


def said(cell: object) -> str:
    """A table's cell."""
    if isinstance(cell, dict):
        e = Estimate(**cell)
        return f"{e.value:.2f} ({e.low:.2f} … {e.high:.2f}; n {e.count})"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def table_of(rows: Sequence[dict[str, object]]) -> str:
    """Rows as Markdown."""
    names = list(dict.fromkeys(k for r in rows for k in r))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(said(r.get(n, "")) for n in names) + " |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with audio16k/ and speech16k/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/speech/evaluation"))
    parser.add_argument("--runs", type=Path, default=Path("runs/speech"), help="of scripts.train_speech")
    parser.add_argument("--labels", type=Path, default=Path("runs/speech/clips"))
    parser.add_argument("--tts", type=Path, help="utterances with other sentences than those of the training")
    arguments = parser.parse_args()
    out, runs = arguments.out, arguments.runs
    out.mkdir(parents=True, exist_ok=True)
    clips = read_clips(arguments.data, arguments.labels, json.loads((runs / "late.json").read_text()))
    heard = hear_clips(clips, runs / "folds")
    judged = judge_clips(clips, heard, out / "alignments")
    openings = opening_rows(judged)
    raw = judge_clips(read_clips(arguments.data, arguments.labels), heard, out / "alignments")
    openings += opening_rows(raw, ", sound not shifted")
    speech = SpeechToMotion()
    with_lips = [(j.lips, j.subject) for j in judged if j.lips is not None]
    people = [s for _, s in with_lips]
    lips = [
        lips_row("clips of unheard speakers", [x for x, _ in with_lips], people),
        lips_row(
            "the same, half a second late: chance", [j.moved_lips for j in judged if j.moved_lips], people
        ),
        lips_row(
            "the people's own lips, tracked", [j.tracked_lips for j in judged if j.tracked_lips], people
        ),
    ]
    if arguments.tts:
        synthetic: list[Lips] = []
        moved: list[Lips] = []
        names: list[str] = []
        for path in tqdm(sorted(arguments.tts.glob("*.npz")), desc="synthetic", mininterval=5):
            curve, phones = heard_curve(speech, read_sound(path.with_suffix(".flac"))), read_phones(path)
            synthetic.append(closure_scores(curve, phones))
            moved.append(closure_scores(curve.moved(CHANCE_S), phones))
            names.append(path.stem)
        lips.append(lips_row("synthetic voices, other sentences", synthetic, names))
        lips.append(lips_row("the same, half a second late: chance", moved, names))
    sample = max(clips, key=lambda c: len(c.sound)).sound
    tables: dict[str, list[dict[str, object]]] = {
        "Opening of the mouth, people not heard in training": openings,
        "Lips on p, b and m": lips,
        "No speech: 95th percentile of the opening, of an open vowel": [dict(quiet_openings(speech))],
        "Another microphone: correlation with the opening as it was": [dict(changed_by(speech, sample))],
        "Cost": [
            {"ms per video frame": milliseconds_per_frame(speech, sample), "latency_ms": speech.latency_ms}
        ],
        "Languages": languages(speech, arguments.data / "speech16k", out / "languages.png"),
    }
    plot_clips(clips, judged, heard, out / "curves.png")
    (out / "table.json").write_text(json.dumps({**tables, "clips": [asdict(j) for j in judged]}, indent=1))
    text = "\n\n".join(f"## {title}\n\n{table_of(rows)}" for title, rows in tables.items())
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
