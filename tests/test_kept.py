"""Avatars kept on this computer: a private folder, names that never become paths, bounds, a full disk."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from engines.enrollment import Enrollment, avatar_bytes, load_enrollment
from engines.errors import VisavisError
from streamer import kept as module
from streamer.kept import KeptAvatars, KeptError, kept_folder, safe_name
from streamer.places import PlaceError, avatar_file
from streamer.serve.config import ServeSettings
from streamer.serve.start import add_kept
from streamer.serve.store import AvatarStore


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptAvatars:
    monkeypatch.setenv("VISAVIS_AVATARS", str(tmp_path / "data" / "avatars"))
    return KeptAvatars()


def names(kept: KeptAvatars) -> list[str]:
    return [path.stem for path in kept.files()]


def test_the_folder_is_the_users_data_folder_unless_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VISAVIS_AVATARS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert kept_folder() == tmp_path / "visavis" / "avatars"
    assert ServeSettings().avatars == kept_folder()
    monkeypatch.setenv("VISAVIS_AVATARS", str(tmp_path / "mine"))
    assert kept_folder() == ServeSettings().avatars == tmp_path / "mine"


def test_what_is_kept_is_private(kept: KeptAvatars) -> None:
    path = kept.keep("Ada", b"x")
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert [p.name for p in kept.folder.iterdir()] == ["Ada.avatar"]


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Ada Lovelace", "Ada-Lovelace"), ("../../etc/passwd", "etc-passwd"), ("/root/x", "root-x"), ("", "avatar"),
        ("..", "avatar"), (".hidden", "hidden"), ("a\0b\nc", "a-b-c"), ("ada.avatar", "ada"), ("Zoë", "Zoë"),
        ("Zoe\u0308", "Zoë"), ("-rf", "rf"), ("a" * 300, "a" * 40), ("漢" * 300, "漢" * 40), ("\ud800", "avatar"),
        ("C:\\x", "C-x"), ("\u202eavatar", "avatar"), ("हिन्दी नाम", "हिन्दी-नाम"), ("ที่รัก", "ที่รัก"),
        ("\u0301_\u0301x", "x"),
    ],
)  # fmt: skip
def test_whatever_is_typed_is_a_name_in_the_folder(kept: KeptAvatars, typed: str, name: str) -> None:
    assert safe_name(typed) == name
    path = kept.keep(typed, b"x")
    assert path.parent == kept.folder
    assert kept.find(name) == path


def test_names_are_unique_whatever_their_case(kept: KeptAvatars) -> None:
    assert [kept.keep(n, b"x").stem for n in ("ada", "Ada", "ada")] == ["ada", "Ada-2", "ada-3"]
    assert kept.find("ADA") == kept.folder / "ada.avatar"


def test_a_name_is_taken_even_by_what_came_meanwhile(
    kept: KeptAvatars, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.keep("ada", b"first")
    monkeypatch.setattr(KeptAvatars, "files", lambda _: [])  # as it was before the other one wrote
    assert kept.keep("ada", b"second").stem == "ada-2"
    assert (kept.folder / "ada.avatar").read_bytes() == b"first"


@pytest.mark.parametrize("name", ["../ada", "/etc/passwd", "", ".", "..", "ada/", "a\0", "*", "nobody"])
def test_no_name_becomes_a_path(kept: KeptAvatars, name: str) -> None:
    kept.keep("x", b"x")
    (kept.folder.parent / "ada.avatar").write_bytes(b"another's")
    assert kept.find(name) is None
    for act in (kept.get, kept.delete, lambda n: kept.rename(n, "y")):
        with pytest.raises(KeptError, match="`visavis avatars` lists"):
            act(name)
    assert names(kept) == ["x"]


def test_renaming_takes_no_other_ones_name(kept: KeptAvatars) -> None:
    kept.keep("ada", b"1")
    kept.keep("bob", b"2")
    with pytest.raises(KeptError, match="'bob' is kept already; choose another name"):
        kept.rename("ada", "bob")
    with pytest.raises(KeptError, match="is kept already"):
        kept.rename("ada", "BOB")
    assert kept.rename("ada", "ada").stem == "ada"
    assert kept.rename("ada", "Ada").stem == "Ada"
    assert kept.rename("Ada", "../../eve").stem == "eve"
    assert names(kept) == ["bob", "eve"]
    assert kept.get("eve").read_bytes() == b"1"
    kept.delete("eve")
    assert names(kept) == ["bob"]


def test_a_link_is_removed_and_not_what_it_leads_to(kept: KeptAvatars, tmp_path: Path) -> None:
    kept.keep("x", b"x")
    other = tmp_path / "mine.avatar"
    other.write_bytes(b"mine")
    (kept.folder / "link.avatar").symlink_to(other)
    kept.rename("link", "ln")
    kept.delete("ln")
    assert other.read_bytes() == b"mine"
    (kept.folder / "eve.avatar").symlink_to(other)  # put there to be written through
    assert kept.keep("eve", b"x").stem == "eve-2"
    assert other.read_bytes() == b"mine"


def test_how_many_and_how_much_are_bounded(kept: KeptAvatars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    kept.keep("a", b"x")
    kept.keep("b", b"x")
    with pytest.raises(KeptError, match="2 avatars are kept already; delete one"):
        kept.keep("c", b"x")
    monkeypatch.setattr(module, "MOST_KEPT", 9)
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    kept.keep("c", b"x" * 8)
    with pytest.raises(KeptError, match="delete one"):
        kept.keep("d", b"x")
    assert names(kept) == ["a", "b", "c"]


def test_a_full_disk_leaves_nothing_and_says_so(kept: KeptAvatars, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("a", b"x")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(KeptError, match=r"no room left .*; free some and try again, or download"):
        kept.keep("b", b"x")
    assert [p.name for p in kept.folder.iterdir()] == ["a.avatar"]


def test_a_folder_that_cannot_be_is_one_sentence(kept: KeptAvatars, tmp_path: Path) -> None:
    kept.folder.parent.write_bytes(b"a file in its place")
    with pytest.raises(KeptError, match="VISAVIS_AVATARS"):
        kept.keep("a", b"x")
    with pytest.raises(KeptError, match="VISAVIS_AVATARS"):
        kept.files()


def test_a_command_takes_the_name_and_a_file_comes_first(
    kept: KeptAvatars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept.keep("ada", b"x")
    monkeypatch.chdir(tmp_path)
    assert avatar_file("ada") == avatar_file("Ada") == path
    Path("ada").mkdir()
    assert avatar_file("ada") == path
    Path("ada").rmdir()
    Path("ada").write_bytes(b"y")
    assert avatar_file("ada") == Path("ada")
    with pytest.raises(
        PlaceError, match="no file eve, and no avatar of that name is kept here: `visavis avatars`"
    ):
        avatar_file("eve")
    assert avatar_file("eve.avatar") == Path("eve.avatar")  # said when it is opened


def test_the_next_start_lists_them_and_what_is_broken_is_said(
    kept: KeptAvatars, astronaut: Enrollment, caplog: pytest.LogCaptureFixture
) -> None:
    kept.keep("ada", avatar_bytes(astronaut))
    kept.keep("torn", b"x")
    given = kept.keep("given", avatar_bytes(astronaut))
    store = AvatarStore()
    store.add_public(load_enrollment(given), given)
    add_kept(store, ServeSettings(), [given], {"head": 0.5})
    assert [(n, e.kept) for n, e in store.public()] == [("astronaut", False), ("ada", True)]
    entry = store.get("ada")
    assert entry is not None
    assert entry.file == kept.get("ada")
    assert entry.enrollment.controls is not None
    assert entry.enrollment.controls.head == 0.5
    (said,) = (record.getMessage() for record in caplog.records)
    assert "torn.avatar" in said
    assert "visavis avatars delete torn" in said


def test_whatever_else_lies_in_the_folder_keeps_no_server_from_starting(
    kept: KeptAvatars, astronaut: Enrollment, caplog: pytest.LogCaptureFixture
) -> None:
    kept.keep("ada", avatar_bytes(astronaut))
    (kept.folder / "circle.avatar").symlink_to("circle.avatar")
    (kept.folder / "nowhere.avatar").symlink_to("gone")
    (kept.folder / "folder.avatar").mkdir()
    os.mkfifo(kept.folder / "pipe.avatar")
    store = AvatarStore()
    add_kept(store, ServeSettings(), [], {})
    assert [name for name, _ in store.public()] == ["ada"]
    assert len(caplog.records) == 4


def test_beyond_this_computer_none_is_listed(kept: KeptAvatars, astronaut: Enrollment) -> None:
    kept.keep("ada", avatar_bytes(astronaut))
    store = AvatarStore()
    add_kept(store, ServeSettings(host="0.0.0.0", token="an-access-token.0"), [], {})
    assert store.public() == []


def test_every_failure_names_a_fix(kept: KeptAvatars) -> None:
    with pytest.raises(VisavisError) as caught:
        kept.get("nobody")
    assert "; " in str(caught.value)
