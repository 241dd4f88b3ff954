"""Compiled libraries of earlier versions: the oldest go, one that a process uses stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.native import prune

ROOT = Path(__file__).parent.parent
DAY_S = 86400.0
NOW_S = 1_000 * DAY_S


def _kept(folder: Path, name: str, used_days_ago: float, *, whole: bool = True) -> Path:
    """A library that was last used then; its own file was made long before."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.so"
    path.write_bytes(name.encode())
    os.utime(path, (0, NOW_S - (0 if whole else used_days_ago) * DAY_S - 10 * DAY_S * whole))
    if whole:
        path.with_suffix(".sha256").write_text("digest")
        os.utime(path.with_suffix(".sha256"), (0, NOW_S - used_days_ago * DAY_S))
    return path


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_old_libraries_go_and_the_last_used_stay(tmp_path: Path) -> None:
    folder = tmp_path / "native"
    own = _kept(folder, "own", 90)
    for name, days in (("a", 2), ("b", 3), ("c", 4), ("d", 5), ("e", 60)):
        _kept(folder, name, days)
    gone = prune.prune(own, NOW_S)
    assert sorted(p.name for p in gone) == ["d.so", "e.so"]
    assert _names(folder) == [f"{n}.{end}" for n in ("a", "b", "c", "own") for end in ("sha256", "so")]
    assert prune.prune(own, NOW_S) == []


def test_what_was_used_today_or_is_being_made_stays(tmp_path: Path) -> None:
    """By a visavis that says nothing of what it has loaded, or by a compiler that is at it."""
    folder = tmp_path / "native"
    own = _kept(folder, "own", 0)
    for name in "abcdef":
        _kept(folder, name, 0.9)
    _kept(folder, "half", 0.85, whole=False)
    at_work = folder / "tmp123"
    at_work.mkdir()
    os.utime(at_work, (0, NOW_S - 0.9 * DAY_S))
    before = _names(folder)
    assert prune.prune(own, NOW_S) == []
    assert _names(folder) == before
    assert len(prune.prune(own, NOW_S + 0.2 * DAY_S)) == 5  # half, three of six, and what a compiler left
    assert not at_work.exists()
    assert not (folder / "half.so").exists()


def test_what_another_process_has_loaded_stays(tmp_path: Path) -> None:
    folder = tmp_path / "native"
    own, used = _kept(folder, "own", 0), _kept(folder, "used", 900)
    for name in "abc":
        _kept(folder, name, 2)
    code = "import sys; from pathlib import Path; from engines.native.prune import hold; "
    code += "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(used)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        os.utime(used.with_suffix(".sha256"), (0, NOW_S - 900 * DAY_S))  # as if it ran since then
        assert prune.prune(own, NOW_S) == []
        assert used.is_file()
        other.communicate()
    assert prune.prune(own, NOW_S) == [used]


def test_to_use_a_library_is_told(tmp_path: Path) -> None:
    path = _kept(tmp_path, "a", 100)
    made = path.stat().st_mtime_ns
    prune.hold(path)
    assert path.with_suffix(".sha256").stat().st_mtime > NOW_S
    assert path.stat().st_mtime_ns == made
    prune.hold(tmp_path / "none.so")  # nothing to hold, nobody's trouble


def test_a_folder_that_cannot_be_pruned_is_nobodys_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _kept(tmp_path / "native", "own", 0)
    for name in "abcd":
        _kept(tmp_path / "native", name, 9)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert prune.prune(own, NOW_S) == []
    assert prune.prune(tmp_path / "gone" / "own.so", NOW_S) == []
