"""Train `SpeechToMotion` on labelled clips and curves; speakers kept apart by name.

python -m scripts.speech.labels DATA
python -m scripts.train_speech DATA [--curves facegood_arkit.npz] --minutes 20

Losses (IFaceUV § 3.5): squared error on expression and on pose, and inter-frame continuity on both, which compares
the change from frame to frame. Beyond the paper: the closure of the lips and whether somebody speaks at all.
Goes on from `last.pt` in `--runs` where there is one; the best weights of held-out speakers lie beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.speech.features import FRAME_HZ, MEL_COUNT, log_mel
from engines.speech.network import CLOSURE, FORMAT, OUTPUT_COUNT, ROTATION, VERSION, VOICE
from scripts.speech.data import LOOK_AHEAD_HOPS, Pool, Recording, read_all

F32 = NDArray[np.float32]

HIDDEN = 128
ROWS, HOPS, WARM_UP_HOPS = 32, 400, 60
FRAME_HOPS = 4  # continuity is between frames of 25 fps
JUDGE_STEPS = 150
RENEW = 4
WEIGHT_POSE, WEIGHT_CONTINUITY, WEIGHT_CLOSURE, WEIGHT_VOICE = 2.0, 2.0, 0.02, 0.01


class SpeechNet(nn.Module):
    """The network of `engines.speech.network` for training: (B, T, MEL_COUNT) → (B, T, OUTPUT_COUNT)."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.gru = nn.GRU(MEL_COUNT, hidden, 2, batch_first=True, dropout=0.15)
        self.head = nn.Linear(hidden, OUTPUT_COUNT)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.gru(features)[0])


def expression_weights() -> Tensor:
    """(52,): the mouth and jaw count, brows and cheeks a little, eyes not (speech does not say where they look)."""

    def weight(name: str) -> float:
        if name in ("jawOpen", "mouthClose"):
            return 3.0
        if name.startswith(("mouth", "jaw")):
            return 1.5
        return 0.0 if name.startswith("eye") else 0.3

    return torch.tensor([weight(n) for n in ARKIT_NAMES])


