"""Where the time of a step goes: the operations of a few steps, by torch's profiler."""

from __future__ import annotations

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

    def step(self) -> None:
        """After each step."""
        self._profile.step()

    def _write(self, seen: profile) -> None:
        order = "self_cuda_time_total" if self._on_gpu else "self_cpu_time_total"
        with writing(self._path):
            write_whole(self._path, seen.key_averages().table(sort_by=order, row_limit=_ROWS) + "\n")
