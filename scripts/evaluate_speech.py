"""Judge `SpeechToMotion` on people it has not heard: table.md, table.json and curves.png.

python -m scripts.evaluate_speech DATA -o runs/speech/evaluation
python -m scripts.evaluate_speech DATA --runs runs/speech runs/speech-ifaceuv     # two recipes, in one table

Every clip is judged by the fold of `scripts.train_speech` that was trained without its speaker, beside the loudness
envelope. The sound of a clip is shifted by what the network that has seen no clip found (`late.json` of the first of
`--runs`), for all alike. What is not about clips is judged of each run's `best.safetensors`.
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
COLOURS = ("r", "b", "g")


@dataclass(frozen=True, slots=True)
class Judged:
    """One clip by one network: how long somebody speaks in it, the network and the baseline at each smoothing.

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


def name_of(run: Path) -> str:
    """What tables call the networks of a folder of `scripts.train_speech`. Raises WeightsError."""
    return f"{run.name}: {load_network(run / 'best.safetensors').config}"


def heard_by_all(clips: Sequence[Recording], heard: Mapping[str, Mapping[str, Curve]]) -> list[Recording]:
    """Clips that every network has a fold for that has not heard their speaker."""
    return [c for c in clips if all(c.name in curves for curves in heard.values())]


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


def clip_lips(judged: Mapping[str, Sequence[Judged]]) -> list[dict[str, object]]:
    """Each network on the clips whose phones are known, chance, and once the people's own lips."""
    rows: list[dict[str, object]] = []
    for name, js in judged.items():
        some = [j for j in js if j.lips is not None]
        people = [j.subject for j in some]
        rows.append(lips_row(f"{name}; clips of unheard speakers", [j.lips for j in some if j.lips], people))
        moved = [j.moved_lips for j in some if j.moved_lips]
        rows.append(lips_row(f"{name}; the same, half a second late: chance", moved, people))
    some = [j for j in next(iter(judged.values())) if j.tracked_lips is not None]
    own = [j.tracked_lips for j in some if j.tracked_lips]
    return [*rows, lips_row("the people's own lips, tracked", own, [j.subject for j in some])]


def synthetic_lips(networks: Mapping[str, SpeechToMotion], paths: Sequence[Path]) -> list[dict[str, object]]:
    """Each network on utterances of `scripts.speech.tts`, and chance."""
    rows: list[dict[str, object]] = []
    names = [p.stem for p in paths]
    for name, speech in networks.items():
        lips, moved = list[Lips](), list[Lips]()
        for path in tqdm(paths, desc="synthetic", mininterval=5):
            curve, phones = heard_curve(speech, read_sound(path.with_suffix(".flac"))), read_phones(path)
            lips.append(closure_scores(curve, phones))
            moved.append(closure_scores(curve.moved(CHANCE_S), phones))
        rows.append(lips_row(f"{name}; synthetic voices, other sentences", lips, names))
        rows.append(lips_row(f"{name}; the same, half a second late: chance", moved, names))
    return rows


def languages(networks: Mapping[str, SpeechToMotion], folder: Path, to: Path) -> list[dict[str, object]]:
    """Every recording of `folder`: how each network moves the mouth; a sheet of curves."""
    files = sorted(folder.glob("*.flac"))
    rows: list[dict[str, object]] = []
    figure, axes = plt.subplots(max(1, len(files)), 1, figsize=(14, 1.1 * max(1, len(files))), squeeze=False)
    for path, axis in zip(files, axes[:, 0], strict=False):
        sound = read_sound(path)
        envelope = envelope_curve(sound, 0.03)
        for (name, speech), colour in zip(networks.items(), COLOURS, strict=False):
            heard = heard_curve(speech, sound)
            speaking = envelope.at(heard.times_s) > 1.0
            opening = heard.openings[speaking] / USUAL_OPENING if speaking.any() else np.zeros(1)
            met = np.diff((heard.openings < LIPS_MEET_BELOW).astype(int)) > 0
            spoken_s = max(1e-3, speaking.sum() / ANSWER_HZ)
            rows.append(
                {"file": path.stem, "of": name, "seconds": len(sound) / RATE_HZ, "median": float(np.median(opening)),
                 "p95": float(np.percentile(opening, 95)), "closings_hz": float(met.sum() / spoken_s)}
            )  # fmt: skip
            shown = heard.times_s < 10
            axis.plot(heard.times_s[shown], heard.openings[shown] / USUAL_OPENING, colour, linewidth=0.8)
        times = np.arange(0, min(10, len(sound) / RATE_HZ), 1 / ANSWER_HZ)
        axis.fill_between(times, -0.1 * envelope.at(times), alpha=0.3)
        axis.set(ylabel=path.stem[-14:], xlim=(0, 10), ylim=(-1, 1.6), xticks=[])
        axis.yaxis.label.set(rotation=0, fontsize=7, ha="right")
    figure.tight_layout(pad=0.2)
    figure.savefig(to, dpi=70)
    plt.close(figure)
    return rows


