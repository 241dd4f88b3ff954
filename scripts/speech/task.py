"""Training of `SpeechToMotion`'s network: chunks of voices, curves and people, and the losses.

Losses (IFaceUV § 3.5): squared error on expression and on pose, and inter-frame continuity on both, which compares
the change from frame to frame. Beyond the paper: the same two and the correlation on the opening of the mouth, which
the coefficients make together, closure of the lips, and whether somebody speaks at all.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as AnySequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.speech.network import (
    ANSWER_HZ,
    CLOSURE,
    FEATURE_SCALE,
    FEATURE_SHIFT,
    INPUT_COUNT,
    OUTPUT_COUNT,
    ROTATION,
    VOICE,
)
from engines.speech.opening import opening_weights
from scripts.speech.data import USUAL_OPENING, Batch, Pool, Quiet, batch_of
from scripts.training.state import Settings
from scripts.training.task import Task

HIDDEN = 128
ROWS, STEPS, WARM_UP = 24, 150, 15
WARM_UP_STEPS = 50
FRAME_STEPS = 2  # continuity is between frames of 25 fps
# the opening counts most: the eye forgives a wrong smile, not a mouth that is shut on a vowel
EXPRESSION, OPENING, CORRELATION, POSE, CONTINUITY, CLOSED, VOICED = 0.1, 1.0, 0.5, 0.1, 2.0, 0.005, 0.02


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


def losses_of(answer: Tensor, batch: Batch, weights: Tensor, opening: Tensor) -> dict[str, Tensor]:
    """The losses of the paper, and those of the opening, of closure and of voice; weighted."""
    answer = answer[:, WARM_UP:]
    target, known, gap = (
        torch.from_numpy(a)[:, WARM_UP:] for a in (batch.targets, batch.known, batch.openings)
    )

    def paper(error: Tensor, weight: Tensor | float) -> Tensor:
        change = error[:, FRAME_STEPS:] - error[:, :-FRAME_STEPS]
        return (error**2 * weight).mean() + CONTINUITY * (change**2 * weight).mean()

    error = (answer - target) * known
    closed = torch.sigmoid(answer[..., CLOSURE])
    open_known = known[..., ARKIT_INDEX["jawOpen"]]
    made = torch.relu(answer[..., :EXPRESSION_COUNT] @ opening) / USUAL_OPENING
    gap = gap / USUAL_OPENING
    losses = {
        "expression": EXPRESSION * paper(error[..., :EXPRESSION_COUNT], weights),
        "pose": POSE * paper(error[..., ROTATION], 1.0),
        "opening": OPENING * paper(((made - gap) * open_known)[..., None], 1.0),
    }
    enough = open_known.sum(1) > ANSWER_HZ
    if enough.any():
        # what is seen is the gap between lips that closure brings together
        seen = correlation(made * (1 - closed), gap, open_known)
        losses["correlation"] = CORRELATION * (1 - seen[enough]).mean()
    closure = F.binary_cross_entropy_with_logits(
        answer[..., CLOSURE], target[..., CLOSURE].clamp(0, 1), reduction="none"
    )
    voice = F.binary_cross_entropy_with_logits(answer[..., VOICE], target[..., VOICE], reduction="none")
    losses["closure"] = CLOSED * (closure * known[..., CLOSURE]).mean()
    losses["voice"] = VOICED * (voice * known[..., VOICE]).mean()
    return losses


class SpeechTask(Task[Batch]):
    """One stage: chunks of `sources` by their shares, for the steps of `settings`, from what `begin` gives."""

    def __init__(
        self,
        stage: str,
        sources: AnySequence[tuple[float, Pool | Quiet]],
        settings: Settings,
        begin: Callable[[], SpeechNet],
    ) -> None:
        assert settings.steps is not None
        # the rate falls to nothing at the last step: with more steps it would be another training
        self.name = f"speech, {stage} in {settings.steps} steps"
        self.device = torch.device("cpu")
        self._sources, self._settings, self._steps, self._begin = sources, settings, settings.steps, begin
        self._weights, self._opening = expression_weights(), torch.from_numpy(opening_weights())

    def network(self) -> SpeechNet:
        return self._begin()

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(network.parameters(), self._settings.rate, weight_decay=0.03)

    def rate(self, step: int, spent: float) -> float:
        """Warm-up, then a line down to nothing."""
        return self._settings.rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - step / self._steps)

    def batch(self, step: int, rows: int) -> Batch:
        rng = np.random.default_rng([self._settings.seed, step])
        return batch_of(self._sources, rng, rows, STEPS)

    def losses(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        return losses_of(network(torch.from_numpy(batch.features)), batch, self._weights, self._opening)
