"""Train `SpeechToMotion`: synthetic voices and hand-made curves first, then people in clips; speakers kept apart.

python -m scripts.speech.labels DATA
python -m scripts.speech.tts runs/speech/tts --minutes 60
python -m scripts.train_speech DATA --curves facegood_arkit.npz
python -m scripts.train_speech DATA --curves facegood_arkit.npz --recipe ifaceuv --runs runs/speech-ifaceuv

Recipes: `visavis`, what ships, and `ifaceuv`, the LSTM on MFCC of IFaceUV § 3.5 with its four losses; each in a folder
of its own (`scripts.speech.recipe`, `scripts.speech.losses`).

Stages, each with its file under `--runs`, left out when the file is there: `pretrained.safetensors` (phones of
text-to-speech through visemes, and curves), `late.json` (by how much the sound of each clip is late, as this network
hears it, which has seen no clip), `folds/fold0 …` (people in clips, each fold without some of them: what
`scripts.evaluate_speech` judges), `best.safetensors` (everybody: what ships). Beside each lies a folder of its
name with log and curves, and with the checkpoint of a stage that was cut off: the next run goes on from it. To compare
recipes, copy `late.json` of the first one into the other's folder, so that both learn from the same shifts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence as AnySequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.errors import VisavisError
from engines.files import write_whole
from engines.motion import EXPRESSION_COUNT
from engines.speech.network import ANSWER_HZ, CLOSURE, KIND, VOICE, SpeechConfig
from engines.speech.opening import opening_weights, openings_of
from engines.speech.speech_to_motion import heard_closure, usual_closure
from scripts.speech.data import (
    MOUTH,
    Pool,
    Quiet,
    Recording,
    Sequence,
    pauses_of,
    plain,
    read_clips,
    read_curves,
    scaled_to_usual,
)
from scripts.speech.recipe import RECIPES, VISAVIS, Recipe
from scripts.speech.task import ROWS, SpeechNet, SpeechTask
from scripts.speech.tts import read_utterances
from scripts.training.errors import TrainingError
from scripts.training.loop import CHECKPOINT, train
from scripts.training.state import Settings

F32 = NDArray[np.float32]

PRETRAIN_RATE, RATE = 2e-3, 1e-3
MOST_GAIN = 2.5
LICENCE = "research: trained on clips whose licences allow research"
# how late sound is looked for, and what clips usually have
LATEST_S, USUAL_LATE_S, SPREAD_S = 0.4, 0.06, 0.06


def answers_of(net: SpeechNet, sequence: Sequence) -> F32:
    """(N, OUTPUT_COUNT) answers over a whole recording."""
    with torch.no_grad():
        return net(torch.from_numpy(sequence.features)[None])[0].numpy()


def shifted_correlations(label: F32, heard: F32, known: NDArray[np.bool_], furthest: int) -> F32:
    """(2·furthest + 1,) correlation of `label` (N,) with `heard` that many steps later, where known."""
    out = np.zeros(2 * furthest + 1, np.float32)
    for k in range(-furthest, furthest + 1):
        a = slice(max(0, -k), len(label) - max(0, k))
        b = slice(max(0, k), len(label) - max(0, -k))
        here = known[a]
        x, y = label[a][here], heard[b][here]
        if len(x) > ANSWER_HZ / 2 and x.std() > 1e-6 and y.std() > 1e-6:
            out[k + furthest] = np.corrcoef(x, y)[0, 1]
    return out


def shown_openings(answers: F32) -> F32:
    """(N,) openings that the product makes of answers (N, OUTPUT_COUNT)."""
    usual, closed = 0.0, np.zeros(len(answers))
    for k, answer in enumerate(answers):
        logit = float(answer[CLOSURE])
        usual = usual_closure(usual, logit, float(answer[VOICE] > 0))
        closed[k] = heard_closure(logit, usual)
    return openings_of(answers[:, :EXPRESSION_COUNT], closed)


def centre_closure(net: SpeechNet, clips: AnySequence[Recording]) -> None:
    """Shift the logit of closed lips so that its mean is 0 where people in `clips` speak: where a stream begins.

    The correlation that training asks for takes closure as a matter of degree: its level differs from one training
    to the next.
    """
    heard: list[F32] = []
    for clip in clips:
        s = plain(clip)
        heard.append(answers_of(net, s)[s.known[:, 0] > 0.99, CLOSURE])
    with torch.no_grad():
        net.head.bias[CLOSURE] -= float(np.concatenate(heard).mean())


def open_as_wide_as_people(net: SpeechNet, clips: AnySequence[Recording]) -> float:
    """Scale what `net` says of the mouth until it opens as wide as the people in `clips`; the factor.

    The answer of least squared error to what cannot be heard is the mean: it moves too little.
    """
    tracked: list[F32] = []
    heard: list[F32] = []
    for clip in clips:
        s = plain(clip)
        known = s.known[:, 0] > 0.99
        tracked.append(s.openings[known])
        heard.append(shown_openings(answers_of(net, s))[known])
    wide, shown = (float(np.percentile(np.concatenate(x), 95)) for x in (tracked, heard))
    gain = float(np.clip(wide / max(shown, 1e-3), 1 / MOST_GAIN, MOST_GAIN))
    with torch.no_grad():
        net.head.weight[MOUTH] *= gain
        net.head.bias[MOUTH] *= gain
    return gain


def late_of(net: SpeechNet, clip: Recording) -> float:
    """Seconds by which the sound of a clip comes after its picture, as `net` hears it.

    The likeliest shift: that of the highest correlation, three independent moments a second, and what is usual.
    """
    s = plain(clip)
    answers = answers_of(net, s)
    heard = np.maximum(answers[:, :EXPRESSION_COUNT] @ opening_weights(), 0).astype(np.float32)
    known = s.known[:, 0] > 0.99
    furthest = round(LATEST_S * ANSWER_HZ)
    r = np.clip(shifted_correlations(s.openings, heard, known, furthest), 0, 0.95)
    late = np.arange(-furthest, furthest + 1) / ANSWER_HZ
    likely = (
        -0.5 * 3 * known.sum() / ANSWER_HZ * np.log(1 - r**2) - 0.5 * ((late - USUAL_LATE_S) / SPREAD_S) ** 2
    )
    return float(late[int(likely.argmax())])


def folds_of(subjects: set[str], count: int) -> dict[str, int]:
    """Which fold leaves out which subject."""
    order = np.random.default_rng(1).permutation(len(subjects))
    names = sorted(subjects)
    return {names[k]: place % count for place, k in enumerate(order)}


def save_net(path: Path, net: SpeechNet, notes: dict[str, object]) -> None:
    """Write the weights as float32, with how they came about in the header; its checkpoint is of no more use."""
    notes = {"recipe": net.recipe.name, **notes}
    header = WeightsHeader(KIND.name, KIND.version, asdict(net.recipe.config), LICENCE, notes=notes)
    save_weights(path, arrays_of(net, np.float32), header)
    (folder_of(path) / CHECKPOINT).unlink(missing_ok=True)


def load_net(path: Path, dropout: float, recipe: Recipe) -> SpeechNet:
    """Weights saved before, to go on from. Raises WeightsError, and TrainingError for those of another recipe."""
    tensors, header = load_weights(path, KIND)
    config = SpeechConfig(**header.config)
    if config != recipe.config:
        raise TrainingError(
            f"{path} is of another recipe ({config}) than --recipe {recipe.name} ({recipe.config}); give another "
            "--runs folder"
        )
    net = SpeechNet(dropout=dropout, recipe=recipe)
    net.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    return net.eval()


def fit(path: Path, task: SpeechTask, settings: Settings) -> SpeechNet:
    """The network of one stage, trained in the folder beside its weights `path`, going on where it was cut off."""
    checkpoint = folder_of(path) / CHECKPOINT
    resume = checkpoint if checkpoint.is_file() else None
    # not the average: the rate has fallen to nothing, so the network itself has come to rest
    net = train(task, settings, folder_of(path), resume=resume).network.eval()
    assert isinstance(net, SpeechNet)
    return net


def folder_of(path: Path) -> Path:
    """Where the stage of the weights `path` keeps its log and checkpoint."""
    return path.with_suffix("")


@dataclass(frozen=True, slots=True)
class Stages:
    """How long each stage trains; `folds` groups of people, each left out once; augmented `variants` of each
    recording, and pieces of `quiet` without speech.
    """

    pretrain_steps: int = 1100
    steps: int = 400
    folds: int = 4
    variants: int = 5
    quiet: int = 150


def train_stages(
    synthetic: list[Recording],
    curves: list[Recording],
    data: Path,
    labels: Path,
    runs: Path,
    stages: Stages,
    recipe: Recipe,
) -> None:
    """All stages that have no file yet. Raises TrainingError."""
    begun = time.monotonic()
    rng = np.random.default_rng(0)
    as_they_are = read_clips(data, labels)
    rooms = pauses_of([*curves, *as_they_are])
    quiet = (0.12, Quiet(rng, stages.quiet, rooms))
    spoken = (0.25, Pool(scaled_to_usual(synthetic), rng, min(2, stages.variants)))
    drawn = (0.1, Pool(scaled_to_usual(curves), rng, stages.variants))
    print(f"{time.monotonic() - begun:.0f} s: {len(synthetic)} utterances, {len(curves)} curves", flush=True)
    pretrained = runs / "pretrained.safetensors"
    if not pretrained.is_file():
        settings = Settings(batch=ROWS, rate=PRETRAIN_RATE, seed=0, steps=stages.pretrain_steps)
        sources = [quiet, (0.6, spoken[1]), (0.3, drawn[1])]
        task = SpeechTask("pretraining", recipe, sources, settings, lambda: SpeechNet(recipe=recipe))
        net = fit(pretrained, task, settings)
        save_net(pretrained, net, {"steps": stages.pretrain_steps})
    first = load_net(pretrained, 0.0, recipe)
    table = runs / "late.json"
    if not table.is_file():
        found = {clip.name: late_of(first, clip) for clip in as_they_are}
        write_whole(table, json.dumps(found, indent=1))
    clips = read_clips(data, labels, json.loads(table.read_text()))
    fold = folds_of({c.subject for c in clips}, stages.folds)
    settings = Settings(batch=ROWS, rate=RATE, seed=1, steps=stages.steps)
    for number in range(stages.folds + 1):  # the last one leaves nobody out
        everybody = number == stages.folds
        path = runs / ("best.safetensors" if everybody else f"folds/fold{number}.safetensors")
        if path.is_file():
            continue
        taught = [c for c in clips if fold[c.subject] != number]
        # of each stage its own chance: the same whichever stages were there already
        people = (0.6, Pool(taught, np.random.default_rng([1, number]), stages.variants))
        task = SpeechTask(
            path.stem, recipe, [quiet, spoken, drawn, people], settings,
            lambda: load_net(pretrained, 0.3, recipe),
        )  # fmt: skip
        net = fit(path, task, settings)
        centre_closure(net, taught)
        gain = open_as_wide_as_people(net, taught)
        away = sorted(s for s, f in fold.items() if f == number)
        notes: dict[str, object] = {
            "steps": stages.pretrain_steps + stages.steps,
            "left_out": away,
            "gain": round(gain, 3),
        }
        save_net(path, net, notes)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with audio16k/, as for scripts.speech.labels")
    parser.add_argument("--labels", type=Path, default=Path("runs/speech/clips"))
    parser.add_argument("--tts", type=Path, default=Path("runs/speech/tts"))
    parser.add_argument("--curves", type=Path, help="facegood_arkit.npz beside its .flac files")
    parser.add_argument("--recipe", choices=tuple(RECIPES), default=VISAVIS.name)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/speech"))
    parser.add_argument("--pretrain-steps", type=int, default=Stages().pretrain_steps)
    parser.add_argument("--steps", type=int, default=Stages().steps)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        train_stages(
            read_utterances(arguments.tts),
            read_curves(arguments.curves) if arguments.curves else [],
            arguments.data, arguments.labels, arguments.runs,
            Stages(arguments.pretrain_steps, arguments.steps), RECIPES[arguments.recipe],
        )  # fmt: skip
    except VisavisError as error:
        print(f"train_speech: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
