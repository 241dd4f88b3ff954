"""The set-up says how much it will fetch before it does, and stops where that cannot fit; then it is silent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None or os.name != "posix", reason="the set-up is a bash script")


def told(
    folder: Path, free_mb: int | str, kind: str = "run", **environment: str
) -> subprocess.CompletedProcess[str]:
    """What `tell_size` says in a checkout at `folder` on a disk with so much room."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    df = tools / "df"
    df.write_text(f"#!/bin/sh\necho 'Filesystem 1M Used Available'\necho '/dev/x 1 1 {free_mb} 1% /'\n")
    df.chmod(0o755)
    scripts = folder / "scripts"
    scripts.mkdir(exist_ok=True)
    shutil.copy(ROOT / "scripts/setup.sh", scripts / "setup.sh")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if k != "CI"}
    command = f'set -euo pipefail; source "{scripts}/setup.sh"; tell_size {kind}; echo "goes on"'
    return subprocess.run(
        [str(BASH), "-c", command],
        env={**kept, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_what_will_be_fetched_before_it_is(tmp_path: Path) -> None:
    said = told(tmp_path, 50_000)
    assert said.returncode == 0
    assert said.stderr == (
        "==> the first set-up downloads 3.1 GB and takes 6.1 GB of disk (with torch's CPU build 0.5 and 2.0 GB)\n"
    )
    assert "downloads 3.4 GB and takes 6.8 GB" in told(tmp_path, 50_000, "dev").stderr
    assert told(tmp_path, 50_000, CI="true").stderr == ""


@pytest.mark.parametrize(("kind", "free_mb"), [("run", 2499), ("dev", 3449), ("run", 0)])
def test_it_stops_where_nothing_of_it_can_fit(tmp_path: Path, kind: str, free_mb: int) -> None:
    for environment in ({}, {"CI": "true"}):
        said = told(tmp_path, free_mb, kind, **environment)
        assert (said.returncode, said.stdout) == (1, "")
        assert re.fullmatch(
            rf"visavis: the set-up downloads .* only {free_mb} MB free in .*; free some space there, .*\n",
            said.stderr,
        )


def test_where_the_smaller_build_alone_fits_it_says_how_to_have_it(tmp_path: Path) -> None:
    said = told(tmp_path, 4000)
    assert (said.returncode, said.stdout) == (0, "goes on\n")
    assert "docs/install.md says how to have it" in said.stderr


@pytest.mark.parametrize("odd", ["-", "", "much"])
def test_a_disk_that_does_not_say_is_no_reason_to_stop(tmp_path: Path, odd: str) -> None:
    assert told(tmp_path, odd).returncode == 0


def test_it_is_silent_once_torch_is_there(tmp_path: Path) -> None:
    torch = tmp_path / ".venv/lib/python3.11/site-packages/torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    said = told(tmp_path, 1)
    assert (said.returncode, said.stdout, said.stderr) == (0, "goes on\n", "")


def test_it_is_told_before_anything_is_installed() -> None:
    text = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
    setup = text[text.index("\nsetup() {") :]
    order = [
        setup.index(step) for step in ("tell_size", "install_libraries", "ensure_venv", "install_packages")
    ]
    assert order == sorted(order)


def test_the_documents_say_the_same() -> None:
    text = (ROOT / "scripts/setup.sh").read_text(encoding="utf-8")
    install = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "3.1 GB and takes 6.1 GB of disk" in text
    assert "| 3.1 GB | 6.1 GB |" in install
    assert "3.1 GB and takes 6.1 GB of disk" in readme
