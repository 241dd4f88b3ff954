"""Files are written whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.errors import SinkError
from engines.files import (
    PRIVATE,
    WholeFile,
    require_apart,
    require_folder,
    require_writable,
    whole_file,
    write_whole,
)


def test_what_is_written_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_noticed_before_the_old_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_what_is_private_is_private_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.avatar"
    with whole_file(path, mode=PRIVATE) as part:
        assert part.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o022)
    try:
        write_whole(path, b"for all")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_two_writers_do_not_share_a_part(tmp_path: Path) -> None:
    one, two = WholeFile(tmp_path / "a"), WholeFile(tmp_path / "a")
    assert one.part != two.part
    one.part.write_text("one")
    two.part.write_text("two")
    two.keep()
    one.keep()
    one.drop()
    assert (tmp_path / "a").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"is a folder; name a file in it, such as .*out\.png"):
        require_writable(tmp_path, "-o", "out.png")
    with pytest.raises(SinkError, match="mkdir -p"):
        require_writable(tmp_path / "no" / "a.png", "-o", "out.png")
    require_folder(tmp_path, "-o")


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path: Path) -> None:
    film, link, twin = tmp_path / "film.mp4", tmp_path / "link.mp4", tmp_path / "twin.mp4"
    film.write_bytes(b"film")
    link.symlink_to(film)
    twin.hardlink_to(film)
    (tmp_path / "sub").mkdir()
    for other in (film, link, twin, tmp_path / "sub" / ".." / "film.mp4"):
        with pytest.raises(SinkError, match="is the driving video itself; choose another name with --trace"):
            require_apart({"--trace": other}, {"the driving video": film})
    with pytest.raises(SinkError, match="is what -o names itself; choose another name with --trace"):
        require_apart({"-o": tmp_path / "new", "--trace": tmp_path / "sub" / ".." / "new"}, {})
    require_apart(
        {"-o": tmp_path / "new", "--trace": None}, {"the driving video": film, "a device": "webcam"}
    )


@pytest.mark.parametrize("name", ["名" * 80 + ".avatar", "x" * 248 + ".png"])
def test_a_name_as_long_as_names_may_be(name: str, tmp_path: Path) -> None:
    write_whole(tmp_path / name, "whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]
