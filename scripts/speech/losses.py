"""What a network of speech is asked for: our losses, and the four of IFaceUV § 3.5 as they are printed.

Ours go by the paper's form (squared error on expression and on pose, inter-frame continuity on both, which compares
the change from frame to frame with the true one) and add the same two and the correlation on the opening of the mouth,
which the coefficients make together, closure of the lips, and whether somebody speaks at all.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from engines.motion import ARKIT_INDEX, ARKIT_NAMES, EXPRESSION_COUNT
from engines.speech.network import ANSWER_HZ, CLOSURE, ROTATION, VOICE
from engines.speech.opening import opening_weights
from scripts.speech.data import USUAL_OPENING, Batch

WARM_UP = 15  # answers at the start of a chunk that are not judged
FRAME_STEPS = 2  # continuity is between frames of 25 fps
# the opening counts most: the eye forgives a wrong smile, not a mouth that is shut on a vowel
EXPRESSION, OPENING, CORRELATION, POSE, CONTINUITY, CLOSED, VOICED = 0.1, 1.0, 0.5, 0.1, 2.0, 0.005, 0.02
# The paper prints no weights: those of the program that its [49] has published, whose sequences have 16 frames.
PAPER_POSE, PAPER_EXPRESSION_CONTINUITY, PAPER_POSE_CONTINUITY, PAPER_FRAMES = 0.2, 1e-4, 1e-2, 16

Losses = dict[str, Tensor]


@lru_cache(1)
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


def _judged(answer: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Answer, target and what is known of it (B, T, OUTPUT_COUNT), openings (B, T): after the warm-up."""
    target, known, gap = (
        torch.from_numpy(a)[:, WARM_UP:] for a in (batch.targets, batch.known, batch.openings)
    )
    return answer[:, WARM_UP:], target, known, gap


def visavis_losses(answer: Tensor, batch: Batch) -> Losses:
    """Ours, weighted: of the paper's form, and those of the opening, of closure and of voice."""
    answer, target, known, gap = _judged(answer, batch)

    def paper(error: Tensor, weight: Tensor | float) -> Tensor:
        change = error[:, FRAME_STEPS:] - error[:, :-FRAME_STEPS]
        return (error**2 * weight).mean() + CONTINUITY * (change**2 * weight).mean()

    error = (answer - target) * known
    closed = torch.sigmoid(answer[..., CLOSURE])
    open_known = known[..., ARKIT_INDEX["jawOpen"]]
    opening = torch.from_numpy(opening_weights())
    made = torch.relu(answer[..., :EXPRESSION_COUNT] @ opening) / USUAL_OPENING
    gap = gap / USUAL_OPENING
    losses = {
        "expression": EXPRESSION * paper(error[..., :EXPRESSION_COUNT], expression_weights()),
        "pose": POSE * paper(error[..., ROTATION], 1.0),
        "opening": OPENING * paper(((made - gap) * open_known)[..., None], 1.0),
    }
    enough = open_known.sum(1) > ANSWER_HZ
    if enough.any():
        # what is seen is the gap between lips that closure brings together
        seen = correlation(made * (1 - closed), gap, open_known)
        losses["correlation"] = CORRELATION * (1 - seen[enough]).mean()
    return losses | _closure_and_voice(answer, target, known)


def _closure_and_voice(answer: Tensor, target: Tensor, known: Tensor) -> Losses:
    closure = F.binary_cross_entropy_with_logits(
        answer[..., CLOSURE], target[..., CLOSURE].clamp(0, 1), reduction="none"
    )
    voice = F.binary_cross_entropy_with_logits(answer[..., VOICE], target[..., VOICE], reduction="none")
    return {
        "closure": CLOSED * (closure * known[..., CLOSURE]).mean(),
        "voice": VOICED * (voice * known[..., VOICE]).mean(),
    }


# --- IFaceUV § 3.5 ----------------------------------------------------------------------------------


def squared_error(generated: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """MSE of parameters (B, T, D): the mean of (p̂ − p)² over all that are known (1 of `known`)."""
    return ((generated - true) ** 2 * known).sum() / known.sum().clamp(min=1)


def continuity(generated: Tensor) -> Tensor:
    """Squared L2 norm of the gradient in time of generated parameters (B, T, D), whatever the true ones do.

    Mean over B of Σ ‖p̂(k+1) − p̂(k)‖² over the frames of a sequence of `PAPER_FRAMES`, of every such sequence.
    """
    change = generated[:, FRAME_STEPS:] - generated[:, :-FRAME_STEPS]
    return (PAPER_FRAMES - 1) * (change**2).sum(-1).mean()


def ifaceuv_losses(answer: Tensor, batch: Batch) -> Losses:
    """The paper's four, weighted; and closure and voice, which it lacks, for a network that they do not teach.

    Expression is all 52 coefficients alike, pose the head's rotation less its slow course.
    """
    answer, target, known, _ = _judged(answer, batch)
    expression, pose = answer[..., :EXPRESSION_COUNT], answer[..., ROTATION]
    return {
        "expression": squared_error(
            expression, target[..., :EXPRESSION_COUNT], known[..., :EXPRESSION_COUNT]
        ),
        "pose": PAPER_POSE * squared_error(pose, target[..., ROTATION], known[..., ROTATION]),
        "expression_continuity": PAPER_EXPRESSION_CONTINUITY * continuity(expression),
        "pose_continuity": PAPER_POSE_CONTINUITY * continuity(pose),
    } | _closure_and_voice(answer, target, known)
