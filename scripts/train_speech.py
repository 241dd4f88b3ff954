"""Train `SpeechToMotion`: synthetic voices and hand-made curves first, then people in clips; speakers kept apart.

python -m scripts.speech.labels DATA
python -m scripts.speech.tts runs/speech/tts --minutes 60
python -m scripts.train_speech DATA --curves facegood_arkit.npz

Stages, each with its file under `--runs`, left out when the file is there: `pretrained.safetensors` (phones of
text-to-speech through visemes, and curves), `late.json` (by how much the sound of each clip is late, as this network
hears it, which has seen no clip), `folds/fold0 …` (people in clips, each fold without some of them: what
`scripts.evaluate_speech` judges), `best.safetensors` (everybody: what ships).

Losses (IFaceUV § 3.5): squared error on expression and on pose, and inter-frame continuity on both, which compares
the change from frame to frame. Beyond the paper: the same two and the correlation on the opening of the mouth, which
the coefficients make together, closure of the lips, and whether somebody speaks at all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engines.compile.weights import WeightsHeader, arrays_of, load_weights, save_weights
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.speech.network import (
    ANSWER_HZ,
    CLOSURE,
    FEATURE_SCALE,
    FEATURE_SHIFT,
    INPUT_COUNT,
    KIND,
    OUTPUT_COUNT,
    ROTATION,
    VOICE,
)
from engines.speech.opening import opening_weights, openings_of
from engines.speech.speech_to_motion import heard_closure, usual_closure
from scripts.speech.data import (
    LOOK_AHEAD_HOPS,
    MOUTH,
    USUAL_OPENING,
    Batch,
    Pool,
    Quiet,
    Recording,
    Sequence,
    batch_of,
    pauses_of,
    plain,
    read_clips,
    read_curves,
    scaled_to_usual,
)
from scripts.speech.tts import read_utterances

F32 = NDArray[np.float32]

HIDDEN = 128
ROWS, STEPS, WARM_UP = 24, 150, 15
FRAME_STEPS = 2  # continuity is between frames of 25 fps
# the opening counts most: the eye forgives a wrong smile, not a mouth that is shut on a vowel
EXPRESSION, OPENING, CORRELATION, POSE, CONTINUITY, CLOSED, VOICED = 0.1, 1.0, 0.5, 0.1, 2.0, 0.005, 0.02
MOST_GAIN = 2.5
LICENCE = "research: trained on clips whose licences allow research"
# how late sound is looked for, and what clips usually have
LATEST_S, USUAL_LATE_S, SPREAD_S = 0.4, 0.06, 0.06


class SpeechNet(nn.Module):
    """The network of `engines.speech.network` for training: (B, T, INPUT_COUNT) → (B, T, OUTPUT_COUNT)."""

    def __init__(self, hidden: int = HIDDEN, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(INPUT_COUNT, hidden)
        self.gru = nn.GRU(hidden, hidden, 2, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, OUTPUT_COUNT)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        x = torch.relu(self.first(features * float(FEATURE_SCALE) + float(FEATURE_SHIFT)))
        return self.head(self.dropout(self.gru(x)[0]))


def expression_weights() -> Tensor:
    """(52,): the mouth and jaw count, brows and cheeks a little, eyes not (speech does not say where they look)."""

    def weight(name: str) -> float:
        if name.startswith(("mouth", "jaw")):
            return 1.0
        return 0.0 if name.startswith("eye") else 0.2

    return torch.tensor([weight(n) for n in ARKIT_NAMES])


def correlation(a: Tensor, b: Tensor, known: Tensor) -> Tensor:
    """(B,) Pearson correlation of rows (B, T) where they are known."""
    count = known.sum(1, keepdim=True).clamp(min=1)
    a = (a - (a * known).sum(1, keepdim=True) / count) * known
    b = (b - (b * known).sum(1, keepdim=True) / count) * known
    return (a * b).sum(1) / ((a**2).sum(1) * (b**2).sum(1) + 1e-4).sqrt()


def loss_of(answer: Tensor, batch: Batch, weights: Tensor, opening: Tensor) -> Tensor:
    """The four losses of the paper, and those of the opening, of closure and of voice."""
    answer = answer[:, WARM_UP:]
    target, known, gap = (
        torch.from_numpy(a)[:, WARM_UP:] for a in (batch.targets, batch.known, batch.openings)
    )

    def paper(error: Tensor, weight: Tensor | float) -> Tensor:
        change = error[:, FRAME_STEPS:] - error[:, :-FRAME_STEPS]
        return (error**2 * weight).mean() + CONTINUITY * (change**2 * weight).mean()

    error = (answer - target) * known
    loss = EXPRESSION * paper(error[..., :EXPRESSION_COUNT], weights) + POSE * paper(
        error[..., ROTATION], 1.0
    )
    closed = torch.sigmoid(answer[..., CLOSURE])
    open_known = known[..., ARKIT_INDEX["jawOpen"]]
    made = torch.relu(answer[..., :EXPRESSION_COUNT] @ opening) / USUAL_OPENING
    gap = gap / USUAL_OPENING
    loss = loss + OPENING * paper(((made - gap) * open_known)[..., None], 1.0)
    enough = open_known.sum(1) > ANSWER_HZ
    if enough.any():
        # what is seen is the gap between lips that closure brings together
        seen = correlation(made * (1 - closed), gap, open_known)
        loss = loss + CORRELATION * (1 - seen[enough]).mean()
    closure = F.binary_cross_entropy_with_logits(
        answer[..., CLOSURE], target[..., CLOSURE].clamp(0, 1), reduction="none"
    )
    voice = F.binary_cross_entropy_with_logits(answer[..., VOICE], target[..., VOICE], reduction="none")
    return (
        loss + CLOSED * (closure * known[..., CLOSURE]).mean() + VOICED * (voice * known[..., VOICE]).mean()
    )


def fit(
    net: SpeechNet,
    sources: AnySequence[tuple[float, Pool | Quiet]],
    *,
    steps: int,
    rate: float,
    seed: int,
    name: str,
) -> None:
    """Train `net` for `steps` on chunks of `sources` by their shares."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.03)
    weights, opening = expression_weights(), torch.from_numpy(opening_weights())
    net.train()
    bar = tqdm(range(steps), desc=name, mininterval=10)
    recent = 0.0
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
        batch = batch_of(sources, rng, ROWS, STEPS)
        loss = loss_of(net(torch.from_numpy(batch.features)), batch, weights, opening)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        recent += (float(loss.detach()) - recent) * (0.02 if step else 1.0)
        bar.set_postfix(loss=f"{recent:.4f}", refresh=False)
    net.eval()


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
    """Write the weights as float32 with where they come from in the header."""
    config = {"look_ahead_hops": LOOK_AHEAD_HOPS}
    header = WeightsHeader(KIND.name, KIND.version, config, LICENCE, notes=notes)
    save_weights(path, arrays_of(net, np.float32), header)


