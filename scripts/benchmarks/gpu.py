"""Drawing on a GPU, measured in one run of under ten minutes: every generator, eager, compiled and as a CUDA graph.

    python -m scripts.benchmarks.gpu_calls me.avatar -o calls.pt     # where visavis is installed
    python3 -m scripts.benchmarks.gpu calls.pt --json gpu.json       # where the GPU is

The second needs torch and NumPy; generators with networks also OpenCV and safetensors, and are left out without them.
Several files can be given: all generators in one are some hundred MiB.
Latency is from a frame's bytes in memory to its picture in memory. Calls per GPU are what one frame of each in 1/30 s
leaves room for. Equality is with OpenCV's pictures, which the first command keeps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.compile.accelerator import Accelerator, NvidiaGpu
from engines.device.batch import Batch
from engines.device.drawing import Drawing, State
from engines.device.geometric import draw_geometric
from engines.device.packet import Field, Told
from engines.device.sizes import Head, Person, grids
from engines.errors import brief

U8 = NDArray[np.uint8]
Mode = Literal["eager", "compiled", "graph"]
MODES: tuple[Mode, ...] = ("eager", "compiled", "graph")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
BOUND = 2  # of 255, in fp32
RATE_HZ = 30.0
SECONDS = 540.0
_LEAST_ROUNDS, _MOST_ROUNDS, _ROUND_S = 5, 60, 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it is carried to the GPU: what lies there, frames as they are sent, and OpenCV's pictures of them.

    `networks`: blueprint and networks, by `torch.save`; empty without networks. `told_ms`: the CPU's part of a frame.
    """

    generator: str
    size_px: int
    sizes: Any
    state: State
    fields: tuple[Field, ...]
    frames: list[U8]
    wanted: list[U8]
    head: Head
    networks: bytes
    told_ms: float


@dataclass(slots=True)
class Row:
    """What was measured of one generator at one size; a mode or batch that is missing was not measured."""

    generator: str
    size_px: int
    told_ms: float
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    batch_ms: dict[int, float] = field(default_factory=dict[int, float])
    calls: int = 0
    largest: int | None = None
    beyond: float | None = None
    left_out: list[str] = field(default_factory=list[str])


def drawing_of(call: Call, device: torch.device) -> Drawing:
    """How its frames are drawn there. Raises ImportError where its networks cannot be made."""
    head = call.head.to(device)
    key = call.generator, call.size_px
    if call.networks:
        from scripts.benchmarks.gpu_calls import draw_with_networks

        return Drawing(key, draw_with_networks(call, head, device), call.state, call.fields, False)
    at = grids(call.sizes, device)

    def draw(person: Person, told: Told) -> tuple[Tensor, Tensor]:
        drawn = draw_geometric(head, person, told, at)
        return drawn.picture, drawn.full

    return Drawing(key, draw, call.state, call.fields, False)


def measure(
    call: Call,
    gpu: Accelerator | None,
    modes: Sequence[Mode],
    batches: Sequence[int],
    over: Callable[[], bool],
) -> Row:
    """`gpu` None: torch on the CPU, where a graph is no graph. `over`: whether time is up."""
    row = Row(call.generator, call.size_px, call.told_ms)
    device = torch.device("cpu") if gpu is None else gpu.device
    try:
        drawing = drawing_of(call, device)
    except ImportError as error:
        row.left_out.append(f"all of it: {brief(error)}")
        return row
    attempts: list[tuple[str, Callable[[], None]]] = [
        ("equality", lambda: _equality(row, call, drawing, gpu)),
        *((mode, lambda mode=mode: _latency(row, call, drawing, gpu, mode)) for mode in modes),
        *((f"batch {n}", lambda n=n: _batch(row, call, drawing, gpu, n)) for n in batches),
    ]
    for name, attempt in attempts:
        if over():
            row.left_out.append(f"{name}: time was up")
            continue
        try:
            attempt()
        except Exception as error:  # out of memory, a compiler that refuses
            row.left_out.append(f"{name}: {brief(error)}")
    fits = [n for n, ms in row.batch_ms.items() if ms <= 1e3 / RATE_HZ]
    row.calls = max((int(n * 1e3 / RATE_HZ / row.batch_ms[n]) for n in fits), default=0)
    return row


