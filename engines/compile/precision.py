"""`fast_precision`: which numbers this computer's CPU is fast in."""

from __future__ import annotations

from engines.compile.engine import Precision
from engines.compile.openvino_import import load_openvino


def fast_precision() -> Precision:
    """bfloat16 where this CPU computes in it, else float32. Imports OpenVINO."""
    try:
        able = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception:  # no OpenVINO, or one that does not know
        return "fp32"
    return "bf16" if "BF16" in able else "fp32"
