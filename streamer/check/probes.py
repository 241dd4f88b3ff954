"""`run_probes`: imports and questions to drivers, which may crash or hang, asked until a deadline."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from engines.compile.openvino_import import load_openvino
from engines.errors import brief


def run_probes(groups: Sequence[Sequence[str]], deadline_s: float) -> dict[str, dict[str, Any]]:
    """Ask each group of items in a process of its own, all at once, and return the answers by item.

    An item is a module to import, or one of `_FACTS`. An answer has "error", None when all is well; an item
    that crashes Python has one, too. Items not reached within `deadline_s` are absent.
    """
    end_s = time.monotonic() + deadline_s
    report: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as files:
        running = [(list(group), *_start(group, files)) for group in groups]
        for group, process, output in running:
            try:
                status = process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                status = None
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold even a killed one
                    process.wait(0.2)
            output.seek(0)
            for line in output.read().decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # libraries print, too
                    facts = json.loads(line)
                    if facts["item"] in group:
                        report[facts["item"]] = facts
            silent = [item for item in group if item not in report]
            if silent and status is not None:
                report[silent[0]] = {"item": silent[0], "error": f"it ends Python (status {status})"}
                report |= run_probes([silent[1:]] if silent[1:] else [], end_s - time.monotonic())
    return report


def _start(items: Sequence[str], files: contextlib.ExitStack) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """A probe process and its output: a file, because a pipe stays open in what a probe may leave behind."""
    output = tempfile.TemporaryFile()  # noqa: SIM115  closed with the stack
    files.enter_context(output)
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from streamer.check.probes import probe; probe(sys.argv[1:])",
            *items,
        ],
        # without PYTHONSAFEPATH whatever lies in the current folder could be imported instead
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
    )
    return process, output


def probe(items: Iterable[str]) -> None:
    """What a probe process does: print one JSON line per item, a module to import or "+FACTS"."""
    for item in items:
        facts: dict[str, Any] = {"item": item, "error": None}
        try:
            if item in _FACTS:
                facts |= _FACTS[item]()
            else:
                module: Any = load_openvino() if item == "openvino" else importlib.import_module(item)
                if item == "torch":
                    facts |= {"cuda": module.version.cuda, "cuda_available": module.cuda.is_available()}
        except BaseException as error:  # a module may even exit
            facts["error"] = brief(error)
        print("\n" + json.dumps(facts), flush=True)


def _engine_facts() -> dict[str, Any]:
    module: Any = importlib.import_module("engines.compile.open")
    kept: Any = importlib.import_module("engines.compile.served_by")
    networks: Any = importlib.import_module("engines.networks")
    tiers: Any = module.tiers()
    owners = tuple(f"{owner}-" for owner in networks.owners())
    return {
        "tiers": [{"name": t.name, "available": bool(t.available), "reason": str(t.reason)} for t in tiers],
        "networks": [
            {"name": name, "tier": served.tier, "refused": [list(r) for r in served.refused]}
            for name, served in kept.ServedBy.all().items()
            if f"{name}-".startswith(owners)  # not of generators that are gone
        ],
    }


def _device_facts() -> dict[str, Any]:
    listing: Any = importlib.import_module("streamer.check.devices")
    virtualcam: Any = importlib.import_module("streamer.sinks.virtualcam")
    # away from Linux a camera is only found by opening it, with its light: not a doctor's to do
    devices: Any = listing.list_devices(camera_opens=lambda _number: False)
    linux = sys.platform.startswith("linux")
    nodes = [f"/dev/video{camera.number}" for camera in devices.cameras] if linux else []
    return {
        "cameras": [f"{camera.number}: {camera.name}" for camera in devices.cameras],
        "refused": [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)],
        "microphones": [microphone.name for microphone in devices.microphones],
        "virtual_cameras": [camera.name for camera in devices.virtual_cameras],
        "audio_note": next((note for note in devices.notes if "audio" in note), None),
        "driver_fix": virtualcam.driver_fix(),
    }


def _nvidia_facts() -> dict[str, Any]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return {"cards": []}  # not installed
    return {"cards": done.stdout.split("\n")[:-1] if done.returncode == 0 else []}


_FACTS: dict[str, Callable[[], dict[str, Any]]] = {
    "+engines": _engine_facts,
    "+devices": _device_facts,
    "+nvidia": _nvidia_facts,
}
