"""Weights files: one format for all networks, checked before it is believed, and what each refusal says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

from engines.compile.weights import (
    NetworkKind,
    WeightsHeader,
    arrays_of,
    build_network,
    load_weights,
    save_weights,
)
from engines.digest import digest_of
from engines.errors import WeightsError
from engines.generators.visavis.blueprint import VisavisBlueprint
from engines.generators.visavis.networks import KIND as VISAVIS
from engines.head.regressor import file as regressor
from engines.speech import network as speech

KINDS = [
    (VisavisBlueprint.weights_path(), VISAVIS),
    (regressor.WEIGHTS_PATH, regressor.KIND),
    (speech.WEIGHTS, speech.KIND),
]
LINE = NetworkKind("line", 3, "scripts.train_line")
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float16)}
HEADER = WeightsHeader("line", 3, {"width": 2}, "MIT", "d1", {"l1": 0.5}, {"steps": 7})


def network_name(value: object) -> str | None:
    return value.name if isinstance(value, NetworkKind) else None


@pytest.mark.parametrize(("path", "kind"), KINDS, ids=network_name)
def test_the_shipped_weights_are_of_the_one_format(path: Path, kind: NetworkKind) -> None:
    tensors, about = load_weights(path, kind)
    assert tensors
    assert about.licence
    assert about.config
    assert about.notes
    assert path.stat().st_mode & 0o044


def test_the_shipped_tensors_are_those_that_were_trained() -> None:
    """Digests of the tensors as their trainings wrote them, before all networks had one format."""
    digests = {kind.name: load_weights(path, kind)[1].sha256[:16] for path, kind in KINDS}
    assert digests == {
        "visavis": "d5fc75bc1a0f6360",
        "regressor": "a1fbd602ab533469",
        "speech": "33c57c09c1b75c4b",
    }


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    save_weights(path, TENSORS, HEADER)
    tensors, about = load_weights(path, LINE)
    assert about == replace(HEADER, sha256=digest_of(TENSORS))
    assert {n: t.dtype for n, t in tensors.items()} == {"a": np.float32, "b": np.float32}
    assert all((tensors[n] == TENSORS[n]).all() for n in TENSORS)
    assert list(path.parent.iterdir()) == [path]


def test_the_digest_knows_names_shapes_and_kinds() -> None:
    others: list[dict[str, Any]] = [
        {"c": TENSORS["a"], "b": TENSORS["b"]},
        TENSORS | {"a": TENSORS["a"].reshape(3, 2)},
        TENSORS | {"b": TENSORS["b"].view(np.int16)},
        TENSORS | {"a": TENSORS["a"] + 1},
    ]
    assert len({digest_of(t) for t in [TENSORS, *others]}) == 5
    assert digest_of(dict(reversed(TENSORS.items()))) == digest_of(TENSORS)


def test_a_torch_network_is_rounded_as_torch_rounds() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(7, 5).to(memory_format=torch.contiguous_format)
    arrays = arrays_of(layer, np.float16)
    assert all((arrays[n] == t.half().numpy()).all() for n, t in layer.state_dict().items())
    assert arrays_of(layer, np.float32)["weight"].dtype == np.float32


def about(path: Path) -> dict[str, object]:
    """The header as it is in the file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["visavis"])


def header_changed(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        save_file(load(path.read_bytes()), str(path), {"visavis": json.dumps(about(path) | changes)})

    return change


def tampered(path: Path) -> None:
    raw, tensors = about(path), load(path.read_bytes())
    tensors["a"][0, 0] += 1
    save_file(tensors, str(path), {"visavis": json.dumps(raw)})


def headless(path: Path) -> None:
    path.write_bytes(save(load(path.read_bytes())))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "are missing"),
    "empty": (lambda p: p.write_bytes(b""), "damaged or no weights"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-4]), "damaged or no weights"),
    "text": (lambda p: p.write_text("weights"), "damaged or no weights"),
    "no header": (headless, "damaged or no weights"),
    "no fields": (header_changed(config=3), "damaged or no weights"),
    "no version": (header_changed(version=None), "damaged or no weights"),
    "old format": (header_changed(format="visavis-generator"), "'visavis-generator'.*an earlier visavis"),
    "other network": (header_changed(network="plane"), "of 'plane', not of 'line'"),
    "other version": (header_changed(version=2), "version 2, this visavis needs 3"),
    "tampered": (tampered, "changed after training"),
    "no number": (
        lambda p: save_weights(p, TENSORS | {"b": np.full(2, np.nan, np.float16)}, HEADER),
        "not finite",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_file_that_is_none_says_why_and_what_to_do(kind: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[kind]
    path = tmp_path / "w.safetensors"
    save_weights(path, TENSORS, HEADER)
    damage(path)
    again = r"; install visavis again, or in a checkout train anew: python -m scripts\.train_line --help$"
    with pytest.raises(WeightsError, match=rf"w\.safetensors.*{words}.*{again}"):
        load_weights(path, LINE)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError(), ValueError(), RuntimeError("size mismatch")])
def test_tensors_that_do_not_fit_say_so(error: Exception, tmp_path: Path) -> None:
    def build(*_: object) -> None:
        raise error

    save_weights(tmp_path / "w", TENSORS, HEADER)
    with pytest.raises(WeightsError, match=r"do not fit.*scripts\.train_line"):
        build_network(tmp_path / "w", LINE, build)


def test_speech_loads_without_torch() -> None:
    code = "import sys; from engines.speech.network import load_network; load_network(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
