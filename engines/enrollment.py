"""`Enrollment`: everything known about one photo, in one safetensors file (no pickle, mode 0600)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engines.digest import digest_of
from engines.enrollment_bounds import (
    MAX_FILE_BYTES,
    MAX_HEADER_CHARACTERS,
    MAX_PATH_CHARACTERS,
    require_consistent,
    require_crop,
    require_features,
    require_motion,
    text,
    texts,
)
from engines.errors import EnrollmentError
from engines.files import PRIVATE, WholeFile
from engines.head.model import HeadModel
from engines.head.open import OWN, HeadModelRef, find_again, open_again
from engines.motion import Motion
from engines.retarget import Controls, ControlsError

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

FORMAT = "visavis-avatar"
VERSION = 3
READS_FROM = 2  # version 2 knew visavis's own head model alone
UV_POSITION_SIDE_PX = 512


@dataclass(frozen=True, slots=True)
class Consent:
    """Who agreed to the enrolling of this photo, and when (UTC, ISO 8601)."""

    name: str
    given_utc: str


@dataclass(frozen=True, slots=True)
class Enrollment:
    """One photo, enrolled. Positions are photo pixels, shapes are given in brackets.

    - `photo` (H, W, 3) uint8 RGB, `photo_sha256` of the bytes that were given.
    - `crop_px` (left, top, side): the standard square around the head; may reach beyond the photo.
    - `landmarks_px` (478, 3); `identity` (K,): α; `neutral_hu` (N, 3): the expressionless head
      `V̄ + B_id α + δ`, hair included.
    - `motion`: pose, expression and gaze in the photo, in the camera of the whole photo.
    - `uv_position_px` (S, S, 2) where each texel is in the photo, `uv_visibility` (S, S) uint8: 255 where the
      photo shows it, `uv_colour` (S, S, 3) uint8: its colour, holes filled, `uv_pncc` (S, S, 3) uint8.
    - `matte` (H, W) uint8: 255 on the person; `plate` (h, w, 3) uint8: the background behind, low-resolution.
    - `controls`: retargeting settings saved with the avatar; `model`: the head model it was fitted with, opened by
      `head_model_of`.
    - `glasses`: whether the person wears any; then what they cover goes with the skull (`engines.head.glasses`).
    - `features`: what a generator's encoder cached, by `generator/name`.
    """

    name: str
    created_utc: str
    photo_sha256: str
    photo: U8
    crop_px: tuple[float, float, float]
    landmarks_px: F32
    identity: F32
    neutral_hu: F32
    motion: Motion
    uv_position_px: F32
    uv_visibility: U8
    uv_colour: U8
    uv_pncc: U8
    matte: U8
    plate: U8
    consent: Consent | None = None
    notices: tuple[str, ...] = ()
    controls: Controls | None = None
    model: HeadModelRef = OWN
    glasses: bool = False
    features: Mapping[str, NDArray[np.generic]] = field(default_factory=dict[str, NDArray[np.generic]])


_TENSORS: dict[str, tuple[type[np.generic], int]] = {
    "photo": (np.uint8, 3),
    "landmarks_px": (np.float32, 2),
    "identity": (np.float32, 1),
    "neutral_hu": (np.float32, 2),
    "uv_position_px": (np.float32, 3),
    "uv_visibility": (np.uint8, 2),
    "uv_colour": (np.uint8, 3),
    "uv_pncc": (np.uint8, 3),
    "matte": (np.uint8, 2),
    "plate": (np.uint8, 3),
}
_FEATURE_PREFIX = "features/"


def save_enrollment(enrollment: Enrollment, path: Path) -> None:
    """Write atomically with mode 0600: a crash or Ctrl-C leaves the old file or none, never half of one."""
    write_private(path, avatar_bytes(enrollment))


def avatar_bytes(enrollment: Enrollment) -> bytes:
    """What an `.avatar` file of it holds."""
    tensors: dict[str, NDArray[np.generic]] = {
        n: np.ascontiguousarray(getattr(enrollment, n), kind) for n, (kind, _) in _TENSORS.items()
    }
    tensors |= {_FEATURE_PREFIX + n: np.ascontiguousarray(t) for n, t in enrollment.features.items()}
    consent = enrollment.consent
    header = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "name": enrollment.name,
            "created_utc": enrollment.created_utc,
            "photo_sha256": enrollment.photo_sha256,
            "crop_px": list(enrollment.crop_px),
            "motion": json.loads(enrollment.motion.to_json()),
            "consent": {"name": consent.name, "given_utc": consent.given_utc} if consent else None,
            "notices": list(enrollment.notices),
            "controls": enrollment.controls.to_dict() if enrollment.controls else None,
            "model": _told(enrollment.model),
            "glasses": enrollment.glasses,
        },
        sort_keys=True,
    )
    return save(tensors, metadata={"visavis": header, "sha256": digest_of(tensors, header)})


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all, mode 0600 from the first byte. Raises EnrollmentError."""
    try:
        file = WholeFile(path, mode=PRIVATE)
    except OSError as error:
        raise EnrollmentError(
            f"cannot write in {path.parent}: {error.strerror}; choose another place with -o"
        ) from error
    try:
        file.part.write_bytes(data)
        file.keep()
    except OSError as error:
        raise EnrollmentError(
            f"cannot write {path}: {error.strerror}; free some space or choose another place"
        ) from error
    finally:
        file.drop()


