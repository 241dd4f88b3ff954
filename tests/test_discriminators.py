"""Discriminators: what they give, that they learn while generators are trained, and spectral norm folded away."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from items import FewRows
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from unasked import Unasked

from engines.generators.networked.discriminators import MultiScaleDiscriminator, PatchDiscriminator, folded
from scripts.generators.loop import OnPairs, train
from scripts.generators.rows import Rows
from scripts.generators.task import Batch, GeneratorTask, Outcome, Teaching
from scripts.training.loop import CHECKPOINT
from scripts.training.state import Settings, Training
from scripts.training.table import read_table

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are too small to share among cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_patch_discriminator_judges_patches_and_shows_its_features() -> None:
    verdict, features = PatchDiscriminator(widths=(4, 8, 16))(torch.rand(2, 3, 32, 32))
    assert verdict.shape == (2, 1, 8, 8)
    assert [tuple(f.shape) for f in features] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 8, 8)]


def test_a_condition_is_seen_as_more_channels() -> None:
    """003, § 3.2.5: D(I || PNCC)."""
    judge = PatchDiscriminator(6, (4, 8)).eval()
    picture, pncc = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    one = judge(torch.cat([picture, pncc], 1))[0]
    other = judge(torch.cat([picture, pncc.flip(-1)], 1))[0]
    assert not torch.allclose(one, other)


def test_scales_have_verdicts_of_their_own() -> None:
    verdict, features = MultiScaleDiscriminator(widths=(4, 8), scales=3)(torch.rand(2, 3, 32, 32))
    assert verdict.shape == (2, 16 * 16 + 8 * 8 + 4 * 4)
    assert [f.shape[-1] for f in features] == [16, 16, 8, 8, 4, 4]


def test_without_spectral_norm_there_is_none() -> None:
    assert not [n for n in PatchDiscriminator(spectral=False).state_dict() if "parametrizations" in n]
    assert [n for n in PatchDiscriminator().state_dict() if "parametrizations" in n]


# --- folding -----------------------------------------------------------------------------------------


class Drawing(nn.Module):
    """A generator of which some layers have spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Sequential(spectral_norm(nn.Conv2d(8, 8, 3, padding=1)), nn.BatchNorm2d(8))
        self.last = spectral_norm(nn.Linear(8, 3))

    def forward(self, picture: Tensor) -> Tensor:
        x = self.middle(torch.relu(self.first(picture)))
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("make", [Drawing, PatchDiscriminator, MultiScaleDiscriminator])
def test_folded_weights_draw_the_same_without_the_norm(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    picture = torch.rand(2, 3, 32, 32)
    for _ in range(5):
        network(picture)  # the norm moves on while it is trained
    state = copy.deepcopy(network.state_dict())
    plain = folded(network)
    assert network.training
    assert plain.training
    assert [m.training for m in plain.modules()] == [True] * len(list(plain.modules()))
    for name, value in network.state_dict().items():  # looking changed nothing
        assert torch.equal(value, state[name]), name
    assert not [name for name in plain.state_dict() if "parametriz" in name or name.endswith(("_u", "_v"))]
    network.eval()
    plain.eval()
    a, b = network(picture), plain(picture)
    a, b = (a, b) if isinstance(a, Tensor) else (a[0], b[0])
    assert torch.allclose(a, b, atol=1e-6)
    # and a network made without the norm takes the weights
    if make is not Drawing:
        bare = make(spectral=False)
        bare.load_state_dict(plain.state_dict())


def test_a_network_without_the_norm_is_folded_into_itself() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    plain = folded(network)
    assert plain is not network
    assert torch.equal(plain.state_dict()["0.weight"], network.state_dict()["0.weight"])


# --- in a training -----------------------------------------------------------------------------------


class Painter(GeneratorTask):
    """Paints one grey; real pictures are of lighter ones."""

    name = "painter"
    adversarial = 1.0
    matching = 0.0

    def __init__(self, teaching: Teaching, begins: int = 0) -> None:
        self.teaching, self._begins = teaching, begins

    def networks(self) -> nn.Module:
        return nn.Linear(1, 1)

    def batch(self, pairs: Rows, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        noise = np.zeros((len(rows), 1, 1, 1)) if rng is None else rng.normal(size=(len(rows), 1, 1, 1))
        grey = np.broadcast_to(0.8 + 0.03 * noise, (len(rows), 3, 16, 16))
        return {"real": torch.from_numpy(grey.astype(np.float32))}

    def outcome(self, networks: nn.Module, batch: Batch, step: int) -> Outcome:
        real = batch["real"]
        grey = networks(torch.ones(1, 1, device=real.device)).reshape(1, 1, 1, 1)
        fake = grey.expand(real.shape)
        seen = step >= self._begins
        return Outcome({"none": grey.sum() * 0}, {"all": fake} if seen else {}, {"all": real} if seen else {})

    def phase(self, step: int) -> Hashable:
        return step >= self._begins

    def discriminators(self) -> dict[str, nn.Module]:
        return {"all": PatchDiscriminator(widths=(8, 16))}

    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return {"off": np.ones(len(batch["real"])), "off_base": np.ones(len(batch["real"]))}

    def grid(self, networks: nn.Module, batch: Batch) -> NDArray[np.uint8]:
        return np.zeros((4, 4, 3), np.uint8)


ROWS = np.array([(0, k) for k in range(8)], np.int64)
PAIRS = FewRows(ROWS, ROWS)
SETTINGS = Settings(batch=4, rate=0.01, steps=1)


def log_of(teaching: Teaching, steps: int, *, begins: int = 0) -> list[dict[str, float]]:
    """What each step tells."""
    settings = replace(SETTINGS, steps=steps)
    training = Training(OnPairs(Painter(teaching, begins), PAIRS, settings, CPU), settings, lambda _: None)
    for step in range(steps):
        batch = training.task.batch(step, settings.batch)
        with Unasked():
            training.advance(batch)
    return training.told()


def test_a_discriminator_learns_and_how_often_it_is_right_is_told() -> None:
    log = log_of(Teaching(rate=5e-3, counts_from=10**9), 60)
    assert {"discriminate_all", "right_all"} <= set(log[0])
    assert log[-1]["right_all"] > 0.95
    assert log[-1]["discriminate_all"] < 0.5 * log[0]["discriminate_all"]


def test_it_learns_at_a_rate_of_its_own() -> None:
    slow, fast = (
        log_of(Teaching(rate=rate, counts_from=10**9), 30)[-1]["discriminate_all"] for rate in (1e-5, 5e-3)
    )
    assert fast < 0.7 * slow


def test_it_learns_alone_before_it_counts() -> None:
    log = log_of(Teaching(counts_from=6), 10, begins=2)
    assert ["discriminate_all" in row for row in log] == [False] * 2 + [True] * 8
    assert ["fool_all" in row for row in log] == [False] * 6 + [True] * 4
    assert all("match_all" in row for row in log[6:])


def test_the_slope_is_penalised_now_and_then_and_becomes_small() -> None:
    log = log_of(Teaching(rate=5e-3, counts_from=10**9, r1=10.0, r1_every=4), 60)
    assert [k for k, row in enumerate(log) if "r1_all" in row] == list(range(0, 60, 4))
    free = log_of(Teaching(rate=5e-3, counts_from=10**9, r1=1e-9, r1_every=4), 60)
    assert log[56]["r1_all"] / 10.0 < 0.3 * free[56]["r1_all"] / 1e-9


def test_the_painter_is_taught_by_it() -> None:
    """Nothing but the discriminator says that pictures are bright."""
    settings = replace(SETTINGS, rate=0.2)
    alone = 40
    task = OnPairs(Painter(Teaching(rate=5e-3, counts_from=alone)), PAIRS, settings, CPU)
    training = Training(task, settings, lambda _: None)
    off: list[float] = []
    for step in range(alone + 8):
        with torch.no_grad():
            off.append(abs(float(training.network(torch.ones(1, 1))) - 0.8))
        training.advance(task.batch(step, settings.batch))
    # weight decay alone takes it away from there
    assert off[alone] >= off[0]
    assert off[-1] < off[alone]


@pytest.mark.slow
def test_a_cut_leaves_no_mark_on_discriminators(tmp_path: Path) -> None:
    teaching = Teaching(rate=5e-3, counts_from=4, r1=1.0, r1_every=3)

    def trained(steps: int, folder: str) -> nn.Module:
        settings = replace(SETTINGS, steps=steps)
        return train(
            Painter(teaching), PAIRS, settings, tmp_path / folder, CPU, judged_rows=2, say=lambda _: None
        ).network

    whole = trained(12, "whole")
    trained(7, "cut")
    rest = trained(12, "cut")
    assert torch.equal(next(whole.parameters()), next(rest.parameters()))
    one, other = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["own"]["discriminators"]["all"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    row = read_table(tmp_path / "whole" / "log.csv")[-1]
    assert 0 <= row["right_all"] <= 1
