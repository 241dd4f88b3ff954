"""`visavis doctor`: what this computer has of what visavis needs, and the one thing to type for the rest."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from engines.compile.names import ENGINES_SETTING
from engines.errors import EngineError, ModelError, ModelMissing, brief
from engines.head.names import HEAD_MODEL_SETTING, OWN_HEAD_MODEL
from engines.model_files import MODELS, find_model
from engines.native.loader import SETTING, how_drawing_is_compiled
from streamer.check.device_checks import device_checks, virtual_camera_checks, virtual_microphone_checks
from streamer.check.finding import DEADLINE_S, Check, Status
from streamer.check.probes import run_probes
from streamer.check.told_ports import told_ports
from streamer.sound.pulse import why_no_virtual_microphone

Report = Mapping[str, dict[str, Any]]

# (distribution, module); PortAudio's and the virtual camera's are checked with their devices
CORE: tuple[tuple[str, str], ...] = (
    ("numpy", "numpy"),
    ("torch", "torch"),
    ("openvino", "openvino"),
    ("safetensors", "safetensors"),
    ("mediapipe", "mediapipe"),
    ("opencv-contrib-python", "cv2"),
    ("pillow", "PIL"),
    ("pillow-heif", "pillow_heif"),
    ("av", "av"),
    ("aiortc", "aiortc"),
    ("fastapi", "fastapi"),
    ("uvicorn", "uvicorn"),
    ("python-multipart", "python_multipart"),
    ("typer", "typer"),
    ("rich", "rich"),
    ("pydantic-settings", "pydantic_settings"),
    ("platformdirs", "platformdirs"),
    ("prometheus-client", "prometheus_client"),
    ("matplotlib", "matplotlib"),
)
# soname → Debian's package and what needs it
LIBRARIES: dict[str, tuple[str, str]] = {
    "libGL.so.1": ("libgl1", "OpenCV"),
    "libEGL.so.1": ("libegl1", "the face tracker"),
    "libGLESv2.so.2": ("libgles2", "the face tracker"),
    "libglib-2.0.so.0": ("libglib2.0-0", "OpenCV"),
    "libportaudio.so.2": ("libportaudio2", "microphones"),
}
_OTHER_OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python-headless")
_PCI_FOLDER = Path("/sys/bus/pci/devices")
_AGAIN = "run `visavis doctor` again when the computer is less busy"
_PYTHON = shlex.quote(sys.executable)


def diagnose() -> list[Check]:
    """Every check, in under 5 seconds. Never raises: a check that fails is itself a finding."""
    report: dict[str, dict[str, Any]] = {}
    parts: list[tuple[str, Callable[[], list[Check]]]] = [
        ("probes", lambda: _fill(report)),
        ("python", lambda: python_check(sys.version_info[:3])),
        ("packages", lambda: package_checks(installed_versions(), report)),
        ("system libraries", lambda: library_checks(sys.platform, _loads)),
        ("models", model_checks),
        ("head model", lambda: head_model_checks(os.environ.get(HEAD_MODEL_SETTING, ""))),
        ("GPU", lambda: gpu_checks(report.get("+nvidia"), has_nvidia_card(), report.get("torch"))),
        ("engines", lambda: engine_checks(report.get("+engines"))),
        ("drawing", drawing_checks),
        ("devices", lambda: device_checks(report.get("+devices"), sys.platform)),
        ("motion of others", lambda: [Check("motion of others", *told_ports())]),
        ("virtual camera", lambda: virtual_camera_checks(report.get("+devices"), sys.platform)),
        ("virtual microphone", lambda: virtual_microphone_checks(sys.platform, why_no_virtual_microphone)),
    ]
    checks: list[Check] = []
    for name, part in parts:
        try:
            checks += part()
        except Exception as error:  # a doctor that falls ill helps nobody
            checks.append(Check(name, "warn", f"could not be checked: {brief(error)}", "please report this"))
    return checks


def render_text(checks: Sequence[Check], *, color: bool = False) -> str:
    """The checks as lines of text; fixes stand unwrapped on lines of their own, to be copied."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=color, color_system="standard" if color else None, width=200)
    styles = {"ok": "green", "warn": "yellow", "missing": "bold red"}
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        line = Text(f"{check.status:8}", styles[check.status])
        line.append(f"{check.name:{width}}  ", "bold").append(check.detail, "default")
        console.print(line, soft_wrap=True)
        if check.fix:
            console.print(Text(f"{'':8}fix: {check.fix}", "cyan"), soft_wrap=True)
    missing = [check.name for check in checks if check.status == "missing"]
    end = f"missing: {', '.join(missing)}" if missing else "everything that visavis needs is here"
    console.print(Text(end, "bold"), soft_wrap=True)
    return out.getvalue()


