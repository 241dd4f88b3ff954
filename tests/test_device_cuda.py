"""Drawing on a real NVIDIA GPU: the CPU's pictures, recorded, in batches, without waiting for the device.

Most of it needs torch for CUDA, NumPy and pytest alone; what draws with shipped networks also OpenCV and safetensors:

    python3 -m pytest -s -q --noconftest -p no:cacheprovider tests/test_device_cuda.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from device_calls import smooth, toy_drawing, toy_frame, toy_head
from numpy.typing import NDArray
from torch import Tensor

from engines.compile.accelerator import NvidiaGpu
from engines.device.batch import Batch
from engines.device.drawing import Drawing, State
from engines.device.filters import area
from engines.device.packet import Field, Told
from engines.device.sizes import Sizes, grids
from engines.device.together import Together
from engines.device.visavis import MOTION_SIZE, VisavisNets, VisavisPerson, VisavisSizes, draw_visavis

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that this torch can use"),
]

U8 = NDArray[np.uint8]
SIZE = 256
BOUND = 2  # of 255
# sums in another order tip a rounding or a choice between two triangles now and then
SHARE = 2e-4


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions as exact as the CPU's, for equality; a call has them in TF32, as torch has by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_cpu(drawing: Drawing, frame: U8) -> U8:
    batch = Batch(drawing)
    shown = batch.draw({batch.enter(drawing): frame})[0]
    assert shown is not None
    return shown


def apart(a: U8 | None, b: U8 | None) -> tuple[int, float]:
    """(largest difference, share of values beyond the bound)."""
    assert a is not None
    assert b is not None
    off = np.abs(a.astype(int) - b)
    return int(off.max()), float((off > BOUND).mean())


def both(seed: int, transparent: bool = False) -> tuple[Drawing, Drawing]:
    """A call as the CPU draws it and as the GPU does."""
    return (
        toy_drawing(seed, SIZE, transparent=transparent),
        toy_drawing(seed, SIZE, transparent=transparent, device="cuda"),
    )


@pytest.mark.parametrize("transparent", [False, True])
def test_the_gpu_draws_what_the_cpu_draws(transparent: bool) -> None:
    here, there = both(0, transparent)
    batch = Batch(there, 1, NvidiaGpu())
    row = batch.enter(there)
    for seed in range(6):
        frame = toy_frame(here, seed)
        most, share = apart(batch.draw({row: frame})[row], on_cpu(here, frame))
        print(f"frame {seed}: largest difference {most}, beyond the bound {share:.2e}")
        assert share < SHARE


def test_what_is_recorded_is_what_is_drawn_as_it_is() -> None:
    _, there = both(1)
    state = there.state.to(torch.device("cuda"))
    batch = Batch(there, 1, NvidiaGpu())
    row = batch.enter(there)
    for seed in range(4):
        frame = toy_frame(there, seed)
        with torch.inference_mode():
            told = there.layout().unpack(torch.from_numpy(frame)[None].cuda())
            eager = there.read(there.pictures(state, told).cpu().numpy()[0])
        most, share = apart(batch.draw({row: frame})[row], eager)
        assert (most, share) == (0, 0.0)


def test_drawing_never_waits_for_the_device() -> None:
    _, there = both(2)
    state = there.state.to(torch.device("cuda"))
    with torch.inference_mode():
        frame = torch.from_numpy(toy_frame(there))[None].cuda()
        there.pictures(state, there.layout().unpack(frame))  # small constants are put there once
        torch.cuda.set_sync_debug_mode("error")
        try:
            there.pictures(state, there.layout().unpack(frame))
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_only_who_advances_is_drawn_and_each_as_if_alone() -> None:
    calls = [both(seed) for seed in range(5)]
    batch = Batch(calls[0][1], 8, NvidiaGpu())
    rows = [batch.enter(there) for _, there in calls]
    batch.record()
    for turn, who in enumerate([[0], [4, 1, 2], [3, 2, 1, 0, 4], [2]]):
        frames = {rows[k]: toy_frame(calls[k][0], 10 * turn + k) for k in who}
        shown = batch.draw(frames)
        assert set(shown) == {rows[k] for k in who}
        for k in who:
            assert apart(shown[rows[k]], on_cpu(calls[k][0], frames[rows[k]]))[1] < SHARE


def test_calls_in_threads_of_their_own_get_their_own_pictures() -> None:
    calls = [both(seed) for seed in range(4)]
    them = Together(lambda: Batch(calls[0][1], 4, NvidiaGpu()), most=4, wait_ns=4_000_000)

    def call(k: int) -> list[float]:
        number, entered = them.enter(calls[k][1])
        entered.result(120)
        found: list[float] = []
        for seed in range(20):
            frame = toy_frame(calls[k][0], seed)
            found.append(apart(them.draw(number, frame), on_cpu(calls[k][0], frame))[1])
        them.leave(number)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert max(max(found) for found in pool.map(call, range(4))) < SHARE


def visavis(device: str) -> Drawing:
    """The default generator's networks for somebody who never was."""
    pytest.importorskip("cv2")
    pytest.importorskip("safetensors")
    from engines.generators.networked.blueprint import load_networks
    from engines.generators.visavis.blueprint import VisavisBlueprint

    blueprint, nets, _ = load_networks(VisavisBlueprint, VisavisBlueprint.weights_path())
    modules = [s.module.to(device) for s in blueprint.served(nets)]
    random = torch.Generator().manual_seed(7)
    sizes = VisavisSizes(Sizes(SIZE, SIZE))
    more = [f for f in sizes.fields(1) if f.name in ("motions", "crops", "crop_corner", "crop_box")]
    base = toy_drawing(3, SIZE, device=device, more=more)
    half = torch.from_numpy(area(SIZE, 128))[None]
    person = VisavisPerson(
        base.state.person,  # pyright: ignore[reportArgumentType]
        torch.randint(0, 1 << 24, (1, 2, 32 * 32), generator=random).int(),
        torch.tensor([[0, 0, SIZE]], dtype=torch.float64),
        half, half, torch.randn(1, 48, 32, 32, generator=random),
        smooth(random, 3, 96, 96), smooth(random, 6, 64, 64).unflatten(1, (2, 3)),
    )  # fmt: skip
    head = toy_head().to(torch.device(device))
    at = grids(sizes.base, torch.device(device))
    networks = VisavisNets(modules[0], modules[1], frozenset())

    def draw(person: Any, told: Told) -> tuple[Tensor, Tensor]:
        return draw_visavis(head, networks, person, told, sizes, at)

    fields: tuple[Field, ...] = base.fields
    assert any(f.shape == (2, MOTION_SIZE) for f in fields)
    return Drawing(("visavis", device), draw, State(person, base.state.background), fields, False)


def test_the_default_generators_networks_draw_alike_on_both() -> None:
    here, there = visavis("cpu"), visavis("cuda")
    batch = Batch(there, 1, NvidiaGpu())
    row = batch.enter(there)
    for seed in range(3):
        frame = toy_frame(here, seed)
        most, share = apart(batch.draw({row: frame})[row], on_cpu(here, frame))
        print(f"visavis, frame {seed}: largest difference {most}, beyond the bound {share:.2e}")
        assert share < 1e-3


def median_ms(run: Callable[[], object], times: int = 50) -> float:
    spent: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        spent.append(1e3 * (time.perf_counter() - start))
    return statistics.median(spent)


@pytest.mark.timing
def test_how_long_a_frame_takes() -> None:
    _, there = both(0)
    batch = Batch(there, 1, NvidiaGpu())
    row, frame = batch.enter(there), toy_frame(there)
    batch.record()
    print(
        f"geometric at {SIZE}², from memory to memory: {median_ms(lambda: batch.draw({row: frame})):.2f} ms"
    )
