"""On a machine that has Python, torch, NumPy, SciPy and Pillow alone: unpack, make pairs, train, leave results.

    python3 train_there.py ARCHIVES --work WORK --out OUT --generators visavis --seconds 500

ARCHIVES is the folder that `scripts.pack` made, or as much of it as has arrived: what comes later is unpacked by the
next call, which also goes on with pairs and training. Each generator trains in turn for its share of the seconds,
while pairs are still being made. OUT gets files of at most 16 MB: the averaged weights, a tar of log, figures and
picture, and with --state the whole checkpoint in parts. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

PACK_FORMAT, PACK_VERSION = "visavis-pack", 1
PACK = "pack.json"
RECOGNITION = "recognition"  # folder of nets that generators learn from, where they were brought
PART_BYTES = 15 << 20
FIRST_PAIRS_S = 600.0  # so long a training waits for the first of them


class ThereError(Exception):
    """It cannot go on; one sentence that names the fix."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, help="folder that scripts.pack made, or what has come of it")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made here")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--generators", nargs="+", default=["visavis"])
    parser.add_argument("--seconds", type=float, default=300, help="of training, all generators together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that make pairs")
    parser.add_argument(
        "--train", default="", help='what else each training is told, in quotes: "--batch 96"'
    )
    parser.add_argument("--state", action="store_true", help="leave the checkpoints too, in parts")
    given = parser.parse_args()
    try:
        run(given)
    except ThereError as error:
        sys.exit(f"train_there: {error}")


def run(given: argparse.Namespace) -> None:
    """As the command line says. Raises ThereError."""
    for folder in (given.work, given.out):
        folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    come, missing = unpack(given.archives, given.work)
    say(
        f"{come} archives here after {time.monotonic() - begun:.0f} s"
        + (f", {missing} to come" if missing else "")
    )
    environment = environment_of(given.work)
    pairs = start_pairs(given.work, given.jobs, environment)
    try:
        wait_for_first(given.work / "pairs", pairs)
        share = given.seconds / len(given.generators)
        for generator in given.generators:
            train(given.work, generator, share, given.train.split(), environment)
            leave(given.work / "runs" / generator, generator, given.out, state=given.state)
    finally:
        end(pairs)
    made = len(list((given.work / "pairs").glob("*.safetensors")))
    say(f"{made} items with pairs, {time.monotonic() - begun:.0f} s in all; results in {given.out}")
    for path in sorted(given.out.iterdir()):
        say(f"  {path.name} {path.stat().st_size / 1e6:.1f} MB")


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


# --- archives --------------------------------------------------------------------------------------


