"""What holds for the whole tree: imports go one way, and every module says what it is."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import LAYERS, MODULES, ROOT, imported, named

# what must not load before it is used: it is slow, optional, or needs a system library
LAZY = ("sounddevice", "pyvirtualcam", "matplotlib", "torch_tensorrt", "tensorrt")


def at_import_time(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported (not those inside functions or TYPE_CHECKING)."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        todo.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 40
    assert {p.relative_to(ROOT).parts[0] for p in MODULES} == set(LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_one_way(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    above = set(LAYERS[layer + 1 :]) | {"tests", "conftest", "fakes"}
    upward = [name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] in above]
    assert upward == []


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_says_what_it_is(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc
    assert len(doc.splitlines()[0]) > 20


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_everything_public_is_documented(path: Path) -> None:
    public = (
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"
    )
    bare = [node.name for node in public if not ast.get_docstring(node)]
    assert bare == []


@pytest.mark.parametrize("path", [p for p in MODULES if "scripts" not in p.parts], ids=named)
def test_slow_and_optional_libraries_load_when_they_are_used(path: Path) -> None:
    early = [
        alias
        for node in at_import_time(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in imported(node)
        if alias.split(".")[0] in LAZY
    ]
    assert early == []


def test_pyav_is_loaded_after_opencv() -> None:
    """Windows hang for ever otherwise: streamer/pyav.py."""
    early = [
        f"{named(path)}: {name}"
        for folder in ("sources", "sinks")
        for path in sorted((ROOT / "streamer" / folder).glob("*.py"))
        for name in imported(ast.parse(path.read_text()))
        if name.split(".")[0] == "av"
    ]
    assert early == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("script", ["scripts/run", "scripts/test", ".ci/run"])
def test_commands_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_the_packages_that_are_built_are_the_packages_there_are() -> None:
    import tomllib

    from setuptools import find_packages

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = set(
        find_packages(str(ROOT), include=settings["tool"]["setuptools"]["packages"]["find"]["include"])
    )
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in MODULES}
    assert built == {name for name in there if not name.startswith("scripts")}
