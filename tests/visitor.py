"""A visitor of the page in a headless Chromium: what it asked the server for and every sentence that it was shown."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from browser import PATIENCE_MS, wait_for

PLAYING = (
    "window.visavis && window.visavis.stats().connection === 'connected' && window.visavis.stats().shown > 5"
)
# every sentence that stood on the stage or beside it, whatever replaced it since
LISTENING = """
window.said = [];
document.addEventListener("DOMContentLoaded", () => {
  const hear = () => {
    for (const each of document.querySelectorAll("#veil-text, #veil-detail, .notice p, #enroll-error, #own-error")) {
      const text = each.textContent.trim();
      if (text && window.said.at(-1) !== text) window.said.push(text);
    }
  };
  new MutationObserver(hear).observe(document.body, { subtree: true, childList: true, characterData: true });
});
"""
DROP = """async ([name, kind, bytes]) => {
  const transfer = new DataTransfer();
  const content = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
  transfer.items.add(new File([content], name, { type: kind }));
  const event = (type) => new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
  for (const type of ["dragenter", "dragover", "drop"]) document.body.dispatchEvent(event(type));
}"""
INTERNAL = re.compile(r"\bu-[\w-]|\bb-[\w-]{8}|GET|POST|/api|sha256|None|undefined|null|\{|visavis enroll")


class Visitor:
    """A page, the avatars that it offered a call with, in order, and what it was told."""

    def __init__(self, context: Any) -> None:
        self.page: Any = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.add_init_script(LISTENING)
        self.offers: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _asked(self, request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/api/offer"):
            self.offers.append(json.loads(request.post_data))
        elif request.method == "PATCH" and "/api/calls/" in request.url:
            # a change inside the call: it shows what it showed, but for that
            self.offers.append({**self.offers[-1], **json.loads(request.post_data)})

    @property
    def faces(self) -> list[str]:
        """Whose face each call was to show."""
        return [str(offer.get("avatar")) for offer in self.offers]

    def open(self, url: str, condition: str = PLAYING) -> None:
        """Go there and wait."""
        self.page.goto(url)
        self.until(condition)

    def until(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        wait_for(self.page, condition)

    def told(self, words: str) -> None:
        """Until a sentence with these words was shown; none may hold what only programs know."""
        self.until(f"window.said.some((text) => text.includes({json.dumps(words)}))")
        self.plain()

    def plain(self) -> None:
        """No sentence so far holds a name or an address that only programs know; nothing failed."""
        said = self.page.evaluate("window.said")
        assert [text for text in said if INTERNAL.search(text)] == []
        assert self.problems == []

    def upload(self, photo: Path) -> str:
        """Make an avatar of a photo; its secret name."""
        self.page.set_input_files("#photo", str(photo))
        self.page.fill("#consent", "public domain")
        self.page.click("#enroll-go")
        while True:
            self.until(
                "document.querySelector('#enroll').hidden || !document.querySelector('#enroll-error').hidden"
            )
            if not self.page.is_visible("#enroll"):
                break
            # the server's own clock gave the photo up: this computer is busy
            assert "takes too long" in self.page.inner_text("#enroll-error")
            self.page.click("#enroll-go")
        self.until("document.querySelector('input[name=avatar]:checked')?.value.startsWith('u-')")
        chosen = self.chosen
        assert chosen is not None
        return chosen

    def stand_before(self, picture: Path) -> None:
        """Choose a background picture."""
        done = "document.querySelector('#background').value === 'picture'"
        while not self.page.evaluate(done):
            self.page.set_input_files("#background-file", str(picture))
            self.until(f"{done} || !document.querySelector('#background-error').hidden")
            if self.page.is_visible("#background-error"):
                assert "takes too long" in self.page.inner_text("#background-error")

    def drop(self, file: Path, kind: str = "") -> None:
        """Drop a file of that MIME type on the page."""
        self.page.evaluate(DROP, [file.name, kind, base64.b64encode(file.read_bytes()).decode()])

    @property
    def chosen(self) -> str | None:
        """The name of the chosen tile."""
        return self.page.evaluate("document.querySelector('input[name=avatar]:checked')?.value ?? null")

    def picture_of(self, name: str) -> list[int]:
        """The bytes of an avatar's picture, as the server has it now."""
        code = "async (name) => [...new Uint8Array(await (await fetch(`/api/avatars/${name}/picture`)).arrayBuffer())]"
        return self.page.evaluate(code, name)