def load_enrollment(path: Path, called: str | None = None) -> Enrollment:
    """Read an `.avatar`; raises EnrollmentError when it is missing, truncated, tampered with or too new.

    `called`: what the messages call it (default: `path`).
    """
    called = called or str(path)
    again = "enroll the photo again: visavis enroll PHOTO"
    if not path.is_file():
        raise EnrollmentError(
            f"there is no avatar file {path}; make one with `visavis enroll PHOTO -o {path.name}`"
        )
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        with safe_open(str(path), framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, NDArray[np.generic]] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise EnrollmentError(f"{called} is not an avatar or is truncated; {again}") from error
    raw = metadata.get("visavis", "")
    try:
        if len(raw) > MAX_HEADER_CHARACTERS:
            raise ValueError("too long")
        header = json.loads(raw)
        kind, version = header["format"], int(header["version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EnrollmentError(f"{called} is not an avatar; {again}") from error
    if kind != FORMAT:
        raise EnrollmentError(f"{called} is not an avatar; {again}")
    if version < READS_FROM:
        raise EnrollmentError(
            f"{called} was enrolled by an older visavis (version {version} of {VERSION}); {again}"
        )
    if version > VERSION:
        raise EnrollmentError(
            f"{called} is avatar version {version}, this visavis reads {VERSION}; update visavis"
        )
    if digest_of(tensors, raw) != metadata.get("sha256"):
        raise EnrollmentError(
            f"{called} was changed after it was enrolled (its sha256 does not match); {again}"
        )
    try:
        for name, (dtype, dimensions) in _TENSORS.items():
            if tensors[name].dtype != dtype or tensors[name].ndim != dimensions:
                raise ValueError(f"{name} has the wrong type or shape")
        require_consistent(tensors)
        consent = header["consent"]
        left, top, side = (float(v) for v in header["crop_px"])
        require_crop((left, top, side), tensors["photo"].shape[1], tensors["photo"].shape[0])
        motion = Motion.from_json(json.dumps(header["motion"]))
        require_motion(motion)
        features = {
            n.removeprefix(_FEATURE_PREFIX): t for n, t in tensors.items() if n.startswith(_FEATURE_PREFIX)
        }
        require_features(features)
        return Enrollment(
            name=text(header["name"]),
            created_utc=text(header["created_utc"]),
            photo_sha256=text(header["photo_sha256"]),
            crop_px=(left, top, side),
            motion=motion,
            consent=Consent(text(consent["name"]), text(consent["given_utc"])) if consent else None,
            notices=texts(header["notices"]),
            controls=Controls.from_dict(header["controls"]) if header["controls"] else None,
            model=_model_ref(header["model"]),
            glasses=header.get("glasses", False) is True,  # files before it did not ask
            features=features,
            **{n: tensors[n] for n in _TENSORS},  # pyright: ignore[reportArgumentType]
        )
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError, ControlsError) as error:
        raise EnrollmentError(f"{called} lacks something an avatar must have ({error}); {again}") from error


def _told(ref: HeadModelRef) -> object:
    return {"spec": ref.spec, "digest": ref.digest}


def _model_ref(told: object) -> HeadModelRef:
    """Raises KeyError, TypeError or ValueError for what is none."""
    if isinstance(told, str):  # version 2
        told = {"spec": told, "digest": ""}
    if not isinstance(told, dict):
        raise TypeError("the head model is no object")
    ref = HeadModelRef(str(told["spec"]), str(told["digest"]))
    if len(ref.spec) > MAX_PATH_CHARACTERS or len(ref.digest) > MAX_PATH_CHARACTERS:
        raise ValueError(f"the head model {ref.spec[:20]!r} … has a name longer than a path may be")
    if not (ref.is_own or ref.digest):
        raise ValueError(f"the head model {ref.spec!r:.80} has no digest")
    return ref


def head_model_of(enrollment: Enrollment) -> HeadModel:
    """The head model that the person was fitted with; all that draws them must run on this one.

    Raises ModelError when its file is gone or another, EnrollmentError when the person's shape does not fit it.
    """
    model = open_again(enrollment.model)
    count, modes = len(enrollment.neutral_hu), len(enrollment.identity)
    if count != model.vertex_count or modes > len(model.identity_hu):
        raise EnrollmentError(
            f"{enrollment.name} does not fit its head model {model.name}: {count} vertices and {modes} shapes, not "
            f"{model.vertex_count} and {len(model.identity_hu)}; enroll the photo again: visavis enroll PHOTO"
        )
    return model


def with_head_model_found(enrollment: Enrollment, place: str | None = None) -> Enrollment:
    """The same person whose head model's file may have moved to `place`, a spec (default: the setting's).

    Raises ModelError when it is at neither place, EnrollmentError as `head_model_of`.
    """
    out = replace(enrollment, model=find_again(enrollment.model, place))
    head_model_of(out)
    return out


def renamed(enrollment: Enrollment, name: str) -> Enrollment:
    """The same enrollment under another name."""
    return replace(enrollment, name=name)
