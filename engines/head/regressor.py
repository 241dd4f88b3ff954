"""The regressor: a small network that reads the head 3DMM's parameters straight from a 128 × 128 crop.

Pure functions for the crop and for what the network's numbers mean, the network, and its weights file.
Crops use continuous pixel coordinates: pixel i covers i … i + 1, as MediaPipe's landmarks do.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.errors import ModelError
from engines.geometry import F64, Similarity, rotation_from_degrees, rotation_matrix
from engines.head.landmark_names import IRIS_LEFT, IRIS_RIGHT, LANDMARK_COUNT
from engines.head.model import HeadModel
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

WEIGHTS_PATH = Path(__file__).parents[1] / "data" / "regressor.safetensors"
FORMAT, VERSION = "visavis-regressor", 1
_AGAIN = "install visavis again, or in a checkout train anew: python -m scripts.train_regressor --help"

INPUT_PX = 128
CROP_PER_FACE = 1.4  # side of the crop over the longer side of the landmarks' box
SCALE_PX_PER_HU = 55.0  # what a face that fills its crop as it should measures; only a starting point
IDENTITY_MODES = 40
SKIN_LANDMARKS = LANDMARK_COUNT - 10  # the last ten are the irises: they turn with the gaze


# --- crop geometry -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of a picture: centre (`x_px`, `y_px`) and `side_px`, turned by `roll_rad` (clockwise)."""

    x_px: float
    y_px: float
    side_px: float
    roll_rad: float = 0.0

    def to_picture(self, size_px: int) -> F64:
        """(2, 3): pixels of a crop of `size_px` → pixels of the picture."""
        k = self.side_px / size_px
        c, s = np.cos(self.roll_rad) * k, np.sin(self.roll_rad) * k
        turn = np.array([[c, -s], [s, c]])
        shift = np.array([self.x_px, self.y_px]) - turn @ np.full(2, size_px / 2)
        return np.column_stack([turn, shift])

    def to_crop(self, size_px: int) -> F64:
        """(2, 3): pixels of the picture → pixels of a crop of `size_px`."""
        return np.asarray(cv2.invertAffineTransform(self.to_picture(size_px)), np.float64)


