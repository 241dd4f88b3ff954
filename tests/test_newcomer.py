"""The first hour of a newcomer, end to end: from the demo to an own face in a file, over a killed server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import served
from clips import DemoClip
from fakes import AT_LAST_S
from PIL import Image
from visitor import PLAYING, Visitor

from engines.enrollment import load_enrollment
from streamer.pyav import av

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
# what a killed server leaves in a browser's console, and nothing else
EXPECTED = re.compile(r"ERR_(CONNECTION|EMPTY_RESPONSE|INCOMPLETE)|status of (404|410|503)")
# red less blue, 0 … 255, where the face is in the picture that is shown: the newcomer's photo is red, the demo is not
REDNESS = """(() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1, 1];
  const video = document.querySelector("#picture");
  const { videoWidth: w, videoHeight: h } = video;
  const context = canvas.getContext("2d");
  context.drawImage(video, w * 0.4, h * 0.4, w * 0.2, h * 0.2, 0, 0, 1, 1);
  const [red, , blue] = context.getImageData(0, 0, 1, 1).data;
  return red - blue;
})()"""
WEBCAM = "document.querySelector('#webcam-label').textContent.startsWith('Stop')"
SEEN = "window.visavis.stats().state === 'tracking'"


class Newcomer(Visitor):
    """A visitor whose console is read as well."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.errors: list[str] = []
        self.calls = 0
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("request", self._counted)

    def _counted(self, request: Any) -> None:
        self.calls += request.method == "POST" and request.url.endswith("/api/offer")

    def until_shown(self) -> None:
        """Until pictures of the call that is up now were shown."""
        self.page.evaluate("window.visavis.reset()")
        self.until(PLAYING)


@pytest.fixture(scope="module")
def photo(astronaut_photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = np.asarray(Image.open(astronaut_photo).convert("RGB")).astype(np.float32) * (1.0, 0.35, 0.35)
    path = tmp_path_factory.mktemp("photo") / "me.jpg"
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path, quality=95)
    return path


def test_from_the_demo_to_a_file(
    chromium: Any, photo: Path, demo_clip: DemoClip, tmp_path: Path, kept_avatars: Path
) -> None:
    me = Newcomer(chromium.new_context(viewport={"width": 1280, "height": 800}))
    page = me.page
    with served() as server:
        port = urlsplit(server.url).port
        # the demo moves; then the own camera drives it
        me.open(server.url)
        assert page.evaluate(REDNESS) < 60
        page.click("#webcam")
        me.until(WEBCAM)
        me.until(SEEN)
        # an own photo is dropped on the page, and whose it is is said
        me.drop(photo, "image/jpeg")
        page.fill("#consent", "Ada Lovelace")
        page.click("#enroll-go")
        me.until("document.querySelector('input[name=avatar]:checked')?.value.startsWith('u-')")
        name, calls = str(me.chosen), len(me.offers)
        me.until(f"{REDNESS} > 60")
        # the voice drives alone, then the camera again
        page.click("#voice")
        me.until("document.querySelector('#voice').getAttribute('aria-pressed') === 'true'")
        me.until_shown()
        me.until("document.querySelector('#level').value > 0.05")
        page.click("#webcam")
        me.until(WEBCAM)
        me.until(SEEN)
        me.until("window.visavis.stats().audio.total > 4800")
        assert [offer["drive"] for offer in me.offers[calls:]] == ["voice", "webcam"]
        # emotion and background change inside the call
        calls = me.calls
        page.select_option("#preset", "angry")
        page.select_option("#background", "blur")
        page.check("input[name=aspect][value='16:9']", force=True)
        me.until("document.querySelector('#picture').videoWidth === 910")
        me.until_shown()
        assert me.calls == calls
        # saved with the avatar, and downloaded
        page.click("#save")
        me.until("document.querySelector('#save-state').textContent.startsWith('Saved')")
        with page.expect_download() as coming:
            page.click("#own-download")
        mine = tmp_path / coming.value.suggested_filename
        coming.value.save_as(mine)
        me.until("JSON.parse(sessionStorage.getItem('visavis.neutral'))?.kept")
        neutral = page.evaluate("JSON.parse(sessionStorage.getItem('visavis.neutral')).kept")
        face, asked = me.picture_of(name), len(me.offers)
        server.process.kill()
        server.process.wait()
        me.until("!document.querySelector('#still').hidden")
    with served("--port", str(port)) as server:
        me.told("The server no longer has “me”.")
        me.until(PLAYING)
        me.until(f"{REDNESS} > 60")
        again = me.offers[asked:]
        assert {offer["avatar"] for offer in again} == {name}, "nobody else's face was ever asked for"
        assert {(offer["background"], offer["aspect"], offer["drive"]) for offer in again} == {
            ("blur", "16:9", "webcam")
        }
        assert {offer["neutral"] for offer in again} == {neutral}
        assert me.picture_of(name) == face
        assert page.input_value("#preset") == "angry"
        # kept on this computer, it is the chosen one after a reload
        page.click("#own-keep")
        page.fill("#own-name", "ada")
        page.click("#own-go")
        me.told("“ada” is kept on this computer")
        me.open(server.url)
        assert me.chosen == "ada"
        page.click("#webcam")
        me.until(SEEN)
        # how it gets into a meeting: with the very command
        page.click("#use")
        me.until(
            "document.querySelector('#use-command').textContent.includes('run ada --from webcam --to virtualcam')"
        )
        page.click("#use-close")
        me.plain()
        assert [text for text in me.errors if not EXPECTED.search(text)] == []
        page.context.close()

        # the file in a second browser
        friend = Newcomer(chromium.new_context(viewport={"width": 390, "height": 844}))
        friend.open(server.url)
        friend.drop(mine)
        friend.told("Ada Lovelace agreed")
        friend.until("document.querySelector('input[name=avatar]:checked')?.value.startsWith('u-')")
        friend.until(f"{REDNESS} > 60")
        friend.until("document.querySelector('#preset').value === 'angry'")
        friend.plain()
        assert friend.errors == []
        friend.page.context.close()

    enrollment = load_enrollment(mine)
    assert enrollment.controls is not None
    assert enrollment.controls.preset == "angry"
    # the file and the kept one in commands
    for avatar in (str(mine), "ada"):
        film = tmp_path / f"{Path(avatar).stem}.mp4"
        done = subprocess.run(
            [sys.executable, "-m", "streamer.cli.main", "run", avatar, "--from", demo_clip(1.0), "--to", film,
             "--generator", "geometric", "--size", "64"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            timeout=5 * AT_LAST_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with av.open(str(film)) as opened:
            pictures = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        assert pictures
        middle = pictures[-1][24:40, 24:40].reshape(-1, 3).mean(0)
        assert middle[0] - middle[2] > 40, "it is the newcomer's face"
    assert kept_avatars.joinpath("ada.avatar").exists()