def to_json(checks: Sequence[Check]) -> str:
    """The checks as a JSON array of objects with name, status, detail and fix."""
    return json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)


# ---- the checks: facts in, findings out


def python_check(version: tuple[int, int, int]) -> list[Check]:
    """The interpreter's version."""
    text = ".".join(map(str, version)) + f", {sys.executable}"
    if (3, 11) <= version < (3, 14):
        return [Check("python", "ok", text)]
    fix = "install Python 3.11, 3.12 or 3.13 and with it visavis (in a checkout: ./scripts/run)"
    return [Check("python", "missing", text, fix)]


def package_checks(versions: Mapping[str, str | None], report: Report) -> list[Check]:
    """One check per core package: `versions` of what is installed, and what the probes' imports said."""
    checks: list[Check] = []
    for distribution, module in CORE:
        version = versions.get(distribution)
        if version is None:
            fix = f"{_PYTHON} -m pip install {shlex.quote(_requirement(distribution))}"
            checks.append(Check(distribution, "missing", "not installed", fix))
        elif module not in report:
            again = "run `visavis doctor` again when the computer is less busy"
            checks.append(
                Check(distribution, "warn", f"{version}, not loaded within {DEADLINE_S:g} s", again)
            )
        elif error := report[module].get("error"):
            fix = _import_fix(str(error), distribution, version)
            checks.append(Check(distribution, "missing", f"{version} does not load: {error}", fix))
        else:
            checks.append(Check(distribution, "ok", version))
    if others := [name for name in _OTHER_OPENCVS if versions.get(name)]:
        fix = f"{_PYTHON} -m pip uninstall -y {' '.join(others)} && {_PYTHON} -m pip install "
        fix += "--force-reinstall --no-deps opencv-contrib-python"
        detail = f"{', '.join(others)} overwrites the cv2 of opencv-contrib-python"
        checks.append(Check("opencv twice", "warn", detail, fix))
    return checks


def library_checks(platform: str, loads: Callable[[str], bool]) -> list[Check]:
    """System libraries on Linux; elsewhere the packages bring their own."""
    if not platform.startswith("linux"):
        return []
    checks: list[Check] = []
    for soname, (package, needed_by) in LIBRARIES.items():
        if loads(soname):
            checks.append(Check(soname, "ok", f"for {needed_by}"))
            continue
        status: Status = "warn" if needed_by == "microphones" else "missing"
        detail = f"not found; {needed_by} needs it"
        checks.append(Check(soname, status, detail, f"sudo apt-get install -y {package}"))
    return checks


def model_checks() -> list[Check]:
    """Each model file, looked for without fetching it."""
    checks: list[Check] = []
    for name in MODELS:
        try:
            checks.append(Check(name, "ok", str(find_model(name, download=False))))
        except ModelMissing:
            fix = f"{_PYTHON} -m engines.model_files"
            checks.append(Check(name, "missing", "no file with the pinned sha256 was found", fix))
    return checks


def head_model_checks(setting: str) -> list[Check]:
    """The head model that photos are enrolled on: which one is set, and whether it opens."""
    from engines.head.open import open_head_model

    try:
        model = open_head_model(setting)
    except ModelError as error:
        status: Status = "warn" if setting else "missing"
        fix = f"correct or unset {HEAD_MODEL_SETTING}" if setting else "install visavis again"
        return [Check("head model", status, str(error), fix)]
    detail = f"{setting or OWN_HEAD_MODEL}, {model.vertex_count} vertices"
    return [Check("head model", "ok", detail)]


def gpu_checks(smi: Mapping[str, Any] | None, has_card: bool, torch: Mapping[str, Any] | None) -> list[Check]:
    """The NVIDIA card: what nvidia-smi (`cards`: "name, driver, memory" each) and torch's probe say."""
    name = "NVIDIA GPU"
    if smi is None and has_card:
        return [Check(name, "warn", f"nvidia-smi does not answer within {DEADLINE_S:g} s", _AGAIN)]
    if not (smi and smi.get("cards")):
        if not has_card:
            return [Check(name, "ok", "none: networks run on the CPU")]
        fix = "sudo apt-get install nvidia-driver (Ubuntu: sudo ubuntu-drivers install), then start again"
        return [Check(name, "warn", "a card without a working driver: networks run on the CPU", fix)]
    checks = [Check(name, "ok", "; ".join(smi["cards"]))]
    if torch is None:
        return [*checks, Check("CUDA", "warn", f"torch did not load within {DEADLINE_S:g} s", _AGAIN)]
    if error := torch.get("error"):
        return [*checks, Check("CUDA", "warn", f"torch does not load: {error}", "see torch above")]
    built, usable = torch.get("cuda"), torch.get("cuda_available")
    if usable:
        return [*checks, Check("CUDA", "ok", f"{built}, used by torch")]
    if built:
        fix = "update the NVIDIA driver to one for CUDA " + str(built)
        return [*checks, Check("CUDA", "warn", f"torch is built for {built}, the driver refuses", fix)]
    fix = f"{_PYTHON} -m pip install --force-reinstall torch==2.13.0"
    return [*checks, Check("CUDA", "warn", "this torch is built for the CPU only", fix)]