def move_points(matrix: F64, points: F32 | F64) -> F64:
    """Points (N, 2 or 3) through an affine similarity (2, 3); z is scaled along."""
    points = np.asarray(points, np.float64)
    out = points.copy()
    out[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    out[:, 2:] *= np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return out


def face_extent(points_px: F32 | F64) -> tuple[float, float, float]:
    """(x, y, size): middle and longer side of the box around face landmarks (478, 2 or 3), irises left out."""
    skin = points_px[:SKIN_LANDMARKS, :2]
    low, high = skin.min(0), skin.max(0)
    x, y = (low + high) / 2
    return float(x), float(y), float((high - low).max())


def box_around(points_px: F32 | F64, crop_per_face: float = CROP_PER_FACE) -> CropBox:
    """The upright crop for a face with these landmarks."""
    x, y, size = face_extent(points_px)
    return CropBox(x, y, size * crop_per_face)


def cut(image: U8, box: CropBox, size_px: int = INPUT_PX) -> U8:
    """The crop (size, size, 3) of `image`; beyond the border its edge goes on.

    Shrunk by whole pixels first where it is much larger, or it would alias.
    """
    to_crop = box.to_crop(size_px)
    factor = int(box.side_px / size_px)
    if factor > 1:
        height, width = image.shape[:2]
        reach = box.side_px * (0.5 if box.roll_rad == 0 else 0.75) + factor
        left, right = _span(box.x_px, reach, width, factor)
        top, bottom = _span(box.y_px, reach, height, factor)
        if right > left and bottom > top:
            size = ((right - left) // factor, (bottom - top) // factor)
            part = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
            image = np.asarray(part, np.uint8)
            to_crop = to_crop.copy()
            to_crop[:, 2] += to_crop[:, :2] @ np.array([left, top], np.float64)
            to_crop[:, :2] *= factor
    centres = to_crop.copy()  # OpenCV counts from the middle of the first pixel
    centres[:, 2] += to_crop[:, :2] @ np.full(2, 0.5) - 0.5
    out = cv2.warpAffine(
        image, centres, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(out, np.uint8)


def _span(centre: float, reach: float, length: int, factor: int) -> tuple[int, int]:
    start = max(0, int(centre - reach))
    stop = min(length, int(centre + reach) + 1)
    return start, start + (stop - start) // factor * factor


# --- what the numbers mean -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter lies in the network's output (D,)."""

    identity_count: int = IDENTITY_MODES

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each part, in order."""
        return {
            "expression": EXPRESSION_COUNT,
            "identity": self.identity_count,
            "rotation": 6,  # two columns of the matrix (Zhou et al. 2019): no jump anywhere
            "place": 3,  # face centre from the crop's, in half crops, and log of the scale
            "gaze": 4,
            "closure": 3,
            "confidence": 1,  # logit
        }

    @property
    def length(self) -> int:
        """D."""
        return sum(self.sizes.values())

    def part(self, name: str) -> slice:
        """Where part `name` lies."""
        start = 0
        for key, size in self.sizes.items():
            if key == name:
                return slice(start, start + size)
            start += size
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One face, read from one crop.

    `expression` (52,), `identity` (K,) standard deviations, `rotation` (3, 3), `gaze_rad` (2, 2), `closure`
    (3,) 0 … 1, `confidence` 0 … 1; in pixels of the crop the middle of the face `centre_px` (2,) and the
    length of a head unit `scale_px`.
    """

    expression: F32
    identity: F32
    rotation: F64
    centre_px: F64
    scale_px: float
    gaze_rad: F32
    closure: F32
    confidence: float


def read_output(raw: F32, layout: Layout) -> Prediction:
    """The network's numbers (D,) as a prediction; never fails, whatever they are, if they are finite."""
    p = {name: raw[layout.part(name)].astype(np.float64) for name in layout.sizes}
    place = p["place"]
    return Prediction(
        expression=np.clip(p["expression"], -0.25, 1.25).astype(np.float32),
        identity=np.clip(p["identity"], -4, 4).astype(np.float32),
        rotation=rotation_from_6d(p["rotation"]),
        centre_px=(np.clip(place[:2], -2, 2) + 1) * INPUT_PX / 2,
        scale_px=float(SCALE_PX_PER_HU * np.exp(np.clip(place[2], -2, 2))),
        gaze_rad=p["gaze"].reshape(2, 2).astype(np.float32),
        closure=np.clip(p["closure"], 0, 1).astype(np.float32),
        confidence=float(1 / (1 + np.exp(-np.clip(p["confidence"][0], -30, 30)))),
    )


def rotation_from_6d(six: F64) -> F64:
    """Two vectors (6,) → the rotation (3, 3) whose first columns they span, by Gram and Schmidt.

    None at all when they span nothing.
    """
    a, b = six[:3], six[3:]
    length = float(np.linalg.norm(a))
    if length < 1e-9:
        return np.eye(3)
    x = a / length
    b = b - (x @ b) * x
    length = float(np.linalg.norm(b))
    if length < 1e-9:
        return np.eye(3)
    y = b / length
    return np.column_stack([x, y, np.cross(x, y)])


@dataclass(frozen=True, slots=True)
class FaceBasis:
    """The head model where the network is compared: P points, the 478 landmarks first.

    `mean_hu` (P, 3), `identity_hu` (K, P, 3), `expression_hu` (52, P, 3), `anchor_hu` (3,) the middle of the
    mean face, `eyes_hu` (2, 3) right and left eyeball.
    """

    mean_hu: F32
    identity_hu: F32
    expression_hu: F32
    anchor_hu: F32
    eyes_hu: F32

    def shape(self, identity: F32) -> F32:
        """Expressionless points (P, 3) of a person."""
        return self.mean_hu + np.tensordot(identity, self.identity_hu[: len(identity)], 1)

    def decode(self, prediction: Prediction) -> F32:
        """Un-posed points (P, 3) in head units, irises turned by the gaze."""
        neutral = self.shape(prediction.identity)
        out = neutral + np.tensordot(prediction.expression, self.expression_hu, 1)
        for side, first in enumerate((IRIS_RIGHT, IRIS_LEFT)):
            iris = slice(first, first + 5)
            eye = self.eyes_hu[side] + (neutral[iris] - self.mean_hu[iris]).mean(0)
            yaw, pitch = np.degrees(prediction.gaze_rad[side])
            turn = rotation_matrix(rotation_from_degrees(float(yaw), float(pitch), 0.0))
            out[iris] = eye + (neutral[iris] - eye) @ turn.T
        return out.astype(np.float32)


def face_basis(model: HeadModel, modes: int = IDENTITY_MODES, more: int = 0) -> FaceBasis:
    """Landmarks of `model` and `more` vertices spread over its head, with its first `modes` identity modes."""
    head = np.flatnonzero((model.rigidity > 0.99) & (model.eye_side == 0))
    extra = head[np.linspace(0, len(head) - 1, more).astype(int)] if more else head[:0]

    def points(field: F32) -> F32:
        return np.concatenate([model.landmarks(field), field[extra]]).astype(np.float32)

    mean = points(model.mean_hu)
    return FaceBasis(
        mean_hu=mean,
        identity_hu=np.stack([points(mode) for mode in model.identity_hu[:modes]]),
        expression_hu=np.stack([points(mode) for mode in model.expression_hu]),
        anchor_hu=mean[:SKIN_LANDMARKS].mean(0),
        eyes_hu=model.joints.eyes,
    )


def place_head(prediction: Prediction, box: CropBox, anchor_hu: F32) -> Similarity:
    """Head units → pixels of the picture that the crop `box` was cut from (z in pixels too)."""
    to_picture = box.to_picture(INPUT_PX)
    x, y = move_points(to_picture, prediction.centre_px[None])[0]
    roll = rotation_matrix(np.array([0.0, 0.0, box.roll_rad]))
    rotation = roll @ prediction.rotation
    scale = prediction.scale_px * box.side_px / INPUT_PX
    shift = np.array([x, y, 0.0]) - scale * rotation @ anchor_hu.astype(np.float64) * np.array([1, 1, 0])
    return Similarity(scale, rotation, shift)


# --- the network ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetShape:
    """Channels of the stem and of each stage, residual blocks per stage, channels of the fine map, and how many
    identity modes.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 1, 2, 1)
    detail: int = 8
    hidden: int = 256
    identity_count: int = IDENTITY_MODES


class _Unit(nn.Sequential):
    """Convolution, normalisation while training (folded into the convolution afterwards), ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, norm: bool, relu: bool) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not norm),
            nn.BatchNorm2d(outputs) if norm else nn.Identity(),
            nn.ReLU() if relu else nn.Identity(),
        )


