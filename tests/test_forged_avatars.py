"""Avatars that somebody forged, with a sha256 that is right: one sentence when they load, or a picture when drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from engines import enrollment as module
from engines.digest import digest_of
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.enrollment_bounds import MAX_FILE_BYTES
from engines.errors import EnrollmentError, ModelError, VisavisError
from engines.geometry import rotation_from_degrees
from engines.head.open import open_head_model
from engines.motion import Motion
from engines.renderer import Renderer
from streamer.serve.store import picture_of

pytestmark = pytest.mark.slow  # avatars are written by the hundred

Array = NDArray[Any]
Change = Callable[[dict[str, Array], dict[str, Any]], object]


@pytest.fixture(scope="module")
def genuine(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genuine") / "a.avatar"
    save_enrollment(astronaut, path)
    return path


def forged(genuine: Path, path: Path, change: Change) -> Path:
    """`genuine` after `change(tensors, header)`, signed again."""
    with safe_open(str(genuine), framework="numpy") as file:
        tensors: dict[str, Array] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["visavis"])
    change(tensors, header)
    raw = json.dumps(header, sort_keys=True)
    whole = {n: np.ascontiguousarray(t) for n, t in tensors.items()}
    save_file(whole, path, metadata={"visavis": raw, "sha256": digest_of(whole, raw)})
    return path


def refused_or_drawn(path: Path, generator: str | None = "geometric") -> str:
    """What is said of the avatar at `path`; "" when it loads and, with a `generator`, is drawn.

    Anything but a picture or one sentence fails.
    """
    try:
        e = load_enrollment(path)
    except EnrollmentError as error:
        return sentence(error)
    if generator is None:
        return ""
    try:
        renderer = Renderer(e, generator=generator, size_px=64)
        for motion in (e.motion, turned(e.motion)):
            assert renderer.render(motion).shape == (64, 64, 3)
        assert picture_of(e)[:2] == b"\xff\xd8"
    except VisavisError as error:
        return sentence(error)
    return ""


def sentence(error: VisavisError) -> str:
    said = str(error)
    assert "\n" not in said
    assert len(said) < 600
    return said


def turned(motion: Motion) -> Motion:
    rotation = rotation_from_degrees(12, 5, 3)
    return replace(
        motion, rotation_rad=rotation.astype(np.float32), gaze_rad=np.full((2, 2), 0.2, np.float32)
    )


def test_what_is_not_forged_is_drawn(genuine: Path, tmp_path: Path) -> None:
    assert refused_or_drawn(forged(genuine, tmp_path / "x.avatar", lambda *_: None)) == ""


# tensors


def bad_arrays(good: Array) -> Iterator[tuple[str, Array]]:
    """Every way to forge an array, by name."""
    yield "nothing", good[:0]
    yield "no columns", good[..., :0]
    yield "one of it", good[:1]
    yield "one column", good[..., :1]
    yield "one point", good[(slice(0, 1),) * good.ndim]
    yield "flat", good.reshape(-1)
    yield "another axis", good[None]
    yield "longer", np.repeat(good, 2, axis=0)
    yield "turned", np.ascontiguousarray(good.T)
    yield "zeros", np.zeros_like(good)
    yield "large", np.full_like(good, 255)
    yield "another type", good.astype(np.float64)
    yield "integers", good.astype(np.int16)
    yield "truth", good.astype(bool)
    if good.dtype.kind == "f":
        for value in (np.nan, np.inf, -np.inf, 3e38, 1e-38, -1.0, 1e6):
            yield f"all {value}", np.full_like(good, value)
            one = good.copy()
            one.reshape(-1)[-1] = value
            yield f"one {value}", one
    else:
        noise = np.random.default_rng(0).integers(0, 256, good.shape).astype(good.dtype)
        yield "noise", noise


@pytest.mark.parametrize("name", [*module._TENSORS, "features"])
def test_no_array_can_make_it_fail(name: str, genuine: Path, tmp_path: Path) -> None:
    with safe_open(str(genuine), framework="numpy") as file:
        key = name if name != "features" else next(n for n in file.keys() if n.startswith("features/"))  # noqa: SIM118
        good = file.get_tensor(key)
    refused = 0
    for how, bad in bad_arrays(good):
        path = forged(genuine, tmp_path / "x.avatar", lambda tensors, _, bad=bad: tensors.update({key: bad}))
        try:
            if name == "features":
                refused += bool(refused_or_drawn(path, "visavis" if how == "one point" else None))
            else:
                drawn = good.dtype.kind == "f" and how in (
                    "zeros",
                    "all -1.0",
                    "one -1.0",
                    "one 1e+06",
                    "large",
                )
                refused += bool(refused_or_drawn(path, "geometric" if drawn else None))
        except Exception as error:
            pytest.fail(f"{key}, {how}: {error!r}")
    path = forged(genuine, tmp_path / "x.avatar", lambda tensors, _: tensors.pop(key))
    assert bool(refused_or_drawn(path, None)) == (name != "features")
    assert refused >= 5


@pytest.mark.parametrize("value", [0, 255, None])
def test_whatever_the_pixels_are_it_is_drawn(value: int | None, genuine: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Array], _: dict[str, Any]) -> None:
        for name, array in tensors.items():
            if array.dtype == np.uint8:
                noise = np.random.default_rng(0).integers(0, 256, array.shape).astype(np.uint8)
                tensors[name] = noise if value is None else np.full_like(array, value)

    assert refused_or_drawn(forged(genuine, tmp_path / "x.avatar", change)) == ""


@pytest.mark.parametrize("kind", [np.float16, np.uint16, np.uint32, np.int64, np.complex64])
def test_no_type_can_make_it_fail(kind: type[np.generic], genuine: Path, tmp_path: Path) -> None:
    for key in ("photo", "identity"):

        def change(tensors: dict[str, Array], _: dict[str, Any], key: str = key) -> None:
            tensors[key] = tensors[key].astype(kind)

        path = forged(genuine, tmp_path / "x.avatar", change)
        assert "wrong type or shape" in refused_or_drawn(path) or kind is np.complex64


@pytest.mark.parametrize("name", ["BF16", "F8_E4M3", "F8_E5M2", "F4", "I4", "nothing"])
def test_no_type_that_numpy_lacks(name: str, genuine: Path, tmp_path: Path) -> None:
    data = genuine.read_bytes()
    assert b'"dtype":"F32"' in data[:100_000]
    path = tmp_path / "x.avatar"
    length = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + length].replace(b'"dtype":"F32"', f'"dtype":"{name}"'.encode())
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length :])
    assert "is not an avatar or is truncated" in refused_or_drawn(path)


# the header

NONSENSE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1e999, float("nan"), 10**400, "", "x" * 5000, "a\nb", "\ud800"),
    *([], [[]], {}, {"a": {}}, [1] * 9999),
)
FIELDS = (
    "name",
    "created_utc",
    "photo_sha256",
    "crop_px",
    "motion",
    "consent",
    "notices",
    "controls",
    "model",
    "version",
)


@pytest.mark.parametrize("field", FIELDS)
def test_no_header_can_make_it_fail(field: str, genuine: Path, tmp_path: Path) -> None:
    for value in NONSENSE:
        path = forged(
            genuine, tmp_path / "x.avatar", lambda _, header, value=value: header.update({field: value})
        )
        try:
            load_enrollment(path)
        except EnrollmentError as error:
            sentence(error)
        except Exception as error:
            pytest.fail(f"{field} = {value!r:.40}: {error!r}")
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header.pop(field))
    assert refused_or_drawn(path, None)


@pytest.mark.parametrize(
    "crop",
    [
        [0, 0, 0],
        [0, 0, -100],
        [0, 0, 1e-30],
        [0, 0, 1e30],
        [float("nan"), 0, 100],
        [0, float("inf"), 100],
        [0, 0, float("nan")],
        [1e9, 0, 100],
        [-1e9, 0, 100],
        [0, 512, 100],
        [0, 0],
        [0, 0, 100, 100],
        ["a", 0, 100],
        [[0], 0, 100],
    ],
)
def test_a_crop_that_is_none_is_refused(crop: list[Any], genuine: Path, tmp_path: Path) -> None:
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header.update(crop_px=crop))
    assert "lacks something an avatar must have" in refused_or_drawn(path)


@pytest.mark.parametrize("crop", [[0, 0, 1], [511, 511, 600], [-7000, -7000, 8000], [-90.5, 3.25, 511.3]])
def test_an_odd_crop_is_drawn(crop: list[float], genuine: Path, tmp_path: Path) -> None:
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header.update(crop_px=crop))
    assert refused_or_drawn(path) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"translation_hu": [0, 0, 0]},
        {"translation_hu": [0, 0, -6]},
        {"translation_hu": [0, 0, 1e-30]},
        {"translation_hu": [1e30, 0, 6]},
        {"rotation_rad": [1e30, 0, 0]},
        {"gaze_rad": [1e30] * 4},
        {"expression": [1e30] * 52},
        {"expression": [1] * 51},
        {"closure": [1e30] * 3},
        {"t": "x"},
        {"confidence": float("nan")},
    ],
)
def test_a_motion_that_is_none_is_refused(change: dict[str, Any], genuine: Path, tmp_path: Path) -> None:
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header["motion"].update(change))
    assert "lacks something an avatar must have" in refused_or_drawn(path)


@pytest.mark.parametrize(
    "change",
    [
        {"translation_hu": [0, 0, 0.3]},
        {"translation_hu": [3000, -3000, 9000]},
        {"rotation_rad": [6.9, 6.9, 6.9], "gaze_rad": [6.9] * 4},
        {"expression": [9.9] * 52, "closure": [-9, 9, 9]},
    ],
)
def test_an_odd_motion_is_drawn(change: dict[str, Any], genuine: Path, tmp_path: Path) -> None:
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header["motion"].update(change))
    assert refused_or_drawn(path) == ""


def test_photos_of_other_sizes(genuine: Path, tmp_path: Path) -> None:
    """The smallest that load, and strips."""
    for height, width in ((8, 8), (8, 256), (256, 8), (32, 1024)):

        def change(
            tensors: dict[str, Array], header: dict[str, Any], h: int = height, w: int = width
        ) -> None:
            tensors.update(photo=np.zeros((h, w, 3), np.uint8), matte=np.zeros((h, w), np.uint8))
            header["crop_px"] = [0, 0, max(h, w)]
            for name in ("landmarks_px", "uv_position_px"):
                tensors[name] = tensors[name] * np.float32(max(h, w) / 512)

        assert refused_or_drawn(forged(genuine, tmp_path / "x.avatar", change)) == ""


def test_a_map_of_one_texel(genuine: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, Array], _: dict[str, Any]) -> None:
        for name in ("uv_position_px", "uv_visibility", "uv_colour", "uv_pncc", "plate"):
            tensors[name] = tensors[name][:1, :1]

    assert refused_or_drawn(forged(genuine, tmp_path / "x.avatar", change)) == ""


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.avatar"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(EnrollmentError, match="is not an avatar"):
        load_enrollment(path)


# the head model's file


@pytest.mark.parametrize(
    "spec", ["ict:/etc/passwd", "bfm:/dev/zero", "flame:/proc/self/mem", "flame:/dev/stdin", "x:/y",
     "flame:" + 5000 * "x", "flame:" + 4000 * "x", "ict:" + 40 * f"/{100 * 'x'}", "flame:a\0b", "flame:a\x1b[31m\nb",
     "flame:~nobody-of-that-name/x", "flame:\ud800", 5000 * "x", "flame:."],
)  # fmt: skip
def test_a_head_model_is_named_by_path_and_never_pickled(spec: str, genuine: Path, tmp_path: Path) -> None:
    """Loading reads nothing; drawing opens what is named, as a head model of the kind, or says why not."""
    told = {"spec": spec, "digest": "0" * 64}
    path = forged(genuine, tmp_path / "x.avatar", lambda _, header: header.update(model=told))
    said = refused_or_drawn(path)
    assert said
    assert "\n" not in said
    assert said.isprintable() or "\ud800" in spec
    assert "root:" not in said, "nothing of the file is shown"


@pytest.mark.parametrize("spec", ["flame:" + 5000 * "x", "flame:a\0b", "flame:~nobody-of-that-name/x"])
def test_a_head_model_whose_name_none_can_have_is_not_there(spec: str) -> None:
    with pytest.raises(
        ModelError, match=r"the flame head model, is not there; correct --head-model"
    ) as caught:
        open_head_model(spec)
    sentence(caught.value)
