"""The store of pairs: what there is, read as it appears; batches that do not depend on where they were made."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from items import tiny_item

from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.head.model import Part, load_head_model
from scripts.generators import store as storing
from scripts.generators.item import Item, save_item
from scripts.generators.kept import Kept, Pool
from scripts.generators.moments import moment_rows
from scripts.generators.on_device import OnDevice
from scripts.generators.rows import Draw
from scripts.generators.store import Store
from scripts.training.errors import TrainingError

CPU = torch.device("cpu")
VISAVIS = VisavisBlueprint()
PART = load_head_model().part
INSIDE = torch.tensor([int(p) for p in (Part.MOUTH, Part.TEETH, Part.TONGUE)])


class Windowed(VisavisBlueprint):
    """Looks at a window of motions and at no base's picture."""

    base = None
    past = 2
    ahead = 1


def put(folder: Path, name: str, *, held_out: bool = False, seed: int = 0) -> Item:
    item = tiny_item(name, subject=name, held_out=held_out, seed=seed)
    save_item(folder / f"{name}.safetensors", item)
    return item


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, "bea_01", seed=1)
    put(tmp_path, "eve_01", held_out=True, seed=2)
    return tmp_path


# --- what there is ---------------------------------------------------------------------------------


def test_rows_are_split_by_who_is_held_out(folder: Path) -> None:
    store = Store(folder, VISAVIS, CPU)
    assert store.names == ["bea_01", "eve_01"]
    assert (len(store.train), len(store.held_out)) == (6, 6)
    assert not set(store.train[:, 0]) & set(store.held_out[:, 0])


def test_what_comes_later_is_trained_on_as_if_it_had_been_there(folder: Path) -> None:
    store = Store(folder, VISAVIS, CPU)
    draw, before = Draw(store, 0), store.digest
    seen = {store.names[i] for i, _ in draw.rows(64, 0, draw.rng(0))}
    put(folder, "ada_01", seed=3)
    assert store.refresh() == 1
    assert store.refresh() == 0
    fresh = Store(folder, VISAVIS, CPU)
    assert store.digest == fresh.digest != before
    late, early = (s.gather(Draw(s, 0).rows(4, 7, draw.rng(7)), draw.rng(8)) for s in (store, fresh))
    for name, tensor in early.items():
        assert torch.equal(tensor, late[name]), name
    assert len(seen) == 1
    assert len({int(i) for i, _ in draw.rows(64, 0, draw.rng(0))}) == 2


def test_a_training_looks_for_more_now_and_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(folder, VISAVIS, CPU)
    for k in range(3):
        put(folder, f"new_{k}", seed=5 + k)
    store.look()
    assert len(store.names) == 2
    monkeypatch.setattr(storing, "_LOOK_S", -1.0)
    store.look()
    assert len(store.names) == 4  # a few at a time: the training waits meanwhile
    store.look()
    assert len(store.names) == 5


def test_a_damaged_or_foreign_file_is_told_once_and_left_out(folder: Path) -> None:
    (folder / "torn_01.safetensors").write_bytes((folder / "bea_01.safetensors").read_bytes()[:4000])
    (folder / "strange.safetensors").write_bytes(b"nothing of ours")
    save_item(folder / "other_01.safetensors", tiny_item("other_01", head_model="of another head"))
    shutil.copy(folder / "bea_01.safetensors", folder / "renamed.safetensors")
    said: list[str] = []
    store = Store(folder, VISAVIS, CPU, say=said.append)
    assert store.names == ["bea_01", "eve_01"]
    assert sorted(store.left_out) == ["other_01", "renamed", "strange", "torn_01"]
    assert "another head model" in store.left_out["other_01"]
    assert len(said) == 4
    store.refresh()
    assert len(said) == 4
    put(folder, "torn_01", seed=4)  # made again
    assert store.refresh() == 1
    assert "torn_01" in store.names
    assert "torn_01" not in store.left_out


