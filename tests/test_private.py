"""What visavis promises of your computer: the network is not asked, and nothing lies in the home but its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.enrollment import Enrollment, save_enrollment
from engines.model_files import MODELS, find_model

ROOT = Path(__file__).parent.parent

# in every Python process of a command: who is looked up or called is written down
WATCH = """
import os, socket

def told(what, ask):
    def asked(*given, **more):
        with open(os.environ["ASKED"], "a") as file:
            print(what, given, file=file)
        return ask(*given, **more)
    return asked

socket.getaddrinfo = told("getaddrinfo", socket.getaddrinfo)
socket.gethostbyname = told("gethostbyname", socket.gethostbyname)
socket.create_connection = told("create_connection", socket.create_connection)
"""

COMMANDS = {
    "edit": ["edit", "A", "-o", "o.png", "--yaw", "5", "--size", "64"],
    "animate": ["animate", "A", "--driver", "M", "-o", "o.mp4", "--size", "64"],
    "run": ["run", "A", "--from", "F", "--to", "r.mp4", "--size", "64"],
    "enroll": ["enroll", "P", "-o", "again.avatar", "--consent", "x"],
    "doctor": ["doctor", "--json"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_asks_the_network_or_leaves_anything_in_the_home(
    command: str, astronaut: Enrollment, astronaut_photo: Path, tmp_path: Path
) -> None:
    home, site, work, asked = (tmp_path / name for name in ("home", "site", "work", "asked.txt"))
    for folder in (home, site, work):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    save_enrollment(astronaut, work / "a.avatar")
    motion = (ROOT / "streamer/data/demo_motion.jsonl").read_text().splitlines(keepends=True)
    (work / "m.jsonl").write_text("".join(motion[:4]))
    places = {"A": "a.avatar", "M": "m.jsonl", "P": str(astronaut_photo), "F": "f.wav"}
    if command == "run":
        subprocess.run(
            [sys.executable, "-c", "import wave\nwith wave.open('f.wav', 'wb') as f:\n"
             "    f.setnchannels(1); f.setsampwidth(2); f.setframerate(16000); f.writeframes(bytes(32000))"],
            cwd=work, check=True,
        )  # fmt: skip
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
        "HOME": str(home),
        "VISAVIS_MODELS": str(find_model(next(iter(MODELS))).parent),
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "ASKED": str(asked),
    }
    done = subprocess.run(
        [sys.executable, "-m", "streamer.cli.main", *(places.get(word, word) for word in COMMANDS[command])],
        cwd=work, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not asked.exists(), asked.read_text()
    left = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()}
    assert all(name.startswith((".cache/visavis/", ".cache/matplotlib/")) for name in left), left
