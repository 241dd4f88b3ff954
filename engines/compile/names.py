"""Which engines there are, fastest first; imports nothing, so that a command line may."""

from __future__ import annotations

# The declared order: the first that is available and accepts a network serves it.
ENGINE_NAMES = ("tensorrt", "cuda graphs", "openvino", "torch")
