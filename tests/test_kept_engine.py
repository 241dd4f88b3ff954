"""`KeptEngine`: written whole, known again by what it was built from; anything else there is built anew."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from tree import ROOT

from engines.compile.kept_engine import KeptEngine

BUILT_FROM = {"engine": "x", "library": "1.7", "target": "sm89", "precision": "fp16", "inputs": [["f", 1, 3]]}
ENGINE = bytes(range(256)) * 40


@pytest.fixture
def kept(tmp_path: Path) -> KeptEngine:
    return KeptEngine(tmp_path / "engines", "net-weights-source", BUILT_FROM)


def refuse_to_build() -> bytes:
    raise AssertionError("it is there")


def test_what_was_built_is_there_the_next_time(kept: KeptEngine) -> None:
    assert kept.read() is None
    assert kept.read_or_build(lambda: ENGINE) == ENGINE
    assert kept.read_or_build(refuse_to_build) == ENGINE
    assert [p.name for p in kept.folder.iterdir()] == [kept.path.name]
    assert kept.path.name.startswith("net-weights-source-")


@pytest.mark.parametrize(
    "change",
    [{"network": "net-others-source"}]
    + [{"built_from": BUILT_FROM | {name: "another"}} for name in BUILT_FROM],
    ids=lambda c: next(iter(c)),
)
def test_whatever_differs_is_another_engine(kept: KeptEngine, change: dict[str, object]) -> None:
    kept.keep(ENGINE)
    assert replace(kept, **change).read() is None  # pyright: ignore[reportArgumentType]
    assert replace(kept, **change).path != kept.path  # pyright: ignore[reportArgumentType]
    assert kept.read() == ENGINE


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_bit(data: bytes) -> bytes:
    return data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]


@pytest.mark.parametrize(
    "damage",
    [half, one_bit, lambda d: b"", lambda d: b"\xff" * 8 + d, lambda d: d.replace(b"sha256", b"sha257")],
)
def test_a_damaged_file_is_built_again(
    kept: KeptEngine, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    kept.keep(ENGINE)
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    assert kept.read_or_build(lambda: b"anew") == b"anew"
    assert "cannot be read" in caplog.text
    assert kept.read_or_build(refuse_to_build) == b"anew"


def test_another_engine_under_this_name_is_built_again(kept: KeptEngine) -> None:
    """Whole, with a digest that is right, and foreign: of another card."""
    other = replace(kept, built_from=BUILT_FROM | {"target": "sm120"})
    other.keep(b"of another card")
    other.path.rename(kept.path)
    assert kept.read_or_build(lambda: ENGINE) == ENGINE
    assert kept.read() == ENGINE


def test_a_folder_that_cannot_be_written_stops_nothing(
    kept: KeptEngine, caplog: pytest.LogCaptureFixture
) -> None:
    kept.folder.write_text("a file where the folder should be")
    assert kept.read_or_build(lambda: ENGINE) == ENGINE
    assert caplog.text.count("cannot be kept in") == 1
    with pytest.raises(OSError, match="exists"):
        kept.keep(ENGINE)


@pytest.fixture
def nobody() -> Generator[Path]:
    """A folder of somebody else's, and a user who is not root: root may do anything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_or_read_stops_nothing(
    nobody: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    if nobody.stat().st_uid == os.geteuid():
        nobody.chmod(mode)
    elif mode == 0:
        os.seteuid(0)
        nobody.chmod(mode)
        os.seteuid(65534)
    kept = KeptEngine(nobody / "engines", "net-w-s", BUILT_FROM)
    assert kept.read_or_build(lambda: ENGINE) == ENGINE
    assert "Permission denied" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
def test_a_full_disk_leaves_nothing_behind(
    kept: KeptEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept.keep(b"the old one")
    before = kept.path.read_bytes()
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        real(path, data[:10])
        with Path("/dev/full").open("wb", buffering=0) as disk:
            return int(disk.write(data))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as raised:
        kept.keep(ENGINE)
    assert raised.value.errno == errno.ENOSPC
    assert kept.path.read_bytes() == before
    assert [p.name for p in kept.folder.iterdir()] == [kept.path.name]
    kept.path.unlink()
    assert kept.read_or_build(lambda: ENGINE) == ENGINE
    assert "No space left on device" in caplog.text


@pytest.mark.slow
def test_two_processes_may_build_the_same_at_once(tmp_path: Path) -> None:
    """Both wait for each other in the middle of building: each has its engine, and what is left is one of them."""
    code = """
import sys, time
from pathlib import Path
from engines.compile.kept_engine import KeptEngine
folder, own, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def build():
    (folder / own).touch()
    for _ in range(60000):
        if (folder / other).exists():
            return own.encode() * 100000
        time.sleep(0.01)
    raise SystemExit("alone")
kept = KeptEngine(folder / "engines", "net-w-s", {"engine": "x"})
for _ in range(20):
    assert kept.read_or_build(build) in (b"a" * 100000, b"b" * 100000)
    assert kept.read() in (b"a" * 100000, b"b" * 100000)
    kept.keep(own.encode() * 100000)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *names], cwd=ROOT)
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [process.wait(600) for process in both] == [0, 0]
    left = KeptEngine(tmp_path / "engines", "net-w-s", {"engine": "x"}).read()
    assert left in (b"a" * 100000, b"b" * 100000)
    assert len(list((tmp_path / "engines").iterdir())) == 1
