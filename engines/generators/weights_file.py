"""`weights_file`: where the weights of a generator with networks lie; imports nothing slow."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


def weights_file(name: str) -> Path:
    """Of the generator called `name`, whether it is there or not."""
    return DATA / f"{name}.safetensors"
