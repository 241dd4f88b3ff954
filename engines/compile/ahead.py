"""`build_ahead`: networks compiled before they are needed, for this computer or another, and kept as engines look."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.compile.engine import Precision
from engines.compile.exports import engine_cache_folder
from engines.compile.network import Network
from engines.compile.onnx_export import export_refusal, onnx_of
from engines.compile.openvino_engine import OpenVinoEngine, kept_network
from engines.compile.tensorrt_rtx_engine import TensorRtRtxEngine
from engines.compile.triton_repository import write_model
from engines.errors import EngineError, no_such
from engines.files import write_whole

AHEAD_NAMES = ("tensorrt-rtx", "openvino", "onnx", "triton")


@dataclass(frozen=True, slots=True)
class Built:
    """One file that is there: `seconds` it took (0: it was there before), `byte_count` of all that it consists of."""

    network: str
    target: str
    path: Path
    byte_count: int
    seconds: float


def build_ahead(
    networks: Sequence[Network],
    engine: str,
    targets: Sequence[str] = (),
    precision: Precision | None = None,
    folder: Path | None = None,
    *,
    any_batch: bool = False,
    rtx: TensorRtRtxEngine | None = None,
) -> Iterator[Built]:
    """Build each network by `engine`, one of `AHEAD_NAMES`, into `folder` (None: the cache that engines look into).

    `targets`: cards, of tensorrt-rtx alone, which is kept as an engine on such a card looks for it; `precision` (None:
    what its engine asks for); `any_batch`: of onnx alone; of triton, whose models are for any batch, `folder` is the
    model repository. Raises EngineError, with the reason and the fix, at the first
    network that is refused, and OSError where `folder` cannot be written.
    """
    if engine not in AHEAD_NAMES:
        raise EngineError(no_such("engine that compiles ahead", engine, AHEAD_NAMES))
    if targets and engine != "tensorrt-rtx":
        raise EngineError(f"{engine} builds for any card or this CPU; leave --target out")
    if engine == "triton":
        return _served_by_triton(networks, precision or "fp32", folder)
    folder = folder or engine_cache_folder()
    if engine == "onnx":
        return _exported(networks, precision or "fp32", folder, any_batch)
    if engine == "openvino":
        return _for_this_cpu(networks, folder)
    return _for_cards(networks, targets, precision or "fp16", folder, rtx or TensorRtRtxEngine())


def _exported(
    networks: Sequence[Network], precision: Precision, folder: Path, any_batch: bool
) -> Iterator[Built]:
    if refusal := export_refusal():
        raise EngineError(refusal)
    for network in networks:
        path = folder / f"{network.name}-{precision}{'-any' if any_batch else ''}.onnx"
        begin = time.monotonic()
        with _naming(network):
            model = onnx_of(network.module, network.example, precision, any_batch=any_batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, model)
        yield Built(network.name, "any", path, len(model), time.monotonic() - begin)


def _served_by_triton(
    networks: Sequence[Network], precision: Precision, repository: Path | None
) -> Iterator[Built]:
    if repository is None:
        raise EngineError("triton needs a model repository; name a folder for it with -o")
    if refusal := export_refusal():
        raise EngineError(refusal)
    for network in networks:
        begin = time.monotonic()
        with _naming(network):
            path, count, written = write_model(network, precision, repository)
        yield Built(network.name, "triton", path, count, time.monotonic() - begin if written else 0.0)


def _for_this_cpu(networks: Sequence[Network], folder: Path) -> Iterator[Built]:
    tier = OpenVinoEngine().tier()
    if not tier.available:
        raise EngineError(f"openvino: {tier.reason}")
    for network in networks:
        begin = time.monotonic()
        with _naming(network):
            path = kept_network(network.module, network.example, network.key, folder)
        files = (path, path.with_suffix(".bin"))
        count = sum(file.stat().st_size for file in files)
        yield Built(network.name, "this CPU", path, count, time.monotonic() - begin)


def _for_cards(
    networks: Sequence[Network],
    targets: Sequence[str],
    precision: Precision,
    folder: Path,
    engine: TensorRtRtxEngine,
) -> Iterator[Built]:
    if refusal := engine.builds():
        raise EngineError(f"tensorrt-rtx: {refusal}")
    wanted = targets or (engine.own_target(),)
    for network in networks:
        model = b""
        for target in wanted:
            kept = engine.kept(target, network.example, precision, network.key, folder)
            found, begin, seconds = kept.read(), time.monotonic(), 0.0
            if found is None:
                with _naming(network, f" for {target} in {precision}"):
                    model = model or engine.exported(network.module, network.example, precision, wanted)
                    found = engine.built_for(target, model)
                kept.keep(found)
                seconds = time.monotonic() - begin
            yield Built(network.name, target, kept.path, len(found), seconds)


@contextmanager
def _naming(network: Network, where: str = "") -> Generator[None]:
    """Whatever is raised inside names the network."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{network.name}{where}: {error}") from error
