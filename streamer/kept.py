"""`KeptAvatars`: avatars kept on this computer, each a file in one private folder, by name. Imports nothing slow."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from platformdirs import user_data_path

from engines.errors import VisavisError
from engines.files import PRIVATE, write_whole

ENVIRONMENT_FOLDER = "VISAVIS_AVATARS"
SUFFIX = ".avatar"
MOST_KEPT = 32
MOST_BYTES = 1 << 30
_PRIVATE_FOLDER = 0o700
_MOST_CHARACTERS, _MOST_NAME_BYTES = 40, 120
_FULL = (errno.ENOSPC, errno.EDQUOT)


class KeptError(VisavisError):
    """An avatar cannot be kept, found, renamed or deleted; the message names the fix."""


def kept_folder() -> Path:
    """Where kept avatars lie: `VISAVIS_AVATARS`, else the user's data folder (XDG)."""
    given = os.environ.get(ENVIRONMENT_FOLDER)
    return Path(given).expanduser() if given else user_data_path("visavis") / "avatars"


def shown_folder(folder: Path) -> str:
    """As people write it: with ~ for the home folder."""
    with suppress(ValueError, RuntimeError):
        return str(Path("~") / folder.relative_to(Path.home()))
    return str(folder)


def safe_name(text: str) -> str:
    """A name for a file and a command line out of whatever somebody typed: letters, digits, - and _."""
    name = ""
    for char in unicodedata.normalize("NFC", text.strip().removesuffix(SUFFIX)):
        # vowels of Hindi and tones of Thai are marks upon the letter before them
        is_mark = unicodedata.category(char).startswith("M") and name[-1:] not in ("", "-", "_")
        name += char if char.isalnum() or char == "_" or is_mark else "-"
    name = re.sub("-+", "-", name).strip("-_")[:_MOST_CHARACTERS]
    while len(name.encode()) > _MOST_NAME_BYTES:
        name = name[:-1]
    return name.strip("-_") or "avatar"


class KeptAvatars:
    """The avatars in `folder`. A name is only ever compared with what lies there: none becomes a path."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or kept_folder()

    def files(self) -> list[Path]:
        """The files in order of their names, broken ones too; none where there is no folder. Raises KeptError."""
        try:
            # what cannot be printed can be named by nobody
            found = [
                path
                for path in self.folder.iterdir()
                if path.suffix == SUFFIX and not path.name.startswith(".") and path.name.isprintable()
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeptError(
                f"the folder of kept avatars, {self.folder}, cannot be read ({error.strerror}); "
                f"choose another with {ENVIRONMENT_FOLDER}"
            ) from error
        return sorted(found, key=lambda path: path.stem.casefold())

    def find(self, name: str) -> Path | None:
        """The file of the avatar called `name`, upper and lower case alike where no other has that very name."""
        wanted = unicodedata.normalize("NFC", name.removesuffix(SUFFIX))
        named = {unicodedata.normalize("NFC", path.stem): path for path in self.files()}
        alike = [path for stem, path in named.items() if stem.casefold() == wanted.casefold()]
        return named.get(wanted) or (alike[0] if len(alike) == 1 else None)

    def get(self, name: str) -> Path:
        """As `find`; raises KeptError where there is none."""
        path = self.find(name)
        if path is None:
            raise KeptError(
                f"no avatar called {name!r:.80} is kept here; `visavis avatars` lists those that are"
            )
        return path

    def keep(self, name: str, data: bytes) -> Path:
        """Write an avatar's bytes under a free name like `name`. Raises KeptError, and leaves nothing then."""
        files = self.files()
        if len(files) >= MOST_KEPT:
            raise KeptError(f"{MOST_KEPT} avatars are kept already; delete one that you no longer need")
        if sum(_size(path) for path in files) + len(data) > MOST_BYTES:
            raise KeptError(
                f"the kept avatars take {MOST_BYTES >> 30} GB already; delete one that you no longer need"
            )
        stem, count = safe_name(name), 1
        try:
            self.folder.mkdir(_PRIVATE_FOLDER, parents=True, exist_ok=True)
            path = self.folder / f"{stem}{SUFFIX}"
            while self.find(path.stem) is not None or not _reserved(path):
                count += 1
                path = self.folder / f"{stem}-{count}{SUFFIX}"
            try:
                write_whole(path, data, mode=PRIVATE)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise KeptError(_not_written(error)) from error
        return path

    def rename(self, name: str, new: str) -> Path:
        """Another name for a kept avatar. Raises KeptError."""
        path = self.get(name)
        target = self.folder / f"{safe_name(new)}{SUFFIX}"
        if target.name == path.name:
            return path
        other = self.find(target.stem)
        try:
            if (other is not None and other != path) or not _reserved(target):
                raise KeptError(f"an avatar called {target.stem!r} is kept already; choose another name")
            try:
                path.replace(target)
            except OSError:
                target.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise KeptError(_not_written(error)) from error
        return target

    def delete(self, name: str) -> Path:
        """Remove its file. Raises KeptError."""
        path = self.get(name)
        try:
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise KeptError(_not_written(error)) from error
        return path


def _reserved(path: Path) -> bool:
    """Take the name `path`, unless somebody has it: two that keep at once overwrite nothing. Raises OSError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
    except FileExistsError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _not_written(error: OSError) -> str:
    if error.errno in _FULL:
        return (
            "there is no room left on this computer's disk; free some and try again, or download the avatar"
        )
    return (
        f"the folder of kept avatars cannot be written ({error.strerror}); set {ENVIRONMENT_FOLDER} to another folder "
        "and start again, or download the avatar"
    )
