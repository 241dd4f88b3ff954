"""`doctor`: facts in, findings out; probes that crash, hang or babble; a whole diagnosis in time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import AT_LAST_S

from engines.model_files import MODELS
from streamer.check import device_checks, doctor, probes
from streamer.check.doctor import CORE, LIBRARIES, Check, diagnose, render_text, to_json
from streamer.check.probes import run_probes
from streamer.check.told_ports import told_ports


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules the probe processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def all_installed() -> dict[str, str | None]:
    return {name: "1.0" for name, _ in CORE}


def all_loaded() -> dict[str, dict[str, Any]]:
    return {module: {"error": None} for _, module in CORE}


@pytest.mark.slow
def test_a_whole_diagnosis_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DEADLINE_S", AT_LAST_S)
    checks = diagnose()
    names = by_name(checks)
    assert len(names) == len(checks)
    wanted = (
        {"python", "NVIDIA GPU", "virtual camera", "motion of others"}
        | {name for name, _ in CORE}
        | set(MODELS)
    )
    assert wanted <= set(names)
    assert names["numpy"].status == "ok"
    assert all(check.fix for check in checks if check.status != "ok")
    assert not any("could not be checked" in check.detail for check in checks)
    assert not any("\n" in check.detail + check.fix for check in checks)


def test_a_failing_check_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(doctor, "run_probes", fail)
    monkeypatch.setattr(doctor, "installed_versions", fail)
    checks = by_name(diagnose())
    assert checks["packages"].detail == "could not be checked: RuntimeError: no luck"
    assert checks["python"].status == "ok"
    assert checks["engines"].status == "warn"


def test_nothing_answering_in_time_is_said_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_probes", lambda groups, deadline_s: {})
    monkeypatch.setattr(doctor, "installed_versions", all_installed)
    checks = by_name(diagnose())
    for name in ("torch", "mediapipe", "engines", "devices"):
        assert checks[name].status == "warn"
        assert "within 4 s" in checks[name].detail


def test_old_python() -> None:
    assert doctor.python_check((3, 10, 9))[0].status == "missing"
    assert doctor.python_check((3, 11, 0))[0].status == "ok"
    assert doctor.python_check((3, 13, 9))[0].status == "ok"
    assert doctor.python_check((3, 14, 0))[0].status == "missing"


def test_packages() -> None:
    versions, report = all_installed(), all_loaded()
    assert {check.status for check in doctor.package_checks(versions, report)} == {"ok"}
    versions["aiortc"] = None
    report["cv2"]["error"] = "ImportError: libGL.so.1: cannot open shared object file"
    report["torch"]["error"] = "it ends Python (status -4)"
    del report["mediapipe"]
    checks = by_name(doctor.package_checks(versions | {"torch": "2.13.0+cpu"}, report))
    assert checks["aiortc"].status == "missing"
    assert "-m pip install" in checks["aiortc"].fix
    assert "aiortc" in checks["aiortc"].fix
    assert checks["opencv-contrib-python"].fix == "sudo apt-get install -y libgl1"
    assert checks["torch"].fix.endswith("pip install --force-reinstall --no-deps torch==2.13.0")
    assert checks["mediapipe"].status == "warn"
    assert checks["numpy"] == Check("numpy", "ok", "1.0")


def test_two_opencvs_are_found_out() -> None:
    versions = all_installed() | {"opencv-python-headless": "4.12"}
    check = by_name(doctor.package_checks(versions, all_loaded()))["opencv twice"]
    assert check.status == "warn"
    assert "uninstall -y opencv-python-headless &&" in check.fix


def test_libraries() -> None:
    checks = by_name(doctor.library_checks("linux", lambda soname: "GL" in soname))
    assert checks["libGL.so.1"].status == "ok"
    assert checks["libglib-2.0.so.0"] == Check(
        "libglib-2.0.so.0", "missing", "not found; OpenCV needs it", "sudo apt-get install -y libglib2.0-0"
    )
    assert checks["libportaudio.so.2"].status == "warn"  # only microphones need it
    assert len(checks) == len(LIBRARIES)
    assert doctor.library_checks("darwin", lambda _: False) == []


def test_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("engines.model_files.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("engines.model_files._in_installed_packages", lambda spec: tmp_path / spec.name)
    assert {check.status for check in doctor.model_checks()} == {"ok"}
    monkeypatch.undo()
    monkeypatch.setattr("engines.model_files.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("engines.model_files.importlib.metadata.distributions", list)
    monkeypatch.delenv("VISAVIS_MODELS", raising=False)
    for check in doctor.model_checks():
        assert check.status == "missing"
        assert check.fix.endswith("-m engines.model_files")


CARD = {"cards": ["NVIDIA H200, 580.65.06, 143771 MiB"]}


@pytest.mark.parametrize(
    ("smi", "has_card", "torch", "statuses", "word"),
    [
        ({"cards": []}, False, None, ["ok"], "none"),
        (None, False, None, ["ok"], "none"),
        (None, True, None, ["warn"], "does not answer"),
        ({"cards": []}, True, None, ["warn"], "nvidia-driver"),
        (CARD, True, {"cuda": "13.0", "cuda_available": True}, ["ok", "ok"], "13.0, used by torch"),
        (CARD, True, {"cuda": "13.0", "cuda_available": False}, ["ok", "warn"], "update the NVIDIA driver"),
        (CARD, True, {"cuda": None, "cuda_available": False}, ["ok", "warn"], "--force-reinstall torch"),
        (CARD, True, {"error": "OSError: x"}, ["ok", "warn"], "torch does not load"),
        (CARD, True, None, ["ok", "warn"], "within 4 s"),
    ],
)
def test_gpu(smi: Any, has_card: bool, torch: Any, statuses: list[str], word: str) -> None:
    checks = doctor.gpu_checks(smi, has_card, torch)
    assert [check.status for check in checks] == statuses
    assert word in checks[-1].detail + checks[-1].fix


def test_a_card_is_seen_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (("0", "0x8086", "0x030000"), ("1", "0x10de", "0x040300"), ("2", "", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    assert not doctor.has_nvidia_card(tmp_path)  # an Intel card, and the sound of an NVIDIA one
    (tmp_path / "2" / "vendor").write_text("0x10de\n")
    (tmp_path / "2" / "class").write_text("0x030200\n")
    assert doctor.has_nvidia_card(tmp_path)
    assert not doctor.has_nvidia_card(tmp_path / "absent")


def test_engine_tiers_show_why_they_are_refused() -> None:
    tiers = [
        {"name": "tensorrt", "available": False, "reason": "no NVIDIA GPU"},
        {"name": "openvino", "available": True, "reason": ""},
        {"name": "torch", "available": True, "reason": "bf16"},
    ]
    checks = doctor.engine_checks({"error": None, "tiers": tiers})
    assert [check.detail for check in checks] == ["refused: no NVIDIA GPU", "used", "available: bf16"]
    none = doctor.engine_checks({"error": None, "tiers": tiers[:1]})
    assert none[0].status == "missing"
    assert none[0].fix
    assert doctor.engine_checks({"error": "ModuleNotFoundError: engines.compile.open"})[0].status == "warn"


DEVICES: dict[str, Any] = {
    "error": None,
    "cameras": ["0: Integrated Camera"],
    "refused": [],
    "microphones": ["Internal"],
    "virtual_cameras": ["visavis"],
    "audio_note": None,
    "driver_fix": "run `sudo modprobe v4l2loopback exclusive_caps=1`",
}


def test_devices() -> None:
    def checks(platform: str = "linux", **changes: Any) -> dict[str, Check]:
        return by_name(doctor.device_checks({**DEVICES, **changes}, platform))

    assert {check.status for check in checks().values()} == {"ok"}
    assert checks(cameras=[])["cameras"].status == "warn"
    assert "usermod -aG video" in checks(refused=["/dev/video0"])["cameras"].fix
    assert "DirectShow" in checks("win32", cameras=[])["cameras"].detail
    assert "AVFoundation" in checks("darwin", cameras=[])["cameras"].detail
    silent = checks(microphones=[], audio_note="no PortAudio")["microphones"]
    assert (silent.status, silent.detail) == ("warn", "no PortAudio")
    assert doctor.device_checks({"error": "ImportError: x"}, "linux")[0].status == "warn"
    assert doctor.device_checks(None, "linux")[0].status == "warn"


def test_virtual_camera(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parameter = tmp_path / "exclusive_caps"

    def check(platform: str = "linux", **changes: Any) -> Check:
        return doctor.virtual_camera_checks({**DEVICES, **changes}, platform, parameter)[0]

    monkeypatch.setattr(device_checks.importlib.util, "find_spec", lambda name: object())
    assert check().status == "ok"
    parameter.write_text("Y,N,N\n")
    assert check() == Check("virtual camera", "ok", "visavis")
    parameter.write_text("N,N,N\n")
    assert "exclusive_caps=1 card_label=visavis" in check().fix
    assert check(virtual_cameras=[]).fix == DEVICES["driver_fix"]
    assert check("darwin").status == "ok"
    monkeypatch.setattr(device_checks.importlib.util, "find_spec", lambda name: None)
    assert check().fix.endswith("-m pip install pyvirtualcam")


def test_probes_survive_what_modules_do(modules: Path) -> None:
    (modules / "good.py").write_text("print('hello')\nprint('{\"item\": \"numpy\"}')\nprint(3)\nprint([])\n")
    (modules / "broken.py").write_text("import nowhere_to_be_found\n")
    (modules / "leaving.py").write_text("import sys; sys.exit(3)\n")
    (modules / "crashing.py").write_text("import os; os._exit(42)\n")
    (modules / "last.py").write_text("")
    report = run_probes([["good", "broken", "leaving", "crashing", "last"]], AT_LAST_S)
    assert report["good"]["error"] is None
    assert "numpy" not in report
    assert report["broken"]["error"] == "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert report["leaving"]["error"] == "SystemExit: 3"
    assert report["crashing"]["error"] == "it ends Python (status 42)"
    assert report["last"]["error"] is None
    assert run_probes([["crashing"]], AT_LAST_S)["crashing"]["error"] == "it ends Python (status 42)"


def test_what_a_module_prints_is_no_answer(modules: Path) -> None:
    (modules / "chatty.py").write_text("print('{\"item\": \"half a line', end='')\n")
    report = run_probes([["json", "chatty"]], AT_LAST_S)
    assert set(report) == {"json", "chatty"}


@pytest.mark.slow
def test_probes_that_hang_are_ended_and_the_others_kept(modules: Path) -> None:
    (modules / "hanging.py").write_text(
        "import subprocess, sys, time\n"
        "code = 'import time, pathlib; time.sleep(40); pathlib.Path(r\"{ended}\").touch()'\n"
        "subprocess.Popen([sys.executable, '-c', code])\n"  # keeps the output open
        "time.sleep(3600)\n".replace("{ended}", str(modules / "ended"))
    )
    report = run_probes([["json", "hanging"], ["email"]], 5)
    assert not (modules / "ended").exists(), "it waited for what a probe had started"
    assert set(report) == {"json", "email"}


def test_the_current_folder_is_not_imported(
    modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    (tmp_path / "surprise.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert "No module named 'surprise'" in run_probes([["surprise"]], AT_LAST_S)["surprise"]["error"]


def test_nvidia_smi_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA L4, 580.1, 23034 MiB'\necho 'NVIDIA T4, 580.1, 15360 MiB'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probes.sys, "executable", sys.executable)
    answer = run_probes([["+nvidia"]], AT_LAST_S)["+nvidia"]
    assert answer["cards"] == ["NVIDIA L4, 580.1, 23034 MiB", "NVIDIA T4, 580.1, 15360 MiB"]
    smi.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert run_probes([["+nvidia"]], AT_LAST_S)["+nvidia"]["cards"] == []
    smi.unlink()
    assert run_probes([["+nvidia"]], AT_LAST_S)["+nvidia"]["cards"] == []


def test_rendering() -> None:
    command = "sudo apt-get install -y " + "x" * 300
    checks = [Check("one", "ok", "[bold]1.0[/bold]"), Check("another", "missing", "not here", command)]
    text = render_text(checks)
    assert "[bold]1.0[/bold]" in text  # details are no markup
    assert f"fix: {command}\n" in text  # one line, to be copied
    assert text.endswith("missing: another\n")
    assert "\x1b" not in text
    assert "\x1b[" in render_text(checks, color=True)
    assert render_text(checks[:1]).endswith("everything that visavis needs is here\n")
    assert render_text([])
    assert json.loads(to_json(checks))[1] == {
        "name": "another",
        "status": "missing",
        "detail": "not here",
        "fix": command,
    }


def test_what_serves_each_network_and_what_refused_it_though_it_works_here() -> None:
    tiers = [
        {"name": "tensorrt", "available": False, "reason": "no NVIDIA GPU"},
        {"name": "tensorrt-rtx", "available": True, "reason": "a card"},
        {"name": "openvino", "available": True, "reason": ""},
    ]
    refused = [["tensorrt", "no NVIDIA GPU"], ["tensorrt-rtx", "building failed: the operator Col2Im"]]
    networks = [
        {"name": "visavis-head", "tier": "openvino", "refused": refused},
        {"name": "visavis-paths", "tier": "tensorrt-rtx", "refused": []},
    ]
    checks = doctor.engine_checks({"error": None, "tiers": tiers, "networks": networks})
    found = {c.name: c.detail for c in checks if c.name.startswith("network ")}
    assert found == {
        "network visavis-head": (
            "served by openvino (tensorrt-rtx: building failed: the operator Col2Im; 1 refused as above)"
        ),
        "network visavis-paths": "served by tensorrt-rtx",
    }


def test_a_setting_that_names_no_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_ENGINES", "hat")
    report = run_probes([["+engines"]], AT_LAST_S)
    (check,) = doctor.engine_checks(report["+engines"])
    assert (check.status, check.fix) == ("warn", "correct or unset it")
    assert "there is no engine 'hat'" in check.detail


def test_who_may_tell_motion_is_named_and_taken_ports_are_said() -> None:
    status, detail, fix = told_ports(lambda _: True)
    assert (status, fix) == ("ok", "")
    assert "vts://PHONE" in detail
    status, detail, fix = told_ports(lambda port: port != 39539)
    assert status == "warn"
    assert "another program has UDP port 39539 (vmc)" in detail
    assert "--from vmc://:PORT" in fix


def test_a_virtual_microphone_is_made_or_the_fix_is_told() -> None:
    [fine] = device_checks.virtual_microphone_checks("linux", lambda: None)
    assert (fine.status, "--mic-to" in fine.detail) == ("ok", True)
    [gone] = device_checks.virtual_microphone_checks("linux", lambda: "no server answers; start one")
    assert (gone.status, gone.detail, gone.fix) == ("warn", "no server answers", "start one")
    [cable] = device_checks.virtual_microphone_checks("darwin", lambda: None)
    assert "BlackHole" in cable.detail
