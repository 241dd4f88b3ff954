"""The lowest versions of what answers the network: named, and those that run when they are asked for."""

from __future__ import annotations

import os
import tomllib
from importlib.metadata import version

import pytest
from packaging.version import Version
from tree import ROOT

from scripts.lowest import SERVER, TESTS, pins

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# Below these are holes that are publicly known: CVE-2026-48710, PYSEC-2026-248 and -249 (Starlette),
# CVE-2025-43859 (h11), CVE-2026-40347, -42561, -53538 and -53539 (python-multipart).
MENDED = {"starlette": "1.3.1", "h11": "0.16.0", "python-multipart": "0.0.30"}


def test_what_answers_the_network_has_a_lowest_version_without_known_holes() -> None:
    floors = dict(pin.split("==") for pin in pins(PYPROJECT))
    assert [*floors] == [*SERVER]
    for name, mended in MENDED.items():
        assert Version(floors[name]) >= Version(mended), name


def test_a_lowest_version_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="h11"):
        pins(PYPROJECT.replace('"h11>=', '"h11!='))


def test_the_versions_that_run_are_those_that_were_asked_for() -> None:
    asked = os.environ.get("VISAVIS_LOWEST", "").split()
    for pin in asked or pins(PYPROJECT):
        name, _, floor = pin.partition("==")
        running = Version(version(name))
        assert running == Version(floor) if asked else running >= Version(floor), name


def test_its_tests_exist_and_it_stays_out_of_the_repository() -> None:
    assert [name for name in TESTS if not (ROOT / name).is_file()] == []
    assert "/.lowest/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ranges: list[str] = tomllib.loads(PYPROJECT)["project"]["dependencies"]
    assert all("<" in r for r in ranges if r.startswith(SERVER)), "and a highest"
