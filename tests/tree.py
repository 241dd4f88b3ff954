"""The source tree as data: its modules, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# each may import those before it
LAYERS = ("engines", "calibration", "streamer", "scripts")
MODULES = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))


def named(path: Path) -> str:
    """The path below the root, for ids and messages."""
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    """The module's name; a package's is its folder's."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[str]:
    """Absolute names of what a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which layer is meant"
            yield node.module or ""


def imports_of_each() -> dict[str, set[str]]:
    """Which modules of the tree each imports, at once or later; `from a import b` counts as `a` and `a.b`."""
    names = {dotted(path): path for path in MODULES}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wanted = set(imported(tree)) | {
            f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        graph[name] = (wanted & names.keys()) - {name}
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph, its first node again at the end; empty when there is none."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node not in done:
            for target in sorted(graph.get(node, ())):
                if found := visit(target, [*trail, node]):
                    return found
            done.add(node)
        return []

    for node in sorted(graph):
        if found := visit(node, []):
            return found
    return []