def _equality(row: Row, call: Call, drawing: Drawing, gpu: Accelerator | None) -> None:
    """In fp32 proper: convolutions in TF32 are not."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        batch = Batch(drawing, 1, gpu)
        place = batch.enter(drawing)
        off = [
            np.abs(found.astype(int) - wanted)
            for frame, wanted in zip(call.frames, call.wanted, strict=True)
            if (found := batch.draw({place: frame})[place]) is not None
        ]
    finally:
        torch.backends.cudnn.allow_tf32 = before
    if off:
        row.largest = max(int(o.max()) for o in off)
        row.beyond = float(np.mean([(o > BOUND).mean() for o in off]))


def _latency(row: Row, call: Call, drawing: Drawing, gpu: Accelerator | None, mode: Mode) -> None:
    if mode == "graph":
        batch = Batch(drawing, 1, gpu)
        place = batch.enter(drawing)
        batch.record()
        spent = _spent_ms([lambda f=f: batch.draw({place: f}) for f in call.frames])
    else:
        run = _as_it_is(drawing, gpu, compiled=mode == "compiled")
        spent = _spent_ms([lambda f=f: run(f) for f in call.frames])
    row.latency_ms[mode] = {"p50": statistics.median(spent), "p95": float(np.percentile(spent, 95))}


def _as_it_is(drawing: Drawing, gpu: Accelerator | None, *, compiled: bool) -> Callable[[U8], object]:
    device = torch.device("cpu") if gpu is None else gpu.device
    layout, state = drawing.layout(), drawing.state.to(device)
    pictures: Callable[[State, Told], Tensor] = drawing.pictures
    if compiled:
        pictures = torch.compile(pictures)

    def run(frame: U8) -> object:
        with torch.inference_mode():
            told = layout.unpack(torch.from_numpy(frame)[None].to(device))
            return drawing.read(pictures(state, told).cpu().numpy()[0])

    return run


def _batch(row: Row, call: Call, drawing: Drawing, gpu: Accelerator | None, count: int) -> None:
    batch = Batch(drawing, count, gpu)
    places = [batch.enter(drawing) for _ in range(count)]
    sets = [
        {place: call.frames[(k + place) % len(call.frames)] for place in places}
        for k in range(len(call.frames))
    ]
    row.batch_ms[count] = statistics.median(_spent_ms([lambda f=f: batch.draw(f) for f in sets]))


def _spent_ms(work: Sequence[Callable[[], object]]) -> list[float]:
    """Of single runs, warm; about a second of them."""
    for run in work[:2]:
        run()
    spent: list[float] = []
    begin = time.perf_counter()
    while len(spent) < _LEAST_ROUNDS or (
        len(spent) < _MOST_ROUNDS and time.perf_counter() - begin < _ROUND_S
    ):
        start = time.perf_counter()
        work[len(spent) % len(work)]()
        spent.append(1e3 * (time.perf_counter() - start))
    return spent


def table(rows: Sequence[Row], card: str) -> str:
    """As Markdown."""
    sizes = sorted({n for row in rows for n in row.batch_ms})
    heads = ["generator", "size", *(f"{m}, ms p50 / p95" for m in MODES), *(f"× {n}, ms" for n in sizes)]
    heads += ["calls at 30 fps", "largest off", "beyond 2/255", "CPU, ms"]
    lines = [f"{card}, torch {torch.__version__}", "", "| " + " | ".join(heads) + " |"]
    lines.append("|" + " --- |" * len(heads))
    for row in rows:
        latency = [row.latency_ms.get(mode) for mode in MODES]
        cells = [row.generator, f"{row.size_px}²"]
        cells += ["–" if ms is None else f"{ms['p50']:.2f} / {ms['p95']:.2f}" for ms in latency]
        cells += [f"{row.batch_ms[n]:.2f}" if n in row.batch_ms else "–" for n in sizes]
        cells += [str(row.calls) if row.batch_ms else "–", "–" if row.largest is None else str(row.largest)]
        cells += ["–" if row.beyond is None else f"{row.beyond:.1e}", f"{row.told_ms:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    left_out = [f"- {row.generator} {row.size_px}²: {reason}" for row in rows for reason in row.left_out]
    return "\n".join([*lines, *(["", "Left out:", *left_out] if left_out else [])])


def _read(path: Path) -> list[Call]:
    return torch.load(path, map_location="cpu", weights_only=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where there is no GPU to measure."""
    parser = argparse.ArgumentParser(description="measure drawing on a GPU")
    parser.add_argument("calls", type=Path, nargs="+", help="written by scripts.benchmarks.gpu_calls")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which nothing new is begun")
    parser.add_argument("--json", type=Path, help="where the numbers go as well")
    asked = parser.parse_args(arguments)
    gpu = NvidiaGpu() if asked.device == "cuda" else None
    refusal = gpu.refusal() if gpu is not None else None
    if refusal is not None:
        print(refusal, file=sys.stderr)
        return 2
    card = gpu.description() if gpu is not None else f"CPU, {platform.machine()}"
    end_s = time.monotonic() + asked.seconds
    rows: list[Row] = []
    for call in (call for path in asked.calls for call in _read(path)):
        rows.append(measure(call, gpu, asked.modes, asked.batches, lambda: time.monotonic() > end_s))
        print(table(rows[-1:], card), flush=True)  # what is there when the machine is taken away
        if gpu is not None:
            torch.cuda.empty_cache()
    print(table(rows, card))
    if asked.json is not None:
        told = {"card": card, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        asked.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    from scripts.benchmarks import gpu  # what is unpickled is of the module, not of the program

    sys.exit(gpu.main())
