"""Many calls' drawings at once: rows of state, who advances, and that nothing of a person stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerators import FakeGpu
from device_calls import toy_drawing, toy_frame
from numpy.typing import NDArray

from engines.device.batch import Batch, sizes_of
from engines.device.drawing import ROW, Drawing, State
from engines.device.packet import Field, Layout
from engines.errors import EngineError

U8 = NDArray[np.uint8]


def drawn_alone(drawing: Drawing, frame: U8) -> U8:
    with torch.inference_mode():
        told = drawing.layout().unpack(torch.from_numpy(frame)[None])
        found = drawing.read(drawing.pictures(drawing.state, told).numpy()[0])
    assert found is not None
    return found


def test_a_packed_frame_is_read_as_it_was_told() -> None:
    layout = Layout([Field("a", (2, 3)), Field("mask", (5,), True), Field("b", (1,))])
    random = np.random.default_rng(0)
    frames = np.zeros((3, layout.size), np.uint8)
    told: list[dict[str, NDArray[np.generic]]] = [
        {"a": random.random((2, 3)).astype(np.float32), "mask": random.integers(0, 9, 5).astype(np.uint8),
         "b": np.array([k], np.float32)} for k in range(3)
    ]  # fmt: skip
    for values, frame in zip(told, frames, strict=True):
        layout.pack(values, frame)
    found = layout.unpack(torch.from_numpy(frames))
    for name in ("a", "mask", "b"):
        assert np.array_equal(found[name].numpy(), np.stack([values[name] for values in told]))


@pytest.mark.parametrize("wrong", [{"a": np.zeros(3)}, {"a": np.zeros(2), "b": np.zeros(1)}])
def test_what_is_told_must_be_what_the_layout_says(wrong: dict[str, NDArray[np.generic]]) -> None:
    layout = Layout([Field("a", (2,))])
    with pytest.raises(ValueError, match=r"a is|fields"):
        layout.pack(wrong, np.zeros(layout.size, np.uint8))


def test_batches_are_recorded_for_powers_of_two_and_for_all() -> None:
    assert sizes_of(1) == [1]
    assert sizes_of(6) == [1, 2, 4, 6]
    assert sizes_of(128) == [1, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.slow
def test_each_call_is_drawn_as_if_it_were_alone() -> None:
    calls = [toy_drawing(seed) for seed in range(3)]
    batch = Batch(calls[0], 4)
    rows = [batch.enter(call) for call in calls]
    assert rows == [0, 1, 2]
    assert batch.capacity == 4
    for turn, who in enumerate([[0], [2, 0], [1, 2, 0], [1]]):
        frames = {rows[k]: toy_frame(calls[k], 10 * turn + k) for k in who}
        shown = batch.draw(frames)
        assert list(shown) == [rows[k] for k in who]
        for k in who:
            alone = drawn_alone(calls[k], frames[rows[k]])
            found = shown[rows[k]]
            assert found is not None
            # sums in another order
            assert np.abs(found.astype(int) - alone).max() <= 1
            assert alone.std() > 10
    assert (
        np.abs(
            drawn_alone(calls[0], toy_frame(calls[0])).astype(int)
            - drawn_alone(calls[1], toy_frame(calls[1]))
        ).max()
        > 20
    )


def test_nothing_of_a_call_that_has_left_stays() -> None:
    call = toy_drawing()
    batch = Batch(call, 1)
    row = batch.enter(call)
    state = batch.state
    assert all(bool(t[row].any()) for t in state.tensors())
    batch.leave(row)
    assert not any(bool(t[row].any()) for t in state.tensors())
    assert batch.enter(call) == row


def test_a_full_batch_and_another_kind_of_call_are_refused() -> None:
    call = toy_drawing()
    batch = Batch(call, 1)
    batch.enter(call)
    with pytest.raises(EngineError, match="1 places"):
        batch.enter(call)
    with pytest.raises(EngineError, match="otherwise"):
        Batch(call, 2).enter(toy_drawing(size=48))


@pytest.mark.slow
def test_a_drawing_is_recorded_once_and_played_after_that() -> None:
    call, gpu = toy_drawing(), FakeGpu()
    batch = Batch(call, 2, gpu)
    batch.enter(call)
    batch.record()
    assert gpu.phases == ["warm_up", "capture"]
    frames = [toy_frame(call, seed) for seed in range(3)]
    for frame in frames:
        shown = batch.draw({0: frame})[0]
        assert shown is not None
        assert np.array_equal(shown, drawn_alone(call, frame))
    assert gpu.phases[2:] == ["replay"] * 3
    # another call: what was recorded reads where the state no longer is
    batch.enter(toy_drawing(1))
    batch.record()
    assert gpu.phases[5:] == ["warm_up", "capture"] * 2
    shown = batch.draw({0: frames[0]})[0]
    assert shown is not None
    assert np.array_equal(shown, drawn_alone(call, frames[0]))


def test_a_frame_without_room_is_not_used() -> None:
    call = toy_drawing()

    def full(person: object, told: object) -> tuple[torch.Tensor, torch.Tensor]:
        picture, _ = call.draw(person, told)  # pyright: ignore[reportArgumentType]
        return picture, torch.ones(len(picture), dtype=torch.bool)

    batch = Batch(replace(call, draw=full), 1)
    batch.enter(call)
    assert batch.draw({0: toy_frame(call)}) == {0: None}


@pytest.mark.parametrize("transparent", [False, True])
def test_pictures_have_what_their_kind_has(transparent: bool) -> None:
    call = toy_drawing(transparent=transparent)
    shown = drawn_alone(call, toy_frame(call))
    assert shown.shape == (64, 64, 4 if transparent else 3)
    assert [f.name for f in call.layout().fields] == [*(f.name for f in call.fields), ROW]


def test_rows_of_another_shape_are_refused() -> None:
    state, other = toy_drawing().state, toy_drawing(size=48).state
    with pytest.raises(ValueError, match="does not fit"):
        state.put(0, State(other.person, other.background))


BARE = """
import sys
for name in ("cv2", "safetensors", "safetensors.numpy", "av", "mediapipe", "openvino"):
    sys.modules[name] = None
sys.path.insert(0, "tests")
import engines.device.batch, engines.device.together, engines.device.schedule
import engines.device.geometric, engines.device.visavis, engines.device.window, device_calls
print("fine")
"""


def run(code: Sequence[str]) -> str:
    done = subprocess.run([sys.executable, "-c", *code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_drawing_needs_torch_and_numpy_alone() -> None:
    assert run([BARE]) == "fine\n"
