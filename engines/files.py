"""Files written whole or not at all: into a hidden neighbour, down to the disk, and only then under their name."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.errors import SinkError

PRIVATE = 0o600


class WholeFile:
    """A file in the making: write to `part`, then `keep` or `drop` it.

    Until `keep` whatever had the name `path` stays as it was; where that is a link, the link stays and what it leads
    to is written. Raises OSError, as writing does, also for what is no file: a folder, a pipe, a device.
    """

    def __init__(self, path: Path, *, mode: int = 0o666) -> None:
        """Make the hidden neighbour, empty, with `mode` less the umask."""
        if kind := not_a_file(path):
            # taking the name would take the thing away: of /dev/null for the whole computer
            raise OSError(errno.EINVAL, f"it is {kind}, no file")
        self.path = path = target_of(path)
        # the ending stays at the end: some writers choose their format by it, others append it where it is missing;
        # the stem does not stay whole: with what is added a long name would be longer than a file system takes
        self.part = path.with_name(f".{path.stem[:24]}.{secrets.token_hex(4)}.part{path.suffix}")
        os.close(os.open(self.part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def keep(self) -> None:
        """Give the file its name; some file systems notice a full disk only here."""
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)

    def drop(self) -> None:
        """Remove what was written; never raises, may be called after `keep` and again."""
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


def target_of(path: Path) -> Path:
    """Where writing to `path` writes: behind links, there or not. Raises OSError for links in a circle."""
    if not path.is_symlink():
        return path
    try:
        target = path.resolve()
    except RuntimeError as error:  # Python before 3.13 says so of a circle
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def not_a_file(path: Path) -> str | None:
    """What lies at `path` when it is neither a file nor nothing, through links; None when a file may be written."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    kinds = {
        "a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": stat.S_ISCHR,
        "a disk": stat.S_ISBLK,
    }  # fmt: skip
    return next((name for name, is_it in kinds.items() if is_it(mode)), None)


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Generator[Path]:
    """A path to write to that becomes `path` when the block ends well, and is removed when it does not."""
    file = WholeFile(path, mode=mode)
    try:
        yield file.part
        file.keep()
    finally:
        file.drop()


def write_whole(path: Path, data: bytes | str, *, mode: int = 0o666) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all. Raises OSError."""
    with whole_file(path, mode=mode) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


def require_apart(outputs: Mapping[str, Path | str | None], inputs: Mapping[str, Path | str | None]) -> None:
    """Raise SinkError where an output is one of the inputs or another output, through links too.

    `outputs` by the option that names them, `inputs` by what they are to the user; None and what is no file's name
    (a device, a keyword) are passed over.
    """
    taken = {what: Path(path) for what, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        for what, other in taken.items():
            if _same(Path(path), other):
                raise SinkError(f"{path} is {what} itself; choose another name with {option}")
        taken[f"what {option} names"] = Path(path)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)  # both are there: whatever they are called
    except OSError:
        with suppress(RuntimeError):  # links in a circle
            return one.resolve() == other.resolve()
        return False


def require_writable(path: Path, option: str, example: str) -> None:
    """Raise SinkError where no file can be written to `path`: known before the work, not after it.

    `option` is what the user would choose another place with, `example` a file name to show.
    """
    kind = not_a_file(path)
    if kind == "a folder":
        raise SinkError(f"{path} is a folder; name a file in it, such as {path / example}")
    if kind is not None:
        raise SinkError(f"{path} is {kind}, no file; choose another name with {option}")
    try:
        target = target_of(path)
    except OSError as error:
        raise SinkError(f"{why_not(path, error)}; choose another name with {option}") from error
    require_folder(target.parent, option)


def why_not(path: Path, error: OSError) -> str:
    """Half a sentence: why `target_of` finds no place behind `path`."""
    if error.errno == errno.ELOOP:
        return f"{path} is a link that leads in a circle"
    return f"{path} cannot be written ({error.strerror})"  # such as a name longer than names may be


def require_folder(folder: Path, option: str) -> None:
    """Raise SinkError where `folder` is missing or may not be written."""
    if not folder.is_dir():
        raise SinkError(f"the folder {folder} does not exist; make it with `mkdir -p {folder}`")
    if not os.access(folder, os.W_OK):
        raise SinkError(f"the folder {folder} may not be written; choose another with {option}")
