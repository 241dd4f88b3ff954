"""Write the tree of the code into docs/architecture.md: each folder and module with what its first line says."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from engines.files import write_whole

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
FOLDERS = ("engines", "calibration", "streamer", "scripts")
# folders that have no first line to quote
ALSO = {
    "engines/data": "What ships: {}",
    "streamer/data": "The demo: {}",
    "scripts": "What is typed, and what builds, trains and judges what ships",
    "streamer/web": "The page, without a build step; index.html says what it loads",
}
_BEGIN, _END = "<!-- tree: python -m scripts.house_plan -->\n```\n", "```\n<!-- end of tree -->\n"
_LEAST, _MOST = 24, 96  # characters of a phrase
_COLUMN = 30


def phrase(path: Path) -> str:
    """What a module, script or web file says it is, in one short phrase."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    elif path.suffix in (".js", ".css"):
        found = re.match(r"/\*+\s*(?:\*\s*)?([^\n]*?)\s*(?:\*/)?\n", text)
        first = found[1] if found else ""
    else:
        found = re.search(r"^# ([^!\n].*)$", text, re.MULTILINE)
        first = found[1] if found else ""
    return shortened(first.replace("`", ""))


def shortened(line: str) -> str:
    """The first thought of `line`, without what does not fit."""
    line = line.strip().rstrip(".")
    bare = re.sub(r"\([^)]*\)", lambda held: "_" * len(held[0]), line)  # never cut inside brackets
    bare = re.split(r"[.;] ", bare)[0]
    while len(bare) > _MOST:
        cut = max(bare.rfind(mark) for mark in (": ", ", ", " _"))
        if cut < _LEAST:
            break
        bare = bare[:cut]
    return line[: len(bare)]


def _rows(folder: Path, depth: int) -> Iterator[str]:
    name = folder.relative_to(ROOT).as_posix()
    package = folder / "__init__.py"
    if name in ALSO:
        said = ALSO[name].format(", ".join(sorted(p.name for p in folder.iterdir() if p.name[0] != ".")))
    else:
        said = phrase(package)
    yield _row(f"{folder.name}/", said, depth)
    entries = sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name))
    for entry in entries:
        if entry.is_dir() and (list(entry.rglob("*.py")) or entry.relative_to(ROOT).as_posix() in ALSO):
            yield from _rows(entry, depth + 1)
        elif entry.suffix in (".py", ".js", ".css", ".sh") and entry.name != "__init__.py":
            shown = entry.stem if entry.suffix == ".py" else entry.name
            yield _row(shown, phrase(entry), depth + 1)
        elif folder.name == "scripts" and entry.is_file() and not entry.suffix:
            yield _row(entry.name, phrase(entry), depth + 1)


def _row(name: str, said: str, depth: int) -> str:
    return f"{'  ' * depth + name:<{_COLUMN}} {said}".rstrip()


def plan() -> str:
    """The tree as text, one line for each folder and module."""
    return "\n".join(row for name in FOLDERS for row in _rows(ROOT / name, 0)) + "\n"


def with_plan(text: str) -> str:
    """The document `text` with its tree as it is now; raises ValueError when it has no place for one."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"docs/architecture.md has no lines {_BEGIN!r} and {_END!r}")
    return before + begin + plan() + end + after


def main() -> int:
    """Entry point."""
    write_whole(DOCUMENT, with_plan(DOCUMENT.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
