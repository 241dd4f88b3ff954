"""Training of a generator on pairs: batches by seed and step, discriminators beside it, figures of held-out people."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.compile.precision import bfloat16_pays
from engines.generators.networked import terms
from engines.generators.networked.lesson import Outcome
from scripts.generators.rows import Draw, Rows
from scripts.generators.task import Batch, Before, GeneratorTask
from scripts.training.loop import CHECKPOINT, say_at_once
from scripts.training.loop import train as run
from scripts.training.optimiser import fused_adamw, load_optimiser
from scripts.training.state import Settings, Trained, Training
from scripts.training.task import Task

WARM_UP_STEPS, SLOW_STEPS = 200, 3000
JUDGED_ROWS, GRID_ROWS = 160, 10


class OnPairs(Task[Batch]):
    """The training of one generator on a cache of pairs."""

    def __init__(
        self,
        generator: GeneratorTask,
        pairs: Rows,
        settings: Settings,
        device: torch.device,
        judged_rows: int = JUDGED_ROWS,
    ) -> None:
        self.name, self.device = generator.name, device
        self._bfloat16 = bfloat16_pays(device)
        self._generator, self._pairs, self._settings = generator, pairs, settings
        self._draw = Draw(pairs, settings.seed)
        self._judged_count = judged_rows
        self._judged_rows = self._to_judge()
        self._discriminators: dict[str, nn.Module] = {}
        self._teacher: torch.optim.Optimizer | None = None  # the discriminators' own optimiser
        self._outcome: Outcome | None = None

    def network(self) -> nn.Module:
        networks = self._generator.networks()
        self._discriminators = {
            n: d.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            for n, d in self._generator.discriminators().items()
        }
        own = [p for d in self._discriminators.values() for p in d.parameters()]
        rate = self._generator.teaching.rate
        self._teacher = fused_adamw(own, rate, self.device, betas=(0.5, 0.9), weight_decay=0) if own else None
        return networks

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        rate = self._settings.rate
        return fused_adamw(network.parameters(), rate, self.device, betas=(0.9, 0.99), weight_decay=0.01)

    def rate(self, step: int, spent: float) -> float:
        return rate_at(self._settings, step)

    def batch(self, step: int, rows: int) -> Batch:
        rng = self._draw.rng(step)
        batch = self._generator.batch(self._pairs, self._draw.rows(rows, step, rng), rng)
        if self.device.type == "cuda":  # from pinned memory it is copied while the GPU works
            return {n: t.pin_memory() if t.device.type == "cpu" else t for n, t in batch.items()}
        return batch

    def phase(self, step: int) -> Hashable:
        return self._generator.phase(step), self._count(step), self._is_penalised(step)

    # --- losses ---------------------------------------------------------------------------------------

    def losses(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        outcome = self._generator.outcome(network, on_device(batch, self.device), step)
        self._outcome = outcome
        return outcome.losses | (self._fooling(outcome) if self._count(step) else {})

    def _fooling(self, outcome: Outcome) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        teaching = self._generator.teaching
        for name, fake in outcome.fakes.items():
            discriminator = self._discriminators[name].requires_grad_(False)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
                verdict, features = discriminator(fake)
                with torch.no_grad():
                    _, wanted = discriminator(outcome.reals[name])
            losses[f"fool_{name}"] = teaching.adversarial * terms.hinge_generator(verdict).mean()
            losses[f"match_{name}"] = teaching.matching * terms.feature_matching(features, wanted).mean()
            discriminator.requires_grad_(True)
        return losses

    def after_step(self, step: int) -> dict[str, Tensor]:
        """The discriminators learn from what the networks have just drawn."""
        outcome, self._outcome = self._outcome, None
        if outcome is None or not outcome.fakes or self._teacher is None:
            return {}
        told: dict[str, Tensor] = {}
        total: list[Tensor] = []
        for name, fake in outcome.fakes.items():
            discriminator, real = self._discriminators[name], outcome.reals[name]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
                verdict, _ = discriminator(real)
                fake_verdict, _ = discriminator(fake.detach())
            loss = terms.hinge_discriminator(verdict, fake_verdict).mean()
            told[f"discriminate_{name}"] = loss
            told[f"right_{name}"] = terms.told_right(verdict, fake_verdict).mean()
            total.append(loss)
            if self._is_penalised(step):
                teaching = self._generator.teaching
                steep = terms.gradient_penalty(lambda x, d=discriminator: d(x)[0], real).mean()
                told[f"r1_{name}"] = teaching.r1 / 2 * teaching.r1_every * steep
                total.append(told[f"r1_{name}"])
        self._teacher.zero_grad(set_to_none=True)
        torch.stack(total).sum().backward()
        self._teacher.step()
        return told

    def _count(self, step: int) -> bool:
        return step >= self._generator.teaching.counts_from

    def _is_penalised(self, step: int) -> bool:
        teaching = self._generator.teaching
        return teaching.r1 > 0 and step % teaching.r1_every == 0

    def state(self) -> dict[str, Any]:
        return {
            "discriminators": {n: d.state_dict() for n, d in self._discriminators.items()},
            "teacher": self._teacher.state_dict() if self._teacher else None,
            "before": asdict(self._generator.before),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, discriminator in self._discriminators.items():
            discriminator.load_state_dict(state["discriminators"][name])
        if self._teacher:
            load_optimiser(self._teacher, state["teacher"])
        self._generator.before = Before(**state.get("before", {}))

    # --- held-out people ------------------------------------------------------------------------------

    def figures(self, average: nn.Module) -> dict[str, float]:
        self._judged_rows = self._to_judge()  # more may have come
        found: dict[str, list[NDArray[np.float64]]] = {}
        for start in range(0, len(self._judged_rows), 16):
            batch = self._held_out(self._judged_rows[start : start + 16])
            for name, values in self._generator.figures(average, batch).items():
                found.setdefault(name, []).append(values)
        return {name: float(np.concatenate(values).mean()) for name, values in found.items()}

    def judged_by(self) -> str:
        told = f"{self._generator.window_px};"
        told += "".join(f"{self._pairs.name_of(item)}:{pair};" for item, pair in self._judged_rows.tolist())
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _to_judge(self) -> NDArray[np.int64]:
        held_out = self._pairs.held_out
        return spread(held_out if len(held_out) else self._pairs.train, self._judged_count)

    def score(self, figures: Mapping[str, float]) -> float:
        """Figures over those of what must be beaten."""
        names = [n for n in figures if f"{n}_base" in figures and n != "db"]
        return (
            float(np.mean([figures[n] / max(figures[f"{n}_base"], 1e-9) for n in names]))
            if names
            else math.inf
        )

    def picture(self, average: nn.Module) -> NDArray[np.uint8]:
        return self._generator.grid(average, self._held_out(spread(self._judged_rows, GRID_ROWS)))

    def _held_out(self, rows: NDArray[np.int64]) -> Batch:
        return on_device(self._generator.batch(self._pairs, rows, None), self.device)


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of rows (n, 2), evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def rate_at(settings: Settings, step: int) -> float:
    """Learning rate: warm-up, then slowly down, by the step alone (the end of a time budget is not known)."""
    return settings.rate * min(1.0, (step + 1) / WARM_UP_STEPS) / math.sqrt(1 + step / SLOW_STEPS)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, pictures channels last: convolutions are quicker so."""
    return {n: _laid_out(t).to(device, non_blocking=True) for n, t in batch.items()}


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def train(
    generator: GeneratorTask,
    pairs: Rows,
    settings: Settings,
    folder: Path,
    device: torch.device,
    *,
    judged_rows: int = JUDGED_ROWS,
    say: Callable[[str], None] = say_at_once,
    on_best: Callable[[Training[Batch], dict[str, float]], None] = lambda *_: None,
    profile: bool = False,
) -> Trained:
    """Train a generator; goes on from the checkpoint in `folder` where there is one. Raises TrainingError."""
    task = OnPairs(generator, pairs, settings, device, judged_rows)
    checkpoint = folder / CHECKPOINT
    resume = checkpoint if checkpoint.exists() else None
    return run(task, settings, folder, resume=resume, say=say, on_best=on_best, profile=profile)