def test_who_cannot_train_is_told_why(tmp_path: Path) -> None:
    make = r"python -m scripts\.generators\.pairs DATA -o"
    with pytest.raises(TrainingError, match=f"there are no pairs in .*{make}"):
        Store(tmp_path, VISAVIS, CPU)
    with pytest.raises(TrainingError, match=f"there are no pairs in .*{make}"):
        Store(tmp_path / "nowhere", VISAVIS, CPU)
    (tmp_path / "report.json").write_text('{"version": 1}')
    (tmp_path / "old_01.npz").write_bytes(b"old")
    with pytest.raises(TrainingError, match=f"pairs of version 1, .*{make}"):
        Store(tmp_path, VISAVIS, CPU)
    (tmp_path / "torn_01.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"no pairs that can be read \(.*torn_01"):
        Store(tmp_path, VISAVIS, CPU)
    put(tmp_path, "eve_01", held_out=True)
    with pytest.raises(TrainingError, match=r"no person to train on .all 1 are held out by name\W+add clips"):
        Store(tmp_path, VISAVIS, CPU)


# --- batches ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_decoded_on_the_device_or_drawn_from_files_batches_are_the_same(
    folder: Path, drawn_pairs: Path
) -> None:
    shutil.copy(drawn_pairs / "ada_01.safetensors", folder)  # whose mouth is open
    files, decoded = Store(folder, VISAVIS, CPU), Store(folder, VISAVIS, CPU, decoded=True)
    rows = files.train[[0, 2, 3, 5, 9]]
    ours, theirs = (s.gather(rows, np.random.default_rng(4)) for s in (files, decoded))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if name in ("own", "posed"):
            # two rasterisers: a pixel on the border of two triangles may go to either
            assert (tensor != theirs[name]).float().mean() < 1e-3
            assert (tensor >= 0).float().mean() > 0.1
            inside = torch.isin(torch.from_numpy(PART)[tensor.clamp_min(0).long()], INSIDE) & (tensor >= 0)
            assert 200 < inside.sum() < 20_000 or name == "own"
        else:
            assert torch.equal(tensor, theirs[name]), name


def test_a_device_keeps_memory_for_the_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no longer fits is left out and told; nothing is decoded for what is full already."""
    asked: list[torch.device] = []

    def room(device: torch.device) -> bool:
        asked.append(device)
        return len(asked) < 3

    monkeypatch.setattr(storing, "OnDevice", partial(OnDevice, room=room))
    said: list[str] = []
    put(folder, "zoe")
    store = Store(folder, VisavisBlueprint(), CPU, decoded=True, say=said.append)
    held = len(store.names)
    assert held == 2
    assert len(store.left_out) == len(list(folder.glob("*.safetensors"))) - 2 == len(said)
    assert all("does not fit on the GPU any more" in text for text in said)
    assert len(asked) == 3
    assert len(store.gather(store.train[:2], None)["posed"]) == 2


def test_a_poor_photo_is_shown_and_the_clean_frame_is_the_truth(folder: Path) -> None:
    store = Store(folder, VISAVIS, CPU)
    # of a tiny item the second photo alone is a poor one
    batch = store.gather(np.array([(0, k) for k in range(6)]), None)
    item = tiny_item("bea_01", seed=1)
    poor = torch.from_numpy(item.source == 1)
    by_frame = {int(t): batch["truth"][k] for k, t in enumerate(item.target)}
    for k, source in enumerate(item.source):
        same = torch.equal(batch["photo"][k], by_frame[int(source)])
        assert same != bool(poor[k])


def test_the_same_draw_gives_the_same_batch_and_none_is_as_it_is(folder: Path) -> None:
    store = Store(folder, VISAVIS, CPU)
    a, b, c = (store.gather(store.train[:4], np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["gain"], c["gain"])
    plain = store.gather(store.train[:4], None)
    assert not plain["flip"].any()
    assert (plain["gain"] == 1).all()
    assert (plain["offset"] == 0).all()


def test_only_what_a_blueprint_asks_for_is_there(folder: Path) -> None:
    batch = Store(folder, Windowed(), CPU).gather(np.array([(0, 1)]), None)
    assert "picture" not in batch
    assert "where" not in batch
    assert batch["motions"].shape == (1, 4, 65)
    item = tiny_item("bea_01", seed=1)
    row = item.row[item.target[1]]
    assert np.array_equal(batch["motions"][0, 2].numpy(), item.motion[item.source[1], row])


def test_memory_for_pictures_is_bounded() -> None:
    kept, made = Kept(3 * 100), list[int]()

    def get(key: int) -> np.ndarray:
        def make() -> np.ndarray:
            made.append(key)
            return np.full(100, key, np.uint8)

        return kept.get(key, make)

    for key in (1, 2, 3, 1, 4, 1, 2):
        assert get(key)[0] == key
        assert kept.bytes <= 300
    assert made == [1, 2, 3, 4, 2]  # 2 was the least lately used when 4 came
    kept.most_bytes = 0
    assert get(9)[0] == 9
    assert kept.bytes == 100


def test_a_pool_grows_and_keeps_what_it_has() -> None:
    pool = Pool(CPU)
    assert [pool.add(np.full((n, 2), n)) for n in (3, 1, 7)] == [0, 3, 4]
    assert pool.take(torch.tensor([0, 3, 10]))[:, 0].tolist() == [3, 1, 7]


# --- windows of motions ----------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "step"), [(25.0, 1), (50.0, 2)])
def test_a_window_is_cut_as_a_call_cuts_it(fps: float, step: int) -> None:
    number = np.arange(20, dtype=np.int32)
    found = moment_rows(number, fps, np.array([0, 8, 19]), 2, 1)
    assert found[1].tolist() == [8 - 2 * step, 8 - step, 8, 8 + step]
    assert found[0, :3].tolist() == [0, 0, 0]
    assert found[2].tolist() == [19 - 2 * step, 19 - step, 19, 19]
    assert moment_rows(number, fps, np.array([4]), 0, 0).tolist() == [[4]]


def test_a_gap_in_a_clip_is_a_new_beginning() -> None:
    number = np.array([0, 1, 2, 40, 41, 42], np.int32)
    assert moment_rows(number, 25.0, np.array([3, 4]), 2, 0).tolist() == [[3, 3, 3], [3, 3, 4]]
