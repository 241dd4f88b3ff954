"""Training of `SpeechToMotion`'s network: chunks of voices, curves and people, by a recipe."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as AnySequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines.speech.features import MEL_COUNT, mfcc
from engines.speech.network import (
    CLOSURE,
    FEATURE_SCALE,
    FEATURE_SHIFT,
    HOPS,
    MFCC_SCALE,
    MFCC_SHIFT,
    OUTPUT_COUNT,
)
from scripts.speech.data import Batch, Pool, Quiet, batch_of
from scripts.speech.recipe import VISAVIS, Recipe
from scripts.training.state import Settings
from scripts.training.task import Task

HIDDEN = 128
ROWS, STEPS = 24, 150
WARM_UP_STEPS = 50


class SpeechNet(nn.Module):
    """The network of `engines.speech.network` for training: (B, T, INPUT_COUNT) → (B, T, OUTPUT_COUNT)."""

    def __init__(self, hidden: int = HIDDEN, dropout: float = 0.2, recipe: Recipe = VISAVIS) -> None:
        super().__init__()
        self.recipe = recipe
        self.first = nn.Linear(recipe.config.input_count, hidden)
        layers = {"gru": nn.GRU, "lstm": nn.LSTM}[recipe.config.cell]
        self._recurrent = recipe.config.cell  # its tensors' name
        self.add_module(self._recurrent, layers(hidden, hidden, 2, batch_first=True, dropout=dropout))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, OUTPUT_COUNT)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if recipe.config.features == "mfcc":
            # the cosine transform is a product
            cosine = torch.from_numpy(mfcc(np.eye(MEL_COUNT, dtype=np.float32)))
            self.register_buffer("cosine", cosine * torch.from_numpy(MFCC_SCALE), persistent=False)
            self.register_buffer("shift", torch.from_numpy(MFCC_SHIFT), persistent=False)

    def scaled(self, heard: Tensor) -> Tensor:
        """(B, T, INPUT_COUNT) log-mel → (B, T, input_count), as `engines.speech.network.scaled`."""
        if self.recipe.config.features == "log-mel":
            return heard * float(FEATURE_SCALE) + float(FEATURE_SHIFT)
        hops = heard.unflatten(-1, (HOPS, MEL_COUNT)) @ self.get_buffer("cosine")
        return (hops + self.get_buffer("shift")).flatten(-2)

    def forward(self, heard: Tensor) -> Tensor:
        x = torch.relu(self.first(self.scaled(heard)))
        x = self.dropout(self.get_submodule(self._recurrent)(x)[0])
        if not self.recipe.read_aside:
            return self.head(x)
        weight, bias = self.head.weight, self.head.bias
        motion = F.linear(x, weight[:CLOSURE], bias[:CLOSURE])
        return torch.cat([motion, F.linear(x.detach(), weight[CLOSURE:], bias[CLOSURE:])], -1)


class SpeechTask(Task[Batch]):
    """One stage of a recipe: chunks of `sources` by their shares, for the steps of `settings`, from `begin`'s net."""

    def __init__(
        self,
        stage: str,
        recipe: Recipe,
        sources: AnySequence[tuple[float, Pool | Quiet]],
        settings: Settings,
        begin: Callable[[], SpeechNet],
    ) -> None:
        assert settings.steps is not None
        # the rate falls to nothing at the last step: with more steps it would be another training
        self.name = f"speech by {recipe.name}, {stage} in {settings.steps} steps"
        self.device = torch.device("cpu")
        self._recipe, self._sources, self._begin = recipe, sources, begin
        self._settings, self._steps = settings, settings.steps

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
        return self._recipe.losses(network(torch.from_numpy(batch.features)), batch)