class _Block(nn.Module):
    """He et al. 2016, fig. 2: `relu(F(x) + x)`."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.first = _Unit(inputs, outputs, 3, stride, norm, relu=True)
        self.second = _Unit(outputs, outputs, 3, 1, norm, relu=False)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else _Unit(inputs, outputs, 1, stride, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H', W')."""
        return torch.relu(self.second(self.first(x)) + self.skip(x))


class RegressorNet(nn.Module):
    """RGB crops (B, 3, 128, 128) in 0 … 1 → parameters (B, D), see `Layout`.

    Plain 3 × 3 residual blocks, not depthwise ones: at the same multiplications they run as fast in OpenVINO
    and train five times faster on a CPU. Beside the average over the picture two thin maps are kept: 4 × 4,
    since an average forgets where the face is, and 16 × 16, where an eye still has a cell for each corner.
    """

    def __init__(self, shape: NetShape, norm: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.layout = Layout(shape.identity_count)
        channels = shape.widths[0]
        body: list[nn.Module] = [_Unit(3, channels, 3, 2, norm, relu=True)]
        for width, count in zip(shape.widths[1:], shape.blocks, strict=True):
            for index in range(count):
                body.append(_Block(channels, width, 2 if index == 0 else 1, norm))
                channels = width
        self.body = nn.Sequential(*body)
        coarse, fine = INPUT_PX // 2 ** len(shape.widths), INPUT_PX // 8
        self.map = _Unit(channels, 32, 1, 1, norm, relu=True)
        self.fine_after = sum(shape.blocks[:2])
        self.fine = _Unit(shape.widths[2], shape.detail, 1, 1, norm, relu=True)
        self.hidden = nn.Linear(channels + 32 * coarse**2 + shape.detail * fine**2, shape.hidden)
        self.out = nn.Linear(shape.hidden, self.layout.length)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 128, 128) → (B, D)."""
        x = (x - 0.45) * 4
        maps: list[Tensor] = []
        for index, layer in enumerate(self.body):
            x = layer(x)
            if index == self.fine_after:
                maps.append(self.fine(x).flatten(1))
        features = torch.cat([x.mean((2, 3)), self.map(x).flatten(1), *maps], 1)
        return self.out(torch.relu(self.hidden(features)))


def without_norm(net: RegressorNet) -> RegressorNet:
    """A copy in eval mode whose normalisations are folded into the convolutions; gives the same numbers."""
    out = copy.deepcopy(net).eval()
    for unit in [m for m in out.modules() if isinstance(m, _Unit)]:
        conv, norm = unit[0], unit[1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            unit[0], unit[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return out


def as_input(crop: U8) -> Tensor:
    """A crop (128, 128, 3) as the network takes it: (1, 3, 128, 128) float32 in 0 … 1."""
    planes = np.ascontiguousarray(crop.transpose(2, 0, 1))
    return torch.from_numpy(planes)[None].float() / 255


def save_regressor(path: Path, net: RegressorNet, notes: dict[str, str | float]) -> None:
    """Write the weights as float16; `notes` (how they came about) go into the header."""
    plain = without_norm(net)
    tensors = {k: v.detach().half().contiguous() for k, v in plain.state_dict().items()}
    header = {"format": FORMAT, "version": VERSION, "shape": asdict(net.shape), **notes}
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, str(part), metadata={"visavis": json.dumps(header)})
    part.replace(path)


def load_regressor(path: Path = WEIGHTS_PATH) -> RegressorNet:
    """The committed network in eval mode; raises ModelError with the fix for a file that does not fit."""
    if not path.is_file():
        raise ModelError(f"{path} is missing: the regressor has no weights; {_AGAIN}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {n: file.get_tensor(n).float() for n in file.keys()}  # noqa: SIM118
        header = json.loads(metadata.get("visavis", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no weights file or is truncated; {_AGAIN}") from error
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        found = f"{header.get('format')} version {header.get('version')}"
        raise ModelError(f"{path} is {found}, expected {FORMAT} version {VERSION}; {_AGAIN}")
    try:
        s = header["shape"]
        numbers = (int(s[name]) for name in ("detail", "hidden", "identity_count"))
        shape = NetShape(tuple(s["widths"]), tuple(s["blocks"]), *numbers)
        net = RegressorNet(shape)
        net.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: its tensors do not fit the shape in its header; {_AGAIN}") from error
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ModelError(f"{path} holds a number that is not finite; {_AGAIN}")
    return net.eval()
