"""An avatar made on the page, kept: as a file, on this computer, in another browser, and in a command."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from browser import served
from clips import DemoClip
from fakes import AT_LAST_S
from raw import Running, running
from visitor import PLAYING, Visitor

from engines.enrollment import load_enrollment
from streamer.serve.service import Service

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def painters(kept_avatars: Path) -> Iterator[Running]:
    with running(max_sessions=8, avatars=kept_avatars / "painted") as server:
        yield server


def url_of(server: Running) -> str:
    return f"http://127.0.0.1:{server.port}"


def download(visitor: Visitor, folder: Path) -> Path:
    with visitor.page.expect_download() as coming:
        visitor.page.click("#own-download")
    path = folder / coming.value.suggested_filename
    coming.value.save_as(path)
    return path


def test_downloaded_dropped_into_another_browser_and_used_by_a_command(
    visitor: Visitor,
    chromium: Any,
    painters: Running,
    astronaut_photo: Path,
    demo_clip: DemoClip,
    tmp_path: Path,
) -> None:
    visitor.open(url_of(painters))
    assert not visitor.page.is_visible("#own"), "what the server was given is its owner's"
    name = visitor.upload(astronaut_photo)
    visitor.until(PLAYING)
    path = download(visitor, tmp_path)
    assert path.name == "astronaut.avatar"
    enrollment = load_enrollment(path)
    assert enrollment.consent is not None
    assert enrollment.consent.name == "public domain"

    other = Visitor(chromium.new_context(viewport={"width": 390, "height": 844}))
    other.open(url_of(painters))
    other.drop(path)
    other.told("“astronaut”: public domain agreed on")
    other.until("document.querySelector('input[name=avatar]:checked')?.value.startsWith('u-')")
    other.until(PLAYING)
    assert other.chosen not in (None, name)
    assert other.picture_of(str(other.chosen)) == visitor.picture_of(name)
    assert other.faces[-1] == other.chosen
    # by the picker as well, and what is none is said in place
    broken = tmp_path / "broken.avatar"
    broken.write_bytes(path.read_bytes()[:10_000])
    other.page.set_input_files("#photo", str(broken))
    other.told("this file is not an avatar or is truncated; make the avatar again from its photo")
    assert other.page.is_visible("#enroll-error")
    other.plain()
    other.page.context.close()

    film = tmp_path / "film.mp4"
    done = subprocess.run(
        [sys.executable, "-m", "streamer.cli.main", "run", path, "--from", demo_clip(1.0), "--to", film,
         "--generator", "geometric", "--size", "64"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=5 * AT_LAST_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert film.stat().st_size > 1000


def test_kept_on_this_computer_under_a_name_and_there_after_the_next_start(
    visitor: Visitor, astronaut_photo: Path, kept_avatars: Path
) -> None:
    page = visitor.page
    with served() as server:
        port = urlsplit(server.url).port
        visitor.open(server.url)
        upload = visitor.upload(astronaut_photo)
        visitor.until(PLAYING)
        page.locator("#head").focus()
        page.keyboard.press("ArrowLeft")
        count = len(visitor.offers)
        page.click("#own-keep")
        question = page.inner_text("#own-form-hint")
        assert str(kept_avatars) in question
        assert "can read it" in question
        assert "Delete it" in question
        page.fill("#own-name", "Ada Lovelace")
        page.click("#own-go")
        visitor.told("“Ada-Lovelace” is kept on this computer")
        (file,) = [path for path in kept_avatars.iterdir() if path.is_file()]
        assert file.name == "Ada-Lovelace.avatar"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert visitor.chosen == "Ada-Lovelace"
        assert len(visitor.offers) == count, "the call goes on as it is"
        face = visitor.picture_of(upload)
        server.process.kill()
        server.process.wait()
        visitor.until("!document.querySelector('#still').hidden")
    with served("--port", str(port)) as server:
        # the call asks for the upload that it began with, and then for the same person by the name kept
        visitor.until(PLAYING)
        assert set(visitor.faces[count:]) <= {upload, "Ada-Lovelace"}
        assert visitor.faces[-1] == "Ada-Lovelace"
        assert visitor.picture_of("Ada-Lovelace") == face
        assert page.locator("#head").input_value() == "0.95"
        page.click("#own-rename")
        page.fill("#own-name", "../countess")
        page.click("#own-go")
        visitor.until("document.querySelector('input[name=avatar]:checked').value === 'countess'")
        assert [p.name for p in kept_avatars.iterdir() if p.is_file()] == ["countess.avatar"]
        visitor.open(server.url)
        assert visitor.chosen == "countess", "a reload keeps it"
        assert page.locator("#head").input_value() == "0.95"
        page.click("#own-delete")
        assert kept_avatars.joinpath("countess.avatar").exists(), "not before the question is answered"
        page.click("#own-cancel")
        page.click("#own-delete")
        assert page.inner_text("#own-go") == "Delete “countess”"
        page.click("#own-go")
        visitor.told("You deleted “countess”.")
        assert [p for p in kept_avatars.iterdir() if p.is_file()] == []
        visitor.plain()


def test_where_others_can_connect_only_the_download_is_offered(
    visitor: Visitor, painters: Running, astronaut_photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cast(Service, painters.app.state.service).settings), "kept", None)
    visitor.open(url_of(painters))
    visitor.upload(astronaut_photo)
    visitor.until(PLAYING)
    assert visitor.page.is_visible("#own-download")
    assert not visitor.page.is_visible("#own-keep")
