"""Recipes of speech → motion by name: what the network is built of, and the losses that teach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from engines.speech.network import SpeechConfig
from scripts.speech.data import LOOK_AHEAD_HOPS, Batch
from scripts.speech.losses import Losses, ifaceuv_losses, visavis_losses


@dataclass(frozen=True, slots=True)
class Recipe:
    """`losses` of an answer (B, T, OUTPUT_COUNT) to a batch, weighted.

    `read_aside`: closure of the lips and voice are read off what the network hears by their own rows of the last
    layer, without teaching the layers before: for a paper that does not have them.
    """

    name: str
    config: SpeechConfig
    losses: Callable[[Tensor, Batch], Losses]
    read_aside: bool = False


VISAVIS = Recipe("visavis", SpeechConfig(LOOK_AHEAD_HOPS), visavis_losses)  # what ships
IFACEUV = Recipe("ifaceuv", SpeechConfig(LOOK_AHEAD_HOPS, "mfcc", "lstm"), ifaceuv_losses, read_aside=True)
RECIPES = {r.name: r for r in (VISAVIS, IFACEUV)}
