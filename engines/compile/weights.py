"""Weights of a generator: one safetensors file (fp16) with a JSON header, checked before anything is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engines.errors import WeightsError

FORMAT = "visavis-generator"


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What a weights file says of itself.

    `generator` and `version` (of the networks and their inputs), `config` of the networks, `data` digest of the
    training cache, `metrics` of held-out people, `licence` of the weights, `notes` (steps, minutes).
    """

    generator: str
    version: int
    config: Mapping[str, object]
    data: str
    metrics: Mapping[str, float]
    licence: str
    notes: Mapping[str, object]
    sha256: str = ""  # of the tensors; filled in by `load_weights`


def save_weights(path: Path, networks: nn.Module, header: WeightsHeader) -> None:
    """Write `networks` as fp16 with its header, whole or not at all, readable by all."""
    tensors = {
        n: t.detach().cpu().half().clone(memory_format=torch.contiguous_format)
        for n, t in networks.state_dict().items()
    }
    text = json.dumps(
        {
            "format": FORMAT, "generator": header.generator, "version": header.version,
            "config": dict(header.config), "data": header.data,
            "metrics": {k: round(float(v), 6) for k, v in header.metrics.items()},
            "licence": header.licence, "notes": dict(header.notes), "sha256": digest_of(tensors),
        }
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, str(part), {"visavis": text})
    part.chmod(0o644)
    part.replace(path)


def load_weights(path: Path, generator: str, version: int) -> tuple[dict[str, Tensor], WeightsHeader]:
    """(float32 tensors, header). Raises WeightsError when the file is missing, damaged, or of another version."""
    again = "install visavis again, or in a checkout train anew: python -m scripts.train --help"
    if not path.is_file():
        raise WeightsError(f"the weights {path} are missing; {again}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 (no mapping)
        raw = json.loads(metadata["visavis"])
        header = WeightsHeader(
            str(raw["generator"]), int(raw["version"]), dict(raw["config"]), str(raw["data"]),
            {str(k): float(v) for k, v in dict(raw["metrics"]).items()}, str(raw["licence"]), dict(raw["notes"]),
            str(raw["sha256"]),
        )  # fmt: skip
        kind = raw["format"]
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise WeightsError(f"the weights {path} are damaged or no weights at all; {again}") from error
    if kind != FORMAT or header.generator != generator:
        raise WeightsError(f"{path} holds weights of {header.generator!r}, not of {generator!r}; {again}")
    if header.version != version:
        raise WeightsError(
            f"the weights {path} are of version {header.version}, this visavis needs {version}; {again}"
        )
    if digest_of(tensors) != header.sha256:
        raise WeightsError(
            f"the weights {path} were changed after training (their sha256 does not match); {again}"
        )
    return {n: t.float() for n, t in tensors.items()}, header


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
