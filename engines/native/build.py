"""Sources → a shared library for this computer, kept in the cache under a digest of all that it is made from."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engines.errors import EngineError, brief
from engines.files import write_whole

HERE = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")  # MSVC knows no vector types
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-unused-function",
)
FOR_THIS_CPU = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
_WITHIN_S = 120.0


def library_folder() -> Path:
    """Where libraries are kept between starts."""
    from platformdirs import user_cache_path  # a machine for training has none, nor a compiler

    return user_cache_path("visavis", appauthor=False) / "native"


def sources() -> list[Path]:
    """What a library is made from, in order."""
    return sorted([*HERE.glob("*.c"), *HERE.glob("*.h")])


def find_compiler() -> list[str]:
    """The command of a C compiler: `$CC`, else the first of `COMPILERS`. Raises EngineError where there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in ([named] if named else []) + [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise EngineError("no C compiler, so OpenCV draws, which is slower; sudo apt-get install gcc libc6-dev")


def library_path(compiler: list[str]) -> Path:
    """Where the library of these sources, this compiler and this CPU lies or will lie. Raises EngineError where
    nothing says where libraries are kept."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    where = shutil.which(compiler[0]) or compiler[0]
    stamp = Path(where).stat()
    digest.update(
        repr((compiler, where, stamp.st_size, stamp.st_mtime_ns, FLAGS, sys.platform, _cpu())).encode()
    )
    return library_folder() / f"{digest.hexdigest()[:32]}.so"


def _cpu() -> str:
    """What tells this CPU's instructions from another's: a cache may be shared between computers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    return platform.machine() + " ".join(
        sorted({x for x in lines if x.startswith(("model name", "flags", "Features"))})
    )


def is_whole(path: Path) -> bool:
    """Whether the library at `path` is there, and as it was made."""
    try:
        kept = path.with_suffix(".sha256").read_text(encoding="ascii")
        return kept == _digest(path.read_bytes())
    except (OSError, UnicodeDecodeError):
        return False


def _digest(library: bytes) -> str:
    return hashlib.sha256(library).hexdigest()


def build(path: Path, compiler: list[str]) -> None:
    """Compile to `path`, at once or not at all: another process may be at it too. Raises EngineError."""
    units = [str(p) for p in sources() if p.suffix == ".c"]
    told = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            for own in FOR_THIS_CPU:
                command = [*compiler, *FLAGS, *own, *units, "-o", str(made), "-lm"]
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=_WITHIN_S,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
                if done.returncode == 0 and made.is_file():
                    # the digest last: a library that is not whole is never loaded, for that could end the process
                    digest = _digest(made.read_bytes())
                    made.replace(path)
                    write_whole(path.with_suffix(".sha256"), digest)
                    return
                told = done.stderr.strip() or f"it ended with {done.returncode}"
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"drawing could not be compiled, so OpenCV draws: {brief(error)}") from error
    raise EngineError(f"drawing could not be compiled, so OpenCV draws: {told.splitlines()[0]}")
