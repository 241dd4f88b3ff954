"""Train the regressor on a crop cache (`scripts/regressor/crops.py`) and write its weights.

python scripts/train_regressor.py CACHE -o engines/data/regressor.safetensors --minutes 40 [--resume FILE]

Losses of the thesis (3D head 50, reprojection 0.1, shape 1, regularisation 1) and ours for expression, gaze,
closure and confidence. A fifth of the people, by name, is held out; the table printed at the end is theirs.
"""

from __future__ import annotations

import argparse
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import cv2
import torch

from engines.compile.precision import bfloat16_pays
from engines.errors import VisavisError
from engines.head.landmark_names import LANDMARK_COUNT
from engines.head.model import MODEL_PATH, load_head_model
from engines.head.regressor.file import save_regressor
from engines.head.regressor.network import RegressorNet
from engines.head.regressor.prediction import face_basis
from scripts.regressor.crops import read_cache
from scripts.regressor.regression import Samples, mirror_of, mirror_points, read_labels
from scripts.regressor.task import RegressorTask
from scripts.training.loop import train
from scripts.training.memory import keep_freed_memory
from scripts.training.state import Settings

HEAD_POINTS = 256  # beside the landmarks: ears, skull, neck
LICENCE = "MIT; trained on clips of which most allow research only"


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
    try:
        run(arguments)
    except VisavisError as error:
        print(f"train_regressor: {error}", file=sys.stderr)
        sys.exit(1)


def run(arguments: argparse.Namespace) -> None:
    """Train as the command line says, write the weights and print the table. Raises TrainingError."""
    cv2.setNumThreads(1)  # pictures are made in threads of our own
    keep_freed_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    samples = load_samples(arguments.cache)
    settings = Settings(
        arguments.minutes, arguments.batch, arguments.rate, arguments.seed, workers=arguments.workers
    )
    print(
        f"{len(samples.crops.jpegs)} crops, {len(set(samples.crops.subjects))} people; {settings}", flush=True
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = RegressorTask(samples, settings, device, bf16=bfloat16_pays(device) and not arguments.fp32)
    trained = train(task, settings, arguments.runs, resume=arguments.resume)
    net = trained.average.cpu().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    assert isinstance(net, RegressorNet)
    if arguments.output:
        # α and β mean the modes of this head model
        head_model = sha256(MODEL_PATH.read_bytes()).hexdigest()
        notes = {
            "steps": trained.steps, "minutes": round(trained.minutes, 1), "head_model_sha256": head_model,
        }  # fmt: skip
        save_regressor(arguments.output, net, LICENCE, notes)
        print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")
    # here, not above: the table needs OpenVINO and MediaPipe, training does not
    from scripts.regressor.table import measure, print_table

    print_table(measure(samples, net, arguments.frames, arguments.mediapipe_frames))


if __name__ == "__main__":
    main()
