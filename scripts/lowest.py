"""`./scripts/test --lowest`: the server's tests under the lowest versions that pyproject.toml permits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / ".lowest"
# what lies between the network and the routes; nothing else decides who gets what
SERVER = ("fastapi", "starlette", "uvicorn", "python-multipart", "h11", "pydantic-settings")
TESTS = tuple(
    f"tests/test_{name}.py" for name in ("access", "bodies", "slow_clients", "schema", "server", "lowest")
)


def pins(pyproject: str) -> list[str]:
    """`NAME==FLOOR` of each of `SERVER` in the text of a pyproject.toml; raises ValueError for one without a floor."""
    floors = {
        found[1]: found[2]
        for line in tomllib.loads(pyproject)["project"]["dependencies"]
        if (found := re.match(r"([\w.-]+)>=([\w.]+)", line))
    }
    if missing := [name for name in SERVER if name not in floors]:
        raise ValueError(f"no lowest version in pyproject.toml: {', '.join(missing)}; write NAME>=VERSION")
    return [f"{name}=={floors[name]}" for name in SERVER]


def install(wanted: Sequence[str]) -> None:
    """Have exactly `wanted` in `TARGET`, and nothing that they ask for: that is in .venv."""
    stamp = TARGET / "pins.txt"
    text = "\n".join(wanted)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
        return
    shutil.rmtree(TARGET, ignore_errors=True)  # pip leaves what older versions had, and their versions' names
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(TARGET)]
    subprocess.run([*pip, *wanted], check=True)
    stamp.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """pytest's exit code."""
    wanted = pins((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    print("the lowest versions:", *wanted, flush=True)
    install(wanted)
    path = os.pathsep.join([str(TARGET), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "VISAVIS_LOWEST": " ".join(wanted)}
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
