"""Where the time of a step goes: the operations of a few steps, by torch's profiler."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from engines.files import write_whole
from scripts.training.disk import writing

# kernels are chosen and graphs recorded in the first steps
FIRST, WARM_UP, STEPS = 20, 2, 10
_ROWS = 40


class Profile:
    """Looks at `STEPS` steps from the `FIRST` on and writes the dearest operations to `path`; use with `with`."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._on_gpu = device.type == "cuda"
        self._steps: list[
            tuple[float, float]
        ] = []  # when each ended, and how long it had waited for its batch
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._on_gpu
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=FIRST, warmup=WARM_UP, active=STEPS, repeat=1),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> Profile:
        self._profile.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.__exit__(kind, error, trace)

    def step(self, waited_s: float) -> None:
        """After each step, which had waited for its batch."""
        self._steps.append((time.monotonic(), waited_s))
        self._profile.step()

    def _write(self, seen: profile) -> None:
        seen_steps = self._steps[-STEPS - 1 :]
        seconds = max(seen_steps[-1][0] - seen_steps[0][0], 1e-9)
        waited = sum(waited_s for _, waited_s in seen_steps[1:])
        head = (
            f"{len(seen_steps) - 1} steps in {seconds:.3f} s (slower than without this look), "
            f"{100 * waited / seconds:.0f} % of it waiting for batches\n"
        )
        order = "self_cuda_time_total" if self._on_gpu else "self_cpu_time_total"
        with writing(self._path):
            write_whole(self._path, head + seen.key_averages().table(sort_by=order, row_limit=_ROWS) + "\n")