def engine_checks(engines: Mapping[str, Any] | None) -> list[Check]:
    """The tiers that run networks, fastest first, with the reason for each that is refused."""
    if engines is None:
        return [Check("engines", "warn", f"not answered within {DEADLINE_S:g} s", _AGAIN)]
    if error := engines.get("error"):
        fix = "correct or unset it" if ENGINES_SETTING in str(error) else "see the packages above"
        return [Check("engines", "warn", f"cannot be listed: {error}", fix)]
    tiers: list[dict[str, Any]] = list(engines.get("tiers", []))
    chosen = next((tier["name"] for tier in tiers if tier["available"]), None)
    checks: list[Check] = []
    for tier in tiers:
        label = f"engine {tier['name']}"
        reason = str(tier.get("reason") or "")
        if tier["available"]:
            text = "used" if tier["name"] == chosen else "available"
            checks.append(Check(label, "ok", f"{text}: {reason}" if reason else text))
        else:
            # refused tiers are no fault where a slower one serves; their reasons are what one looks for
            fix = "" if chosen else "mend what its reason names, or the packages above"
            checks.append(Check(label, "ok" if chosen else "missing", f"refused: {reason}", fix))
    return [*checks, *network_checks(list(engines.get("networks", [])), {t["name"]: t for t in tiers})]


def drawing_checks() -> list[Check]:
    """Whether drawing is compiled for this computer: it is quicker so."""
    try:
        return [Check("drawing", "ok", how_drawing_is_compiled())]
    except EngineError as error:
        reason, _, fix = str(error).partition("; ")
        return [Check("drawing", "warn", reason, fix or f"unset {SETTING}")]


def network_checks(
    networks: Sequence[Mapping[str, Any]], tiers: Mapping[str, Mapping[str, Any]]
) -> list[Check]:
    """What took each network the last time that it was compiled, and why better tiers did not: what an engine says of
    a network, which it may refuse though it works here."""
    checks: list[Check] = []
    for network in networks:
        refused = [
            f"{name}: {reason}" for name, reason in network["refused"] if tiers.get(name, {}).get("available")
        ]
        others = len(network["refused"]) - len(refused)
        told = [*refused, *([f"{others} refused as above"] if others else [])]
        detail = f"served by {network['tier']}" + (f" ({'; '.join(told)})" if told else "")
        checks.append(Check(f"network {network['name']}", "ok", detail))
    return checks


# ---- the facts


def installed_versions() -> dict[str, str | None]:
    """Version of each package that a check asks for; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in (*(name for name, _ in CORE), *_OTHER_OPENCVS):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _fill(report: dict[str, dict[str, Any]]) -> list[Check]:
    # the slowest imports run side by side
    others = [module for _, module in CORE if module not in {"torch", "mediapipe"}]
    groups = [["torch", "+engines"], ["mediapipe"], [*others, "+devices"], ["+nvidia"]]
    report.update(run_probes(groups, DEADLINE_S))
    return []


def has_nvidia_card(folder: Path = _PCI_FOLDER) -> bool:
    """Whether the PCI bus holds an NVIDIA display card, with or without a driver."""
    for device in folder.glob("*") if folder.is_dir() else []:
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):  # PCI class 03: display
            return True
    return False


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _requirement(distribution: str) -> str:
    """The range that visavis asks for, as pip takes it; the bare name where visavis is not installed."""
    try:
        wanted = importlib.metadata.requires("visavis") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    pattern = re.compile(re.escape(distribution) + r"\s*[<>=!~]")
    return next((w for w in wanted if pattern.match(w) and "extra" not in w), distribution)


def _import_fix(error: str, distribution: str, version: str) -> str:
    for soname, (package, _) in LIBRARIES.items():
        if soname in error:
            return f"sudo apt-get install -y {package}"
    wanted = shlex.quote(f"{distribution}=={version.split('+')[0]}")
    return f"{_PYTHON} -m pip install --force-reinstall --no-deps {wanted}"