def loss_of(answer: Tensor, target: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """The four losses of the paper, and closure and voice."""
    answer, target, known = (x[:, WARM_UP_HOPS:] for x in (answer, target, known))
    error = (answer - target) * known
    change = error[:, FRAME_HOPS:] - error[:, :-FRAME_HOPS]
    expression, pose = slice(0, EXPRESSION_COUNT), ROTATION
    loss = (error[..., expression] ** 2 * weights).mean() + WEIGHT_POSE * (error[..., pose] ** 2).mean()
    loss = loss + WEIGHT_CONTINUITY * (
        (change[..., expression] ** 2 * weights).mean() + WEIGHT_POSE * (change[..., pose] ** 2).mean()
    )
    closed = torch.sigmoid(answer[..., CLOSURE])
    closure = (F.binary_cross_entropy(closed.clamp(1e-4, 1 - 1e-4), target[..., CLOSURE].clamp(0, 1),
                                      reduction="none") * known[..., CLOSURE]).mean()  # fmt: skip
    voice = F.binary_cross_entropy_with_logits(answer[..., VOICE], target[..., VOICE])
    return loss + WEIGHT_CLOSURE * closure + WEIGHT_VOICE * voice


@dataclass(frozen=True, slots=True)
class Judged:
    """Of held-out speakers, medians over their clips."""

    jaw_correlation: float
    jaw_error: float
    voice_accuracy: float


def judge(net: nn.Module, recordings: list[Recording]) -> Judged:
    """How well the mouth opens: correlation of jawOpen with the labels."""
    jaw = ARKIT_INDEX["jawOpen"]
    found: list[tuple[float, float, float]] = []
    net.eval()
    for r in recordings:
        features, _ = log_mel(r.sound)
        with torch.no_grad():
            answer = net(torch.from_numpy(features)[None])[0].numpy()[LOOK_AHEAD_HOPS:]
        count = min(len(answer), len(r.targets))
        usable = r.known[:count, jaw] > 0
        a, b = answer[:count, jaw][usable], r.targets[:count, jaw][usable]
        if len(a) < FRAME_HZ or b.std() < 1e-4 or a.std() < 1e-6:
            continue
        agree = (answer[:count, VOICE] > 0) == (r.targets[:count, VOICE] > 0.5)
        found.append((float(np.corrcoef(a, b)[0, 1]), float(np.abs(a - b).mean()), float(agree.mean())))
    net.train()
    middle = np.median(found, 0) if found else np.zeros(3)
    return Judged(*(float(v) for v in middle))


def save_weights(path: Path, net: nn.Module, judged: Judged, notes: dict[str, object]) -> None:
    """One safetensors file of float32 with its header, whole or not at all."""
    header = {
        "format": FORMAT, "version": VERSION, "look_ahead_hops": LOOK_AHEAD_HOPS, "notes": notes,
        "metrics": {n: round(getattr(judged, n), 4) for n in Judged.__slots__},
        "licence": "research: trained on clips whose licences allow research",
    }  # fmt: skip
    tensors = {n: t.detach().cpu().float().contiguous() for n, t in net.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, str(part), {"visavis": json.dumps(header)})
    part.chmod(0o644)
    part.replace(path)


def train(
    recordings: list[Recording], *, minutes: float, runs: Path, seed: int = 0, steps: int | None = None
) -> Judged:
    """Train until `minutes` (in all, resumed runs included) or `steps` are over; the best figures reached."""
    torch.manual_seed(seed)
    runs.mkdir(parents=True, exist_ok=True)
    kept_out = [r for r in recordings if r.held_out]
    pool = Pool([r for r in recordings if not r.held_out], seed)
    net = SpeechNet()
    average = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    step, spent_s, best = 0, 0.0, Judged(-1.0, 1.0, 0.0)
    last = runs / "last.pt"
    if last.is_file():
        state: dict[str, Any] = torch.load(last, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent_s, best = int(state["step"]), float(state["spent_s"]), Judged(*state["best"])
        print(f"goes on from step {step}, {spent_s / 60:.1f} minutes", flush=True)
    weights = expression_weights()
    begun = time.monotonic() - spent_s
    losses: list[float] = []
    while time.monotonic() - begun < 60 * minutes and (steps is None or step < steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) / (1 + step / 1500)
        x, y, known = (torch.from_numpy(a) for a in pool.batch(ROWS, HOPS))
        loss = loss_of(net(x), y, known, weights)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        losses.append(float(loss.detach()))
        if step % 10 == 0:
            pool.renew(RENEW)
        if step % JUDGE_STEPS == 0 or (steps is not None and step >= steps):
            judged = judge(average, kept_out)
            spent_s = time.monotonic() - begun
            print(f"step {step}, {spent_s / 60:.1f} min, loss {np.mean(losses):.5f}, {judged}", flush=True)
            losses.clear()
            if judged.jaw_correlation >= best.jaw_correlation:
                best = judged
                save_weights(
                    runs / "best.safetensors",
                    average,
                    judged,
                    {"steps": step, "minutes": round(spent_s / 60, 1)},
                )
            part = runs / "last.pt.part"
            torch.save(
                {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict(),
                 "step": step, "spent_s": spent_s, "best": [getattr(best, n) for n in Judged.__slots__]}, part,
            )  # fmt: skip
            part.replace(last)
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with audio16k/, as for scripts.speech.labels")
    parser.add_argument("--labels", type=Path, default=Path("runs/speech/clips"))
    parser.add_argument("--curves", type=Path, help="facegood_arkit.npz beside its .flac files")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/speech"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recordings = read_all(arguments.data, arguments.labels, arguments.curves)
    seconds = sum(len(r.targets) for r in recordings) / FRAME_HZ
    print(f"{len(recordings)} recordings, {seconds:.0f} s, {sum(r.held_out for r in recordings)} held out")
    print(train(recordings, minutes=arguments.minutes, runs=arguments.runs))


if __name__ == "__main__":
    main()
