"""Which numbers this computer is fast in: `bfloat16_pays` to learn in, `int8_pays` and `fast_precision` to draw in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import torch

from engines.compile.engine import Precision
from engines.compile.names import PRECISION_SETTING, PRECISIONS
from engines.compile.openvino_import import load_openvino
from engines.errors import EngineError, no_such


def bfloat16_is_fast(able: Mapping[str, Any] | None = None) -> bool | None:
    """Whether an x86 CPU is quicker in bfloat16 than in float32; None for any other CPU, of which this cannot tell.

    `able`: what `torch.cpu.get_capabilities` tells (None: of this computer). Only tiles (AMX) count: a CPU that has
    AVX512_BF16 alone says that it can, and takes up to 1.7 times as long as in float32.
    """
    told: Mapping[str, Any] = _capabilities() if able is None else able
    return bool(told.get("amx_bf16")) if told.get("architecture") == "x86_64" else None


def _capabilities() -> Mapping[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict[str, Any])()  # older torch has none


def bfloat16_pays(device: torch.device) -> bool:
    """Whether a training on `device` is quicker in bfloat16: on a GPU, and on a CPU of which that is known."""
    return device.type != "cpu" or bool(bfloat16_is_fast())


def chosen_precision() -> Precision | None:
    """The one that `VISAVIS_PRECISION` names, None where it names none. Raises EngineError for another word."""
    told = os.environ.get(PRECISION_SETTING, "")
    if told not in ("", *PRECISIONS):
        raise EngineError(f"{PRECISION_SETTING}: {no_such('precision', told, PRECISIONS)}")
    return cast("Precision", told) if told else None


def int8_pays(able: Mapping[str, Any] | None = None) -> bool:
    """Whether this CPU multiplies eight-bit numbers faster than any others that it is fast in: VNNI without AMX.

    With AMX, bfloat16 is quick already and closer. `able` as above.
    """
    told: Mapping[str, Any] = _capabilities() if able is None else able
    return bool(told.get("avx512_vnni") or told.get("avx_vnni")) and not told.get("amx_bf16")


def fast_precision() -> Precision:
    """bfloat16 where this CPU is faster in it, else float32. Imports OpenVINO."""
    fast = bfloat16_is_fast()
    if fast is not None:
        return "bf16" if fast else "fp32"
    try:
        able = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception:  # no OpenVINO, or one that does not know
        return "fp32"
    return "bf16" if "BF16" in able else "fp32"
