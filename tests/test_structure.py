"""The shape of the tree: no circles, no endless files, every family built alike, and the house plan is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from difflib import unified_diff
from itertools import pairwise
from pathlib import Path

import pytest
from tree import MODULES, ROOT, circle_in, dotted, imports_of_each, named

from scripts.house_plan import DOCUMENT, plan, shortened, with_plan

IMPORTS = imports_of_each()
FOLDERS = sorted({name.rpartition(".")[0] for name in IMPORTS})  # "" is the root

MOST_LINES = 400
REASON = f"Over {MOST_LINES} lines because "  # begins a line in the comment at the top of a file
LONG_FILES = MODULES + sorted(p for kind in ("*.js", "*.css") for p in (ROOT / "streamer/web").glob(kind))

# where a family lives, and the file of its contract; beside it stand `names` and `open`
FAMILIES = {
    "streamer/sources": "source",
    "streamer/sinks": "sink",
    "streamer/drive/trackers": "tracker",
    "engines/generators": "generator",
    "engines/compile": "engine",
    "engines/head": "model",
}
NAMES = [path for path in MODULES if path.name == "names.py"]
HEAVY = ("av", "cv2", "mediapipe", "numpy", "openvino", "torch")


def test_no_circle_among_modules() -> None:
    circle = circle_in(IMPORTS)
    assert not circle, " imports ".join(circle)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder or "root")
def test_no_circle_among_the_entries_of_a_folder(folder: str) -> None:
    """What a folder holds, files and sub-folders with all that is in them, can be put in one order."""
    inside = f"{folder}." if folder else ""

    def entry(module: str) -> str:
        return module.removeprefix(inside).split(".")[0] if module.startswith(inside) else ""

    graph: dict[str, set[str]] = {}
    because: dict[tuple[str, str], str] = {}
    for module, targets in IMPORTS.items():
        for target in targets:
            edge = entry(module), entry(target)
            if all(edge) and edge[0] != edge[1]:
                graph.setdefault(edge[0], set()).add(edge[1])
                because[edge] = f"{module} imports {target}"
    circle = circle_in(graph)
    assert not circle, "; ".join(because[edge] for edge in pairwise(circle))


def test_a_circle_would_be_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def says_why_it_is_long(path: Path, text: str) -> bool:
    if path.suffix == ".py":
        top = ast.get_docstring(ast.parse(text)) or ""
    else:
        found = re.match(r"/\*.*?\*/", text, re.DOTALL)
        top = found[0] if found else ""
    return any(line.lstrip(" /*").startswith(REASON) for line in top.splitlines())


def test_no_file_is_longer_than_a_reader_likes() -> None:
    """400 lines, or a line `Over 400 lines because …` in the comment at the top."""
    lines = {path: path.read_text(encoding="utf-8") for path in LONG_FILES}
    long = {named(p): len(t.splitlines()) for p, t in lines.items() if len(t.splitlines()) > MOST_LINES}
    bare = {name: n for name, n in long.items() if not says_why_it_is_long(ROOT / name, lines[ROOT / name])}
    assert not bare, f"split them, or say why at their top ({REASON}…): {bare}"


def test_a_reason_is_recognised() -> None:
    assert says_why_it_is_long(Path("a.py"), f'"""A table.\n\n{REASON}it is one table.\n"""\n')
    assert says_why_it_is_long(Path("a.css"), f"/* All colours.\n * {REASON}it is one table. */\n")
    assert not says_why_it_is_long(Path("a.py"), f'"""A table."""\n# {REASON}it is one table.\n')
    assert not says_why_it_is_long(Path("a.js"), f"let a;\n/* {REASON}it is one table. */\n")


@pytest.mark.parametrize("folder", FAMILIES)
@pytest.mark.parametrize("part", ["contract", "names", "open"])
def test_every_family_is_built_alike(folder: str, part: str) -> None:
    """The contract, a light list of names, and one `open_…` that gives a member by its name."""
    path = ROOT / folder / f"{FAMILIES[folder] if part == 'contract' else part}.py"
    assert path.is_file()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if part == "contract":
        assert any(isinstance(node, ast.ClassDef) for node in tree.body)
    elif part == "names":
        constants = [
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        ]
        assert [name for name in constants if name.endswith(("_NAMES", "_CHOICES"))]
    else:
        functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
        assert [name for name in functions if name.startswith("open_")]


@pytest.mark.parametrize("path", NAMES, ids=named)
def test_names_load_nothing_heavy(path: Path) -> None:
    code = f"import sys, {dotted(path)}; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    asked = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (asked.stdout.strip(), asked.stderr) == ("", "")


def test_the_house_plan_is_the_tree() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    differences = unified_diff(
        text.splitlines(), with_plan(text).splitlines(), "documented", "there", lineterm="", n=0
    )
    told = "\n".join(differences)
    assert not told, f"`python -m scripts.house_plan` mends it:\n{told}"


def test_the_house_plan_names_every_module() -> None:
    depths: list[str] = []
    there: set[str] = set()
    for row in plan().splitlines():
        name = row.split()[0]
        depth = (len(row) - len(row.lstrip())) // 2
        depths[depth:] = [name]
        if "." not in name and not name.endswith("/"):
            there.add("".join(depths))
    modules = {named(path).removesuffix(".py") for path in MODULES if path.name != "__init__.py"}
    assert there - {"scripts/run", "scripts/test"} == modules


def test_a_phrase_ends_with_a_thought() -> None:
    assert shortened("`Slot`: one value. Nothing queues.") == "`Slot`: one value"
    assert shortened("A mean (Casiez et al. 2012).") == "A mean (Casiez et al. 2012)"
    long = (
        "Speech (a microphone, a file, a call) becomes motion, heads "
        + "nod " * 12
        + "and phrases (long, short) turn"
    )
    assert shortened(long) == "Speech (a microphone, a file, a call) becomes motion"
