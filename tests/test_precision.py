"""Which numbers a computer is fast in, of what it says it can."""

from __future__ import annotations

import pytest
import torch

from engines.compile.precision import bfloat16_is_fast, bfloat16_pays, fast_precision

X86 = {"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}


def test_a_cpu_that_only_says_that_it_can_is_no_quicker() -> None:
    assert bfloat16_is_fast(X86) is False
    assert bfloat16_is_fast({**X86, "amx_bf16": True}) is True


def test_of_others_it_does_not_tell() -> None:
    assert bfloat16_is_fast({"architecture": "aarch64", "bf16": True}) is None
    assert bfloat16_is_fast({}) is None


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_serving_and_learning_follow(amx: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**X86, "amx_bf16": amx}, raising=False)
    assert fast_precision() == precision
    assert bfloat16_pays(torch.device("cpu")) is amx
    assert bfloat16_pays(torch.device("cuda"))


def test_an_older_torch_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert bfloat16_is_fast() is None
    assert not bfloat16_pays(torch.device("cpu"))
