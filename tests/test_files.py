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


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    film, link, second = tmp_path / "far" / "film.mp4", tmp_path / "link.mp4", tmp_path / "second.mp4"
    link.symlink_to("far/film.mp4")
    second.symlink_to(link)
    for path, text in ((link, "into nothing"), (second, "over what is there")):
        require_writable(path, "-o", "out.mp4")
        write_whole(path, text)
        assert link.is_symlink()
        assert second.is_symlink()
        assert film.read_text() == text
        assert [p.name for p in (tmp_path / "far").iterdir()] == ["film.mp4"]
    file = WholeFile(link)
    file.part.write_text("half")
    file.drop()
    assert film.read_text() == "over what is there"


def test_links_that_lead_nowhere_are_said(tmp_path: Path) -> None:
    circle, lost = tmp_path / "circle.mp4", tmp_path / "lost.mp4"
    circle.symlink_to("circle.mp4")
    lost.symlink_to("gone/film.mp4")
    with pytest.raises(
        SinkError, match=r"circle\.mp4 is a link that leads in a circle; choose another name with -o"
    ):
        require_writable(circle, "-o", "out.mp4")
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(circle, "x")
    require_apart({"-o": circle}, {"the driving video": lost})
    with pytest.raises(SinkError, match=r"gone does not exist; make it with `mkdir -p"):
        require_writable(lost, "-o", "out.mp4")
    with pytest.raises(FileNotFoundError):
        write_whole(lost, "x")
    assert circle.is_symlink()
    assert lost.is_symlink()


def test_a_name_longer_than_names_may_be_is_no_circle(tmp_path: Path) -> None:
    with pytest.raises(
        SinkError, match=r"cannot be written \(File name too long\); choose another name with -o"
    ):
        require_writable(tmp_path / f"{251 * 'a'}.avatar", "-o", "me.avatar")


def test_what_is_no_file_is_not_taken_away(tmp_path: Path) -> None:
    """A file that takes the name of a pipe or of /dev/null takes it away from everybody."""
    pipe, folder, link = tmp_path / "pipe.mp4", tmp_path / "folder.mp4", tmp_path / "link.mp4"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/null")
    for path, kind in ((pipe, "a pipe"), (link, "a device"), (Path("/dev/null"), "a device")):
        with pytest.raises(SinkError, match=f"is {kind}, no file; choose another name with -o"):
            require_writable(path, "-o", "out.mp4")
        with pytest.raises(OSError, match=f"it is {kind}, no file"):
            write_whole(path, "x")
    with pytest.raises(SinkError, match="is a folder; name a file in it"):
        require_writable(folder, "-o", "out.mp4")
    with pytest.raises(OSError, match="it is a folder, no file"):
        write_whole(folder, "x")
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.mp4", "link.mp4", "pipe.mp4"]