def load_net(path: Path, dropout: float) -> SpeechNet:
    """Weights saved before, to go on from."""
    net = SpeechNet(dropout=dropout)
    net.load_state_dict({n: torch.from_numpy(t) for n, t in load_weights(path, KIND)[0].items()})
    return net.eval()


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each stage trains; `folds` groups of people, each left out once; augmented `variants` of each
    recording, and pieces of `quiet` without speech.
    """

    pretrain_steps: int = 1100
    steps: int = 400
    folds: int = 4
    variants: int = 5
    quiet: int = 150


def train(
    synthetic: list[Recording], curves: list[Recording], data: Path, labels: Path, runs: Path, plan: Plan
) -> None:
    """All stages that have no file yet."""
    begun = time.monotonic()
    rng = np.random.default_rng(0)
    as_they_are = read_clips(data, labels)
    rooms = pauses_of([*curves, *as_they_are])
    quiet = (0.12, Quiet(rng, plan.quiet, rooms))
    spoken = (0.25, Pool(scaled_to_usual(synthetic), rng, min(2, plan.variants)))
    drawn = (0.1, Pool(scaled_to_usual(curves), rng, plan.variants))
    print(f"{time.monotonic() - begun:.0f} s: {len(synthetic)} utterances, {len(curves)} curves", flush=True)
    pretrained = runs / "pretrained.safetensors"
    if not pretrained.is_file():
        net = SpeechNet()
        fit(net, [quiet, (0.6, spoken[1]), (0.3, drawn[1])], steps=plan.pretrain_steps, rate=2e-3, seed=0,
            name="pretraining")  # fmt: skip
        save_net(pretrained, net, {"steps": plan.pretrain_steps})
    first = load_net(pretrained, 0.0)
    table = runs / "late.json"
    if not table.is_file():
        found = {clip.name: late_of(first, clip) for clip in as_they_are}
        table.write_text(json.dumps(found, indent=1))
    clips = read_clips(data, labels, json.loads(table.read_text()))
    fold = folds_of({c.subject for c in clips}, plan.folds)
    for left_out in (*range(plan.folds), None):
        path = runs / ("best.safetensors" if left_out is None else f"folds/fold{left_out}.safetensors")
        if path.is_file():
            continue
        taught = [c for c in clips if fold[c.subject] != left_out]
        people = (0.6, Pool(taught, rng, plan.variants))
        net = load_net(pretrained, 0.3)
        fit(net, [quiet, spoken, drawn, people], steps=plan.steps, rate=1e-3, seed=1, name=path.stem)
        centre_closure(net, taught)
        gain = open_as_wide_as_people(net, taught)
        away = sorted(s for s, f in fold.items() if f == left_out)
        notes: dict[str, object] = {
            "steps": plan.pretrain_steps + plan.steps,
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/speech"))
    parser.add_argument("--pretrain-steps", type=int, default=Plan().pretrain_steps)
    parser.add_argument("--steps", type=int, default=Plan().steps)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        read_utterances(arguments.tts),
        read_curves(arguments.curves) if arguments.curves else [],
        arguments.data, arguments.labels, arguments.runs,
        Plan(arguments.pretrain_steps, arguments.steps),
    )  # fmt: skip


if __name__ == "__main__":
    main()
