"""Train the regressor on a crop cache (`scripts/regressor/crops.py`) and write its weights.

python scripts/train_regressor.py CACHE -o engines/data/regressor.safetensors --minutes 40 [--resume FILE]

Losses of the thesis (3D head 50, reprojection 0.1, shape 1, regularisation 1) and ours for expression, gaze,
closure and confidence. A fifth of the people, by name, is held out; the table printed at the end is theirs.
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import numpy as np
import torch
from torch import Tensor

from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.model import MODEL_PATH, load_head_model
from engines.head.regressor.file import save_regressor
from engines.head.regressor.network import NetShape, RegressorNet
from engines.head.regressor.prediction import face_basis
from scripts.people.tracks import is_held_out
from scripts.regressor.crops import read_cache
from scripts.regressor.regression import (
    Batch,
    Samples,
    TorchBasis,
    collate,
    frame_weights,
    losses,
    mirror_of,
    mirror_points,
    read_labels,
)

HEAD_POINTS = 256  # beside the landmarks: ears, skull, neck
PORTRAIT_SHARE = 0.25
NO_FACE_SHARE = 0.25
WARM_UP_STEPS = 300
CHECKPOINT_S = 180.0
FINAL_RATE = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a run."""

    batch: int
    rate: float
    minutes: float
    seed: int
    workers: int
    bf16: bool


# --- drawing -------------------------------------------------------------------------------------


