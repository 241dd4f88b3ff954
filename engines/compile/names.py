"""Which engines there are, fastest first; imports nothing, so that a command line may."""

from __future__ import annotations

# The declared order: the first that is available and accepts a network serves it.
ENGINE_NAMES = ("tensorrt", "tensorrt-rtx", "torch compile", "cuda graphs", "openvino", "torch")
ENGINES_SETTING = "VISAVIS_ENGINES"  # names in another order, or fewer, separated by commas
PRECISION_SETTING = "VISAVIS_PRECISION"  # of the CPU's networks, instead of the fastest
PRECISIONS = ("fp32", "bf16", "int8")
