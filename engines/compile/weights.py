"""Weights of any network: one safetensors file with a JSON header, checked before anything is believed.

NumPy alone: what runs without torch (speech) loads without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engines.digest import digest_of
from engines.errors import WeightsError
from engines.files import write_whole

if TYPE_CHECKING:
    from torch import nn

F32 = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]
T = TypeVar("T")

FORMAT = "visavis-weights"


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """Which weights fit: `name` of the network, `version` of it and of its inputs, the module that trains it."""

    name: str
    version: int
    trained_by: str

    @property
    def way_out(self) -> str:
        """What to do when there are no good weights."""
        return f"install visavis again, or in a checkout train anew: python -m {self.trained_by} --help"


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What a weights file says of itself.

    `config` of the network, `licence` of the weights, digest of the `data` it has seen ("": not taken), `metrics` of
    held-out people, `notes` (steps, minutes).
    """

    network: str
    version: int
    config: Mapping[str, Any]
    licence: str
    data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sha256: str = ""  # of the tensors; filled in by `load_weights`


def arrays_of(network: nn.Module, kind: type[np.floating[Any]]) -> dict[str, NDArray[Any]]:
    """Parameters and statistics of a torch network, rounded to `kind`."""
    return {
        name: np.array(tensor.detach().cpu().numpy(), kind, order="C")
        for name, tensor in network.state_dict().items()
    }


def save_weights(path: Path, tensors: Tensors, header: WeightsHeader) -> None:
    """Write `tensors` as they are with their header, whole or not at all. Raises OSError."""
    text = json.dumps(
        {
            "format": FORMAT, "network": header.network, "version": header.version,
            "config": dict(header.config), "data": header.data,
            "metrics": {k: round(float(v), 6) for k, v in header.metrics.items()},
            "licence": header.licence, "notes": dict(header.notes), "sha256": digest_of(tensors),
        }
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(dict(tensors), {"visavis": text}))


def load_weights(path: Path, kind: NetworkKind) -> tuple[dict[str, F32], WeightsHeader]:
    """(float32 tensors, header). Raises WeightsError for a file that is missing, damaged, or of something else."""
    again = kind.way_out
    if not path.is_file():
        raise WeightsError(f"the weights {path} are missing; {again}")
    damaged = f"the weights {path} are damaged or no weights at all; {again}"
    try:
        with safe_open(str(path), framework="numpy") as file:
            raw = json.loads((file.metadata() or {})["visavis"])
            tensors: dict[str, NDArray[Any]] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 (no mapping)
        found = str(raw["format"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(damaged) from error
    if found != FORMAT:
        raise WeightsError(
            f"{path} is in the format {found!r:.40}, which this visavis does not read ({FORMAT!r}): an earlier "
            f"visavis wrote it, or something else; {again}"
        )
    try:
        header = WeightsHeader(
            str(raw["network"]), int(raw["version"]), dict(raw["config"]), str(raw["licence"]), str(raw["data"]),
            {str(k): float(v) for k, v in dict(raw["metrics"]).items()}, dict(raw["notes"]), str(raw["sha256"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightsError(damaged) from error
    if header.network != kind.name:
        raise WeightsError(f"{path} holds weights of {header.network!r}, not of {kind.name!r}; {again}")
    if header.version != kind.version:
        raise WeightsError(
            f"the weights {path} are of version {header.version}, this visavis needs {kind.version}; {again}"
        )
    if digest_of(tensors) != header.sha256:
        raise WeightsError(
            f"the weights {path} were changed after training (their sha256 does not match); {again}"
        )
    if not all(np.isfinite(t).all() for t in tensors.values()):
        raise WeightsError(f"the weights {path} hold a number that is not finite; {again}")
    return {n: np.asarray(t, np.float32) for n, t in tensors.items()}, header


def build_network(
    path: Path, kind: NetworkKind, build: Callable[[dict[str, F32], WeightsHeader], T]
) -> tuple[T, WeightsHeader]:
    """What `build` makes of a weights file. Raises WeightsError, also where the tensors do not fit what it builds."""
    tensors, header = load_weights(path, kind)
    try:
        return build(tensors, header), header
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"the weights {path} do not fit the networks that their header tells of; {kind.way_out}"
        ) from error