class Draw:
    """Rows of training people: pairs of one person, clips and portraits in a fixed share."""

    def __init__(self, samples: Samples) -> None:
        crops = samples.crops
        subject = np.unique(crops.subjects, return_inverse=True)[1][crops.item]
        held_out = np.array([is_held_out(s) for s in crops.subjects])[crops.item]
        is_portrait = np.array([k == "portrait" for k in crops.kinds])[crops.item]
        weight = np.where(held_out, 0.0, frame_weights(samples.labels))
        # long clips count less than their length
        counts = np.bincount(crops.item, weight > 0, minlength=len(crops.names))[crops.item]
        weight = weight / np.sqrt(np.maximum(counts, 1))
        for kind, share in ((is_portrait, PORTRAIT_SHARE), (~is_portrait, 1 - PORTRAIT_SHARE)):
            total = weight[kind].sum()
            weight[kind] *= share / total if total else 0.0
        self.rows = np.flatnonzero(weight)
        self._sum = np.cumsum(weight[self.rows]) / weight.sum()
        self._own = {s: self.rows[subject[self.rows] == s] for s in np.unique(subject[self.rows])}
        self._subject = subject

    def pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two rows of one person (the same row twice when there is no other)."""
        first = int(self.rows[min(np.searchsorted(self._sum, rng.random()), len(self.rows) - 1)])
        return first, int(rng.choice(self._own[self._subject[first]]))


def batches(samples: Samples, plan: Plan, seed: int, stop: threading.Event) -> Iterator[tuple[Tensor, Batch]]:
    """Endless batches (B, 3, 128, 128) with targets, made by `plan.workers` threads."""
    ready: queue.Queue[tuple[Tensor, Batch] | BaseException] = queue.Queue(4)
    draw = Draw(samples)
    empty = round(plan.batch * NO_FACE_SHARE)

    def work(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        try:
            while not stop.is_set():
                rows = [row for _ in range((plan.batch - empty) // 2) for row in draw.pair(rng)]
                faces = [samples.face(row, rng) for row in rows]
                others = [samples.no_face(int(rng.choice(draw.rows)), rng) for _ in range(empty)]
                images = np.stack([crop for crop, _ in faces] + others).transpose(0, 3, 1, 2)
                item = torch.from_numpy(np.ascontiguousarray(images)), collate([t for _, t in faces])
                while not stop.is_set():
                    try:
                        ready.put(item, timeout=1)
                        break
                    except queue.Full:
                        continue
        except BaseException as error:
            ready.put(error)

    for number in range(plan.workers):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item


# --- training ------------------------------------------------------------------------------------


def rate_at(plan: Plan, step: int, elapsed_s: float) -> float:
    """Learning rate: warm-up by steps, then a cosine over the time budget."""
    share = min(1.0, elapsed_s / (60 * plan.minutes))
    cosine = FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * share)) / 2
    return plan.rate * cosine * min(1.0, (step + 1) / WARM_UP_STEPS)


def follow(average: RegressorNet, net: RegressorNet, step: int) -> None:
    """Exponential moving average of weights and statistics, quicker at the start."""
    keep = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    names = [n for n in Batch.__slots__ if n != "faces"]
    return replace(batch, **{n: getattr(batch, n).to(device, non_blocking=True) for n in names})


def train(samples: Samples, plan: Plan, folder: Path, resume: Path | None) -> tuple[RegressorNet, float]:
    """The averaged network and the minutes spent on it in all; checkpoints and a log under `folder`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(plan.seed)
    net = RegressorNet(NetShape(identity_count=len(samples.basis.identity_hu)), norm=True)
    net = net.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(net).eval()
    optimiser = torch.optim.AdamW(net.parameters(), plan.rate, weight_decay=0.02)
    step, elapsed_s = 0, 0.0
    if resume:
        state: dict[str, Any] = torch.load(resume, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, elapsed_s = int(state["step"]), float(state["elapsed_s"])
        print(f"goes on from step {step}, {elapsed_s / 60:.1f} minutes", flush=True)
    basis = TorchBasis.of(samples.basis, device)
    spread = torch.from_numpy(samples.labels.expression.std(0) + 0.05).to(device)
    stop = threading.Event()
    begun, saved, logged = time.monotonic() - elapsed_s, time.monotonic(), time.monotonic()
    sums: dict[str, float] = {}
    new = not (folder / "log.csv").exists() or resume is None
    log = (folder / "log.csv").open("w" if new else "a", newline="")
    table = csv.writer(log)
    last_step = step

    def save() -> None:
        part = folder / "last.pt.part"
        torch.save(
            {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict(),
             "step": step, "elapsed_s": elapsed_s}, part,
        )  # fmt: skip
        part.replace(folder / "last.pt")

    net.train()
    try:
        for images, targets in batches(samples, plan, plan.seed + step, stop):
            elapsed_s = time.monotonic() - begun
            if elapsed_s > 60 * plan.minutes:
                break
            for group in optimiser.param_groups:
                group["lr"] = rate_at(plan, step, elapsed_s)
            x = images.to(device).float().div_(255).to(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
                raw = net(x)
            parts = losses(raw.float(), net.layout, to_device(targets, device), basis, spread)
            total = torch.stack(list(parts.values())).sum()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            follow(average, net, step)
            step += 1
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            now = time.monotonic()
            if now - logged > 20:
                done = step - last_step
                means = {name: value / done for name, value in sums.items()}
                if new:
                    table.writerow(["step", "minutes", "samples_per_s", *means])
                    new = False
                speed = done * plan.batch / (now - logged)
                table.writerow(
                    [step, f"{elapsed_s / 60:.2f}", f"{speed:.0f}", *(f"{v:.4f}" for v in means.values())]
                )
                log.flush()
                words = " ".join(f"{name} {value:.3f}" for name, value in means.items())
                print(f"step {step} {elapsed_s / 60:5.1f} min {speed:4.0f}/s  {words}", flush=True)
                sums, last_step, logged = {}, step, now
            if now - saved > CHECKPOINT_S:
                save()
                saved = now
    finally:
        stop.set()
        log.close()
    save()
    return average, elapsed_s / 60


def load_samples(cache: Path) -> Samples:
    """Crops, labels and the shipped head model."""
    basis = face_basis(load_head_model(), more=HEAD_POINTS)
    mirror = mirror_of(basis, mirror_points(basis.mean_hu[:LANDMARK_COUNT]))
    return Samples(read_cache(cache), read_labels(cache / "labels.npz"), basis, mirror)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cache", type=Path, help="folder that scripts.regressor.crops has filled and labelled"
    )
    parser.add_argument("-o", "--output", type=Path, help="weights file; left out: none is written")
    parser.add_argument("--minutes", type=float, default=40, help="time budget, resumed time included")
    parser.add_argument("--resume", type=Path, help="go on from this checkpoint")
    parser.add_argument("--runs", type=Path, default=Path("runs/regressor"), help="checkpoints and log")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: all cores")
    parser.add_argument("--workers", type=int, default=1, help="threads that make batches")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16")
    parser.add_argument("--frames", type=int, default=1000, help="held-out frames in the table")
    parser.add_argument("--mediapipe-frames", type=int, default=400, help="of these, seen by MediaPipe again")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # pictures are made in threads of our own
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    samples = load_samples(arguments.cache)
    plan = Plan(
        arguments.batch,
        arguments.rate,
        arguments.minutes,
        arguments.seed,
        arguments.workers,
        not arguments.fp32,
    )
    print(f"{len(samples.crops.jpegs)} crops, {len(set(samples.crops.subjects))} people; {plan}", flush=True)
    net, minutes = train(samples, plan, arguments.runs, arguments.resume)
    net = net.cpu().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    if arguments.output:
        notes: dict[str, str | float] = {
            "minutes": round(minutes, 1),
            "head_model_sha256": sha256(
                MODEL_PATH.read_bytes()
            ).hexdigest(),  # α and β mean this model's modes
        }
        save_regressor(
            arguments.output, net, "MIT; trained on clips of which most allow research only", notes
        )
        print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")
    # here, not above: the table needs OpenVINO and MediaPipe, training does not
    from scripts.regressor.table import measure, print_table

    print_table(measure(samples, net, arguments.frames, arguments.mediapipe_frames))


if __name__ == "__main__":
    main()