def unpack(archives: Path, work: Path) -> tuple[int, int]:
    """(how many archives are unpacked now, how many have not come). Each is unpacked once. Raises ThereError."""
    try:
        pack = json.loads((archives / PACK).read_text(encoding="utf-8"))
        known = pack["format"] == PACK_FORMAT and pack["version"] == PACK_VERSION
        listed = [(str(a["name"]), str(a["sha256"])) for a in pack["archives"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ThereError(
            f"{archives / PACK} cannot be read ({error}); pack again: python -m scripts.pack"
        ) from error
    if not known:
        raise ThereError(f"{archives} was packed by another visavis; pack again: python -m scripts.pack")
    marks = work / "unpacked"
    marks.mkdir(exist_ok=True)
    missing = 0
    for number, (name, digest) in enumerate(listed):
        path, mark = archives / name, marks / digest
        if mark.exists():
            continue
        if not path.is_file():
            if number == 0:
                raise ThereError(f"{path} has not come, and everything else needs it; bring it first")
            missing += 1
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ThereError(f"{path} is damaged or of another pack; bring it again")
        try:
            with tarfile.open(path) as tar:
                tar.extractall(work, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise ThereError(
                f"{path} cannot be unpacked into {work} ({error}); free space, or bring it again"
            ) from error
        mark.touch()
    return len(listed) - missing, missing


def environment_of(work: Path) -> dict[str, str]:
    """Variables with which Python finds what was brought, and stand-ins and libraries only where there are none."""
    used = work / "used"
    shutil.rmtree(used, ignore_errors=True)
    (used / "lib").mkdir(parents=True)
    (used / "python").mkdir()
    for stub in sorted((work / "stubs").iterdir()) if (work / "stubs").is_dir() else ():
        if importlib.util.find_spec(stub.stem) is None:
            (used / "python" / stub.name).symlink_to(stub.resolve())
    try:
        listing = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        listing = ""
    for library in sorted((work / "lib").iterdir()) if (work / "lib").is_dir() else ():
        if f"\t{library.name} " not in listing:
            (used / "lib" / library.name).symlink_to(library.resolve())
    here = work.resolve()
    python = [here / "code", here / "site", used.resolve() / "python"]
    libraries = [str(used.resolve() / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, python)),
        "LD_LIBRARY_PATH": os.pathsep.join(p for p in libraries if p),
        "VISAVIS_MODELS": str(here / "models"),
        "PYTHONUNBUFFERED": "1",
        "GLOG_minloglevel": "2",
        "OPENCV_LOG_LEVEL": "ERROR",
    }


# --- pairs and training ----------------------------------------------------------------------------


def start_pairs(work: Path, jobs: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Make what is missing of the pairs, of all data that has come, beside everything else."""
    folders = sorted(str(p) for p in (work / "data").iterdir()) if (work / "data").is_dir() else []
    if not folders:
        raise ThereError("no archive with data has come; bring the next ones too")
    command = [
        sys.executable, "-m", "scripts.generators.pairs", *folders, "-o", str(work / "pairs"),
        "--jobs", str(jobs),
    ]  # fmt: skip
    with (work / "pairs.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=work / "code", env=environment | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def wait_for_first(pairs: Path, made: subprocess.Popen[bytes]) -> None:
    """Until there is somebody to train on; people held out come first. Raises ThereError when there never will be."""
    end_s = time.monotonic() + FIRST_PAIRS_S
    while not any(teaches(path) for path in pairs.glob("*.safetensors")):
        if made.poll() not in (None, 0) or time.monotonic() > end_s:
            raise ThereError(f"no pairs were made; see {pairs.parent / 'pairs.log'}")
        if made.poll() == 0:
            break
        time.sleep(0.5)


def teaches(item: Path) -> bool:
    """Whether a file of pairs is of somebody who is not held out; by its header, as safetensors writes it."""
    try:
        with item.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 1 << 24)))
        return not json.loads(header["__metadata__"]["visavis"])["held_out"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def train(work: Path, generator: str, seconds: float, more: list[str], environment: dict[str, str]) -> None:
    """Train `generator` for so long, from where it stopped before. Raises ThereError."""
    folder = work / "runs" / generator
    folder.mkdir(parents=True, exist_ok=True)
    command = training(work, generator, folder, more)
    say(f"{generator}: training for {seconds:.0f} s")
    with (work / f"train-{generator}.log").open("ab") as log:
        child = subprocess.Popen(
            command, cwd=work / "code", env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGTERM)  # it saves, and ends
            child.wait()
        finally:
            end(child)
    tail = (work / f"train-{generator}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
    for line in tail:
        say(f"  {line}")
    if child.returncode not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise ThereError(f"{generator}: training ended with {child.returncode}: {tail[-1] if tail else ''}")


def training(work: Path, generator: str, folder: Path, more: list[str]) -> list[str]:
    """The command that trains `generator`; `more` has the last word."""
    nets = ["--recognition", str((work / RECOGNITION).resolve())] if (work / RECOGNITION).is_dir() else []
    return [
        sys.executable, "-m", "scripts.train", str(work / "pairs"), "--generator", generator,
        "--runs", str(folder), "-o", str(folder / "best.safetensors"), "--minutes", "1e9", *nets, *more,
    ]  # fmt: skip


def end(child: subprocess.Popen[bytes]) -> None:
    """With all of its processes."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


# --- results ---------------------------------------------------------------------------------------


def leave(folder: Path, generator: str, out: Path, *, state: bool) -> None:
    """Weights as they are, tables and picture as one tar; the checkpoint in parts that `cat` joins."""
    weights = folder / "best.safetensors"
    if weights.exists():
        in_parts(weights, out / f"{generator}.safetensors")
    with tarfile.open(out / f"{generator}.tar", "w") as tar:
        for name in ("log.csv", "judged.csv", "grid.png", "curves.png", "profile.txt"):
            if (folder / name).exists():
                tar.add(folder / name, f"{generator}/{name}")
        for log in sorted(folder.parent.parent.glob(f"train-{generator}.log")):
            tar.add(log, f"{generator}/train.log")
    if state and (folder / "last.pt").exists():
        in_parts(folder / "last.pt", out / f"{generator}.state")


def in_parts(source: Path, target: Path) -> None:
    """Copy, in parts `.00`, `.01` … where it is larger than one may be."""
    for old in (*target.parent.glob(f"{target.name}.[0-9][0-9]"), target):
        old.unlink(missing_ok=True)
    data = source.read_bytes()
    if len(data) <= PART_BYTES:
        target.write_bytes(data)
        return
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        part = target.with_name(f"{target.name}.{number:02d}")
        part.write_bytes(data[start : start + PART_BYTES])


if __name__ == "__main__":
    main()
