"""One step of a training: forward, backward, clip, optimiser, and what else learns; as it stands, or recorded.

Launching the kernels of a step one by one takes longer than running them. So a GPU records them once as a CUDA graph
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) and then repeats them on inputs that are copied
into the same place. What differs from step to step beside the inputs is what `Task.phase` says: each phase is
recorded for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, Literal, cast

import torch
from torch import Tensor, nn

from scripts.training.memory import is_out_of_memory
from scripts.training.task import B, Task
from scripts.training.values import GRADIENT, TOTAL

StepMode = Literal["eager", "graph", "compile"]
STEP_MODES: tuple[StepMode, ...] = ("eager", "graph", "compile")
# real steps before a phase is recorded: optimisers make their state and libraries choose their kernels in the first
WARM_UP = 3

Told = tuple[Sequence[str], Tensor]  # names, and (n,) numbers on the device
Work = Callable[[], Told]
Inputs = dict[str, Tensor]


class Step(Generic[B]):
    """A step as it stands: changes network and optimiser, gives its losses without waiting for the device."""

    def __init__(self, task: Task[B], network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.task, self._network, self._optimiser = task, network, optimiser

    def __call__(self, batch: B, step: int) -> Told:
        losses = self.losses(batch, step)
        total = torch.stack(list(losses.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        gradient = nn.utils.clip_grad_norm_(self._network.parameters(), self.task.most_gradient)
        self._optimiser.step()
        others = self.task.after_step(step)
        told = {TOTAL: total} | losses | others | {GRADIENT: gradient}
        return tuple(told), torch.stack([value.detach().float() for value in told.values()])

    def losses(self, batch: B, step: int) -> dict[str, Tensor]:
        """Of the task."""
        return self.task.losses(self._network, batch, step)


class CompiledStep(Step[B]):
    """A step whose losses go through torch.compile, once for each phase; as it stands where that fails."""

    def __init__(
        self,
        task: Task[B],
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(task, network, optimiser)
        self._say = say
        self._compiled: dict[Hashable, Callable[[B], dict[str, Tensor]]] = {}
        self._given_up = False

    def losses(self, batch: B, step: int) -> dict[str, Tensor]:
        if self._given_up:
            return super().losses(batch, step)
        phase = self.task.phase(step)
        if phase not in self._compiled:

            def of_phase(inputs: B) -> dict[str, Tensor]:
                return self.task.losses(self._network, inputs, step)

            self._compiled[phase] = cast(
                Callable[[B], dict[str, Tensor]], torch.compile(of_phase, dynamic=False)
            )
        try:
            return self._compiled[phase](batch)
        except Exception as error:  # the compiler raises many kinds
            if is_out_of_memory(error):
                raise
            self._given_up = True
            self._say(f"the step cannot be compiled ({_first_line(error)}); goes on as it stands, slower")
            return super().losses(batch, step)


class Recorder:
    """Records by remembering what to do, for devices without graphs: the same steps from the same places."""

    def warm_up(self, work: Work) -> Told:
        """Do `work` as recording will find it."""
        return work()

    def record(self, work: Work) -> Callable[[], Told]:
        """What does `work` again each time, without having done it yet."""
        return work


class GraphRecorder(Recorder):
    """Records CUDA graphs, which share their memory: each finds its inputs and leaves its numbers elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream(device)

    def warm_up(self, work: Work) -> Told:
        here = torch.cuda.current_stream(self._device)
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            told = work()
        here.wait_stream(self._side)
        return told

    def record(self, work: Work) -> Callable[[], Told]:
        graph = torch.cuda.CUDAGraph()
        # the threads that make batches go on meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            names, told = work()

        def again() -> Told:
            graph.replay()
            return names, told

        return again


class StaticStep(Generic[B]):
    """A step that `recorder` has recorded for each phase, on inputs that always lie in the same place.

    Batches must be dictionaries of tensors. Where recording fails it says so once and goes on with `step`.
    """

    def __init__(
        self, step: Step[B], device: torch.device, recorder: Recorder, say: Callable[[str], None]
    ) -> None:
        self._step, self._device, self._recorder, self._say = step, device, recorder, say
        self._inputs: dict[Hashable, Inputs] = {}
        self._recorded: dict[Hashable, Callable[[], Told]] = {}
        self._seen: Counter[Hashable] = Counter()
        self._given_up = False

    def __call__(self, batch: B, step: int) -> Told:
        if self._given_up:
            return self._step(batch, step)
        shapes = _shapes(batch)
        if shapes is None:
            return self._as_it_stands(batch, step, "its batches are no dictionaries of tensors")
        phase = self._step.task.phase(step), shapes
        if phase not in self._recorded and self._seen[phase] < WARM_UP:
            self._seen[phase] += 1
            return self._recorder.warm_up(lambda: self._step(batch, step))
        inputs = self._filled(shapes, cast(Inputs, batch))
        if phase not in self._recorded:
            try:
                # of all steps of the phase this one is kept: they differ by their inputs alone
                self._recorded[phase] = self._recorder.record(lambda: self._step(cast(B, inputs), step))
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return self._as_it_stands(batch, step, _first_line(error))
        names, told = self._recorded[phase]()
        return names, told.clone()  # the next repetition overwrites it

    def _as_it_stands(self, batch: B, step: int, reason: str) -> Told:
        self._given_up = True
        self._recorded.clear()
        self._inputs.clear()
        self._say(f"the step cannot be recorded as a CUDA graph ({reason}); goes on as it stands, slower")
        return self._step(batch, step)

    def _filled(self, shapes: Hashable, batch: Inputs) -> Inputs:
        if shapes not in self._inputs:
            self._inputs[shapes] = {
                name: torch.empty_like(tensor, device=self._device, memory_format=_layout(tensor))
                for name, tensor in batch.items()
            }
        places = self._inputs[shapes]
        for name, tensor in batch.items():
            places[name].copy_(tensor, non_blocking=True)
        return places


def open_step(
    mode: StepMode,
    task: Task[B],
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    say: Callable[[str], None],
) -> Callable[[B, int], Told]:
    """The step of `mode`; a graph needs a CUDA device, elsewhere the same step repeats without one."""
    if mode == "compile":
        return CompiledStep(task, network, optimiser, say)
    step = Step(task, network, optimiser)
    if mode == "eager":
        return step
    recorder = GraphRecorder(task.device) if task.device.type == "cuda" else Recorder()
    return StaticStep(step, task.device, recorder, say)


def _layout(tensor: Tensor) -> torch.memory_format:
    """Pictures channels last: convolutions are quicker so."""
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


def _shapes(batch: object) -> Hashable | None:
    if not isinstance(batch, Mapping):
        return None
    tensors = cast(Mapping[Any, Any], batch)
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return None
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
