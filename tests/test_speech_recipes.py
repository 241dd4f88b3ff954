"""Recipes of speech → motion: the four losses of IFaceUV § 3.5 by hand, what they teach, and that they fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.motion import ARKIT_INDEX
from engines.speech.network import CLOSURE, INPUT_COUNT, OUTPUT_COUNT, ROTATION, VOICE
from scripts.speech.data import Batch
from scripts.speech.losses import WARM_UP, continuity, ifaceuv_losses, squared_error
from scripts.speech.recipe import IFACEUV, VISAVIS, Recipe
from scripts.speech.task import SpeechNet

FOUR = ("expression", "pose", "expression_continuity", "pose_continuity")


def batch_of(rows: int = 2, steps: int = WARM_UP + 9, seed: int = 0) -> Batch:
    """Anything at all, known here and there."""
    rng = np.random.default_rng(seed)
    shape = (rows, steps, OUTPUT_COUNT)
    return Batch(
        rng.uniform(-10, 3, (rows, steps, INPUT_COUNT)).astype(np.float32),
        rng.uniform(0, 1, shape).astype(np.float32),
        (rng.random(shape) < 0.7).astype(np.float32),
        rng.uniform(0, 0.2, (rows, steps)).astype(np.float32),
    )


def test_the_four_losses_of_the_paper_by_hand() -> None:
    batch = batch_of()
    answer = np.random.default_rng(1).normal(size=batch.targets.shape).astype(np.float32)
    found = ifaceuv_losses(torch.from_numpy(answer), batch)
    parts = {"expression": range(52), "pose": range(52, 55)}
    weights = {"expression": (1.0, 1e-4), "pose": (0.2, 1e-2)}
    rows, steps, _ = answer.shape
    for name, columns in parts.items():
        errors: list[float] = []
        norms: list[float] = []
        for row in range(rows):
            for step in range(WARM_UP, steps):
                errors += [
                    float(answer[row, step, d] - batch.targets[row, step, d]) ** 2
                    for d in columns
                    if batch.known[row, step, d]
                ]
                if step + 2 < steps:  # a frame of 25 fps is two answers
                    norms.append(
                        sum(float(answer[row, step + 2, d] - answer[row, step, d]) ** 2 for d in columns)
                    )
        squared, smooth = weights[name]
        assert float(found[name]) == pytest.approx(squared * np.mean(errors), rel=1e-4)
        # of a sequence of 16 frames there are 15 changes
        assert float(found[f"{name}_continuity"]) == pytest.approx(smooth * 15 * np.mean(norms), rel=1e-4)
    assert set(found) == {*FOUR, "closure", "voice"}


def test_continuity_is_of_what_is_generated_and_of_nothing_else() -> None:
    still = torch.full((2, 20, 3), 0.7)
    assert float(continuity(still)) == 0
    ramp = 0.1 * torch.arange(20)[None, :, None] * torch.ones(2, 1, 3)
    assert float(continuity(ramp)) == pytest.approx(15 * 3 * 0.2**2, rel=1e-4)
    batch = batch_of()
    answer = torch.from_numpy(batch.targets)
    assert float(ifaceuv_losses(answer, batch)["expression"]) == 0
    assert float(ifaceuv_losses(answer, batch)["expression_continuity"]) > 0  # also when it is right


def test_what_is_not_known_is_no_error() -> None:
    generated, true = torch.ones(1, 4, 2), torch.zeros(1, 4, 2)
    known = torch.zeros(1, 4, 2)
    assert float(squared_error(generated, true, known)) == 0
    known[0, 1, 0] = 1
    generated[0, 2] = 100
    assert float(squared_error(generated, true, known)) == 1


def test_the_start_of_a_chunk_is_not_judged() -> None:
    batch = batch_of()
    answer = np.random.default_rng(1).normal(size=batch.targets.shape).astype(np.float32)
    before = {n: float(x) for n, x in ifaceuv_losses(torch.from_numpy(answer), batch).items()}
    answer[:, :WARM_UP] = 50
    assert {n: float(x) for n, x in ifaceuv_losses(torch.from_numpy(answer), batch).items()} == before


def taught_by(names: tuple[str, ...], recipe: Recipe) -> dict[str, torch.Tensor]:
    """Gradient of these losses in every parameter."""
    torch.manual_seed(0)
    net = SpeechNet(16, 0.0, recipe)
    batch = batch_of(steps=WARM_UP + 60)
    losses = recipe.losses(net(torch.from_numpy(batch.features)), batch)
    torch.stack([losses[n] for n in names]).sum().backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters()}


def test_only_the_four_teach_the_papers_network() -> None:
    own = [CLOSURE, VOICE]
    told = [k for k in range(OUTPUT_COUNT) if k not in own]
    for name in FOUR:
        found = taught_by((name,), IFACEUV)
        head = found.pop("head.weight")
        rows = ROTATION if name.startswith("pose") else slice(0, 52)
        assert (head[rows].abs().amax(1) > 0).all(), name
        assert not head[own].any()
        del found["head.bias"]  # has no part in what changes
        assert all(g.abs().max() > 0 for g in found.values()), name
    aside = taught_by(("closure", "voice"), IFACEUV)
    assert (aside["head.weight"][own].abs().amax(1) > 0).all()
    assert not aside["head.weight"][told].any()
    assert not any(g.any() for n, g in aside.items() if not n.startswith("head"))
    ours = taught_by(("closure", "voice"), VISAVIS)
    assert all(g.any() for n, g in ours.items() if not n.startswith("head"))


def test_read_aside_or_not_a_network_answers_alike() -> None:
    heard = torch.from_numpy(batch_of().features)
    torch.manual_seed(0)
    aside = SpeechNet(16, 0.0, IFACEUV).eval()
    torch.nn.init.normal_(aside.head.bias)
    whole = SpeechNet(16, 0.0, Recipe("whole", IFACEUV.config, ifaceuv_losses)).eval()
    whole.load_state_dict(aside.state_dict())
    assert torch.allclose(aside(heard), whole(heard), atol=1e-6)


@pytest.mark.slow
def test_the_papers_network_learns_by_its_losses() -> None:
    """The jaw by the loudness of 60 ms ago: what is heard and remembered counts."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    steps = WARM_UP + 41
    loud = np.repeat(rng.random((4, steps // 4)) < 0.5, 4, 1).astype(np.float32)
    features = np.repeat(-8 + 8 * loud[..., None], INPUT_COUNT, 2)
    targets = np.zeros((4, steps, OUTPUT_COUNT), np.float32)
    jaw = ARKIT_INDEX["jawOpen"]
    targets[:, 3:, jaw] = 0.5 * loud[:, :-3]
    batch = Batch(features, targets, np.ones_like(targets), np.zeros((4, steps), np.float32))
    net = SpeechNet(32, 0.0, IFACEUV)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    told: list[float] = []
    for _ in range(40):
        losses = IFACEUV.losses(net(torch.from_numpy(features)), batch)
        total = torch.stack([losses[n] for n in FOUR]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        told.append(float(total.detach()))
    with torch.no_grad():
        answer = net(torch.from_numpy(features)).numpy()
    r = np.corrcoef(answer[:, WARM_UP:, jaw].ravel(), targets[:, WARM_UP:, jaw].ravel())[0, 1]
    assert told[-1] < 0.2 * told[0]
    assert r > 0.9