def plot_clips(
    clips: Sequence[Recording],
    judged: Sequence[Judged],
    heard: Mapping[str, Mapping[str, Curve]],
    to: Path,
) -> None:
    """Heard and tracked opening of the median clip and of every eighth other, best to worst as `judged` has them."""
    by_name = {c.name: c for c in clips}
    ranked = sorted(judged, key=lambda j: -j.ours.r)[::8]
    figure, axes = plt.subplots(len(ranked), 1, figsize=(14, 1.5 * len(ranked)), squeeze=False)
    for j, axis in zip(ranked, axes[:, 0], strict=True):
        clip = by_name[j.name]
        times = (np.arange(len(clip.openings)) + 1) / 100
        axis.plot(times, np.where(clip.known[:, 0] > 0, clip.openings, np.nan), "k", label="tracked")
        for (name, curves), colour in zip(heard.items(), COLOURS, strict=False):
            axis.plot(curves[j.name].times_s, curves[j.name].openings, colour, label=name)
        axis.set(xlim=(0, min(10, times[-1])), ylabel=f"{j.name}\nr {j.ours.r:.2f}")
    axes[0, 0].legend(loc="upper right")
    figure.tight_layout(pad=0.3)
    figure.savefig(to, dpi=70)
    plt.close(figure)


def opening_rows(judged: Mapping[str, Sequence[Judged]], shifted: str = "") -> list[dict[str, object]]:
    """Networks, baseline and their differences, over all clips and over those that are long enough to tell.

    `judged`: by the name of the network, the same clips of each in the same order; the first is compared with each
    other. `shifted`: what the clips' sound was shifted by, for the title.
    """
    rows: list[dict[str, object]] = []
    first, *others = judged
    for title, least_s in ((f"all clips{shifted}", 0.0), (f"{LONG_S:.0f} s and more{shifted}", LONG_S)):
        of = {n: [j for j in js if j.seconds >= least_s] for n, js in judged.items()}
        some = of[first]
        people = [j.subject for j in some]
        best = int(np.argmax([np.median([j.envelopes[k].r for j in some]) for k in range(len(ENVELOPES_S))]))
        envelope = f"envelope, {1e3 * ENVELOPES_S[best]:.0f} ms"
        found = {n: [j.ours for j in js] for n, js in of.items()}
        found[envelope] = [j.envelopes[best] for j in some]
        for name, openings in found.items():
            inside = [int(abs(o.lag_frames) <= 1) for o in openings]
            rows.append(
                {"clips": title, "of": name, "r": asdict(median((o.r for o in openings), people)),
                 "best_r": asdict(median((o.best_r for o in openings), people)),
                 "lag_frames": asdict(median((o.lag_frames for o in openings), people)),
                 "within_a_frame": asdict(share(inside, [1] * len(inside), people))}
            )  # fmt: skip
        r = {n: np.array([o.r for o in openings]) for n, openings in found.items()}
        off = {n: np.array([abs(o.lag_frames) for o in openings]) for n, openings in found.items()}
        for one, other in [(n, envelope) for n in judged] + [(n, first) for n in others]:
            differ = {
                "r": asdict(compare(r[one], r[other], people, "difference")),
                "off_frames": asdict(compare(off[one], off[other], people, "difference")),
            }
            rows.append({"clips": title, "of": f"{one} - {other} (means)", **differ})
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
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[Path("runs/speech")],
        help="of scripts.train_speech; at most three",
    )
    parser.add_argument("--labels", type=Path, default=Path("runs/speech/clips"))
    parser.add_argument("--tts", type=Path, help="utterances with other sentences than those of the training")
    arguments = parser.parse_args()
    out, runs = arguments.out, {name_of(run): run for run in arguments.runs}
    if not len(runs) == len(arguments.runs) <= len(COLOURS):
        parser.error(f"--runs takes up to {len(COLOURS)} folders of different names")
    out.mkdir(parents=True, exist_ok=True)
    late = json.loads((arguments.runs[0] / "late.json").read_text())
    clips = read_clips(arguments.data, arguments.labels, late)
    heard = {name: hear_clips(clips, run / "folds") for name, run in runs.items()}
    clips = heard_by_all(clips, heard)
    judged = {name: judge_clips(clips, curves, out / "alignments") for name, curves in heard.items()}
    openings = opening_rows(judged)
    raw = heard_by_all(read_clips(arguments.data, arguments.labels), heard)
    openings += opening_rows(
        {name: judge_clips(raw, curves, out / "alignments") for name, curves in heard.items()},
        ", sound not shifted",
    )
    networks = {name: SpeechToMotion(load_network(run / "best.safetensors")) for name, run in runs.items()}
    lips = clip_lips(judged)
    if arguments.tts:
        lips += synthetic_lips(networks, sorted(arguments.tts.glob("*.npz")))
    sample = max(clips, key=lambda c: len(c.sound)).sound
    tables: dict[str, list[dict[str, object]]] = {
        "Opening of the mouth, people not heard in training": openings,
        "Lips on p, b and m": lips,
        "No speech: 95th percentile of the opening, of an open vowel": [
            {"of": name, **quiet_openings(speech)} for name, speech in networks.items()
        ],
        "Another microphone: correlation with the opening as it was": [
            {"of": name, **changed_by(speech, sample)} for name, speech in networks.items()
        ],
        "Cost": [
            {"of": name, "ms per video frame": milliseconds_per_frame(speech, sample), "latency_ms": speech.latency_ms}
            for name, speech in networks.items()
        ],
        "Languages": languages(networks, arguments.data / "speech16k", out / "languages.png"),
    }  # fmt: skip
    plot_clips(clips, next(iter(judged.values())), heard, out / "curves.png")
    told = {name: [asdict(j) for j in js] for name, js in judged.items()}
    (out / "table.json").write_text(json.dumps({**tables, "clips": told}, indent=1))
    text = "\n\n".join(f"## {title}\n\n{table_of(rows)}" for title, rows in tables.items())
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
