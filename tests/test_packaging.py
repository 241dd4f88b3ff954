"""What is packaged: one version, one range of Pythons, all data and licences, and messages true in a wheel."""

from __future__ import annotations

import ast
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from tree import MODULES, ROOT, named

from engines.compile.weights import NetworkKind
from streamer import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("engines", "calibration", "streamer")
PACKAGED = [path for path in MODULES if path.relative_to(ROOT).parts[0] in PACKAGES]


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "streamer.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pythons_are_the_same_everywhere() -> None:
    """pyproject, its classifiers, the set-up, the README and the installation page."""
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    minors = range(int(low), int(high))
    prefix = "Programming Language :: Python :: 3."
    named_minors = [
        int(c.removeprefix(prefix)) for c in PROJECT["project"]["classifiers"] if c.startswith(prefix)
    ]
    assert named_minors == list(minors)
    setup = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
    assert f"(3, {minors[0]}) <= sys.version_info < (3, {minors[-1] + 1})" in setup
    for document in ("README.md", "docs/install.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert f"Python 3.{minors[0]} to 3.{minors[-1]}" in text, document


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_beside_the_code_is_packaged(package: str) -> None:
    globs = PROJECT["tool"]["setuptools"]["package-data"][package]
    folder = ROOT / package
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    ]
    assert "py.typed" in files
    assert [name for name in files if not any(fnmatch(name, glob) for glob in globs)] == []


def test_the_licence_names_the_weights_terms() -> None:
    expression = PROJECT["project"]["license"]
    own = re.findall(r"LicenseRef-[\w.-]+", expression)
    assert (expression, own) == (f"MIT AND {own[0]}", own[:1])
    terms = (ROOT / "LICENSES" / f"{own[0]}.txt").read_text(encoding="utf-8")
    assert PROJECT["project"]["license-files"] == ["LICENSE", "LICENSES/*"]
    weights = {path.name for path in (ROOT / "engines/data").iterdir()}
    assert [name for name in sorted(weights) if name not in terms] == []


def messages(tree: ast.Module) -> list[str]:
    """Texts of a module, without docstrings; what is written in pieces is one text."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inner = {id(part) for text in joined for part in ast.walk(text) if part is not text}
    constants = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings | inner
    ]
    return constants + [ast.unparse(text) for text in joined]


@pytest.mark.parametrize("path", PACKAGED, ids=named)
def test_messages_that_name_scripts_say_where_they_are(path: Path) -> None:
    """A wheel holds no `scripts`: whoever installed one needs to know that a checkout is meant."""
    texts = messages(ast.parse(path.read_text(encoding="utf-8")))
    telling = [t for t in texts if re.search(r"\bscripts[./]", t) and not re.fullmatch(r"[\w.]+", t)]
    assert [text for text in telling if "in a checkout" not in text] == []


def test_the_way_out_of_bad_weights_is_for_everybody() -> None:
    way_out = NetworkKind("a", 1, "scripts.train").way_out
    assert way_out == "install visavis again, or in a checkout train anew: python -m scripts.train --help"


def test_messages_are_found() -> None:
    source = '''"""scripts/a"""
A = "scripts/b"
def f():
    """scripts/c"""
    raise X(f"{A} scripts/d " "e")
'''
    assert messages(ast.parse(source)) == ["scripts/b", "f'{A} scripts/d e'"]
