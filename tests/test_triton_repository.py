"""A model repository for Triton: config.pbtxt read back by protobuf, each model run in ONNX Runtime as told."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engines.compile import triton_repository as ours
from engines.compile.ahead import build_ahead
from engines.compile.network import Network
from engines.compile.triton_repository import CONFIG, PerCall, config_of, ports_of, write_model
from engines.errors import EngineError
from engines.networks import networks_of

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed: ./scripts/test brings it")
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: ./scripts/test brings it"
)
pytest.importorskip("onnxscript", reason="onnxscript is not installed: ./scripts/test brings it")

# what Triton's model_config.proto says of the messages and fields that we write; a text with others is refused
_ENUMS = {
    "DataType": (
        "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32",
        "FP64", "STRING", "BF16",
    ),
}  # fmt: skip
_MESSAGES: dict[str, Sequence[tuple[str, int, str]]] = {
    "Specific": [("versions", 1, "int64*")],
    "ModelVersionPolicy": [("specific", 3, "Specific")],
    "ModelInput": [("name", 1, "string"), ("data_type", 2, "DataType"), ("dims", 4, "int64*")],
    "ModelOutput": [("name", 1, "string"), ("data_type", 2, "DataType"), ("dims", 3, "int64*")],
    "ModelDynamicBatching": [("preferred_batch_size", 1, "int32*"), ("max_queue_delay_microseconds", 2, "uint64")],
    "ModelConfig": [
        ("name", 1, "string"),
        ("platform", 2, "string"),
        ("version_policy", 3, "ModelVersionPolicy"),
        ("max_batch_size", 4, "int32"),
        ("input", 5, "ModelInput*"),
        ("output", 6, "ModelOutput*"),
        ("dynamic_batching", 11, "ModelDynamicBatching"),
        ("backend", 17, "string"),
    ],
}  # fmt: skip
_NUMPY = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
_ONNX_RUNTIME = {"TYPE_FP32": "tensor(float)", "TYPE_INT64": "tensor(int64)"}


def _schema() -> Any:
    """The class of `ModelConfig`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="triton_subset.proto", package="triton", syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=f"TYPE_{value}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, told in fields:
            kind, many = told.rstrip("*"), told.endswith("*")
            made = message.field.add(name=field, number=number)
            made.label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES or kind in _ENUMS:
                made.type = kinds.TYPE_MESSAGE if kind in _MESSAGES else kinds.TYPE_ENUM
                made.type_name = f".triton.{kind}"
            else:
                made.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))


def parsed(text: str) -> Any:
    """What Triton would read: unknown names, wrong kinds and stray characters raise."""
    from google.protobuf import text_format

    return text_format.Parse(text, _schema()())


def kind_of(port: Any) -> str:
    field = port.DESCRIPTOR.fields_by_name["data_type"]
    return str(field.enum_type.values_by_number[port.data_type].name)


class Pair(nn.Module):
    """A picture and two crops of it, with a number a call: rows as the paths of `visavis` have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mix = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, picture: Tensor, crops: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        return self.mix(picture) * amount[:, :, None, None], self.mix(crops)


GIVEN = (torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 4, 4), torch.zeros(1, 1))
PAIR = Network("pair", Pair().eval(), GIVEN, "pair-weights-source")


def served(repository: Path, name: str) -> tuple[Any, Path]:
    """(the configuration, the model that it serves), of a repository laid out as Triton wants it."""
    config = parsed((repository / name / CONFIG).read_text(encoding="utf-8"))
    (number,) = config.version_policy.specific.versions
    return config, repository / name / str(number) / "model.onnx"


def ask(
    repository: Path, name: str, calls: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    """A batch as Triton would hand it on: refused where the configuration and the model differ."""
    config, model = served(repository, name)
    assert (config.name, config.backend) == (name, "onnxruntime")
    session = onnxruntime.InferenceSession(model.read_bytes())
    rows = {len(x) for x in calls.values()}
    assert len(rows) == 1
    assert max(rows) <= config.max_batch_size
    for told, had in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [p.name for p in told] == [p.name for p in had]
        for port, other in zip(told, had, strict=True):
            assert other.type == _ONNX_RUNTIME[kind_of(port)]
            assert isinstance(other.shape[0], str)  # any number of calls
            assert list(port.dims) == other.shape[1:]
    for port in config.input:
        assert list(calls[port.name].shape[1:]) == list(port.dims)
        assert calls[port.name].dtype == _NUMPY[kind_of(port)]
    found = dict(zip((p.name for p in config.output), session.run(None, dict(calls)), strict=True))
    for port in config.output:
        assert found[port.name].shape == (*rows, *port.dims)
        assert found[port.name].dtype == _NUMPY[kind_of(port)]
    return found


def answers_agree(network: Network, repository: Path, times: int, bound: float) -> None:
    """Of `times` calls at once, no two alike, and each call alone in torch."""
    torch.manual_seed(5)
    single = [tuple(torch.rand(x.shape) for x in network.example) for _ in range(times)]
    wrapped = PerCall(network.module, network.example)
    config, _ = served(repository, network.name)
    batches = zip(*(wrapped.per_call(given) for given in single), strict=True)
    calls = {p.name: torch.cat(rows).numpy() for p, rows in zip(config.input, batches, strict=True)}
    found = list(ask(repository, network.name, calls).values())
    for number, given in enumerate(single):
        with torch.no_grad():
            result = network.module(*given)
        for got, expected in zip(found, result if isinstance(result, tuple) else (result,), strict=True):
            one = got[number : number + 1] if len(expected) == 1 else got[number]
            off = np.abs(one - expected.numpy()).max() / max(1.0, float(expected.abs().max()))
            assert off < bound, network.name


def test_a_network_is_served_as_the_configuration_tells(tmp_path: Path) -> None:
    path, size, written = write_model(PAIR, "fp32", tmp_path)
    assert written
    assert size == path.stat().st_size
    config, model = served(tmp_path, "pair")
    assert path == model
    assert config.HasField("dynamic_batching")
    assert [(p.name, list(p.dims)) for p in config.input] == [
        ("picture", [3, 8, 8]), ("crops", [2, 3, 4, 4]), ("amount", [1]),
    ]  # fmt: skip
    for times in (1, 3):
        answers_agree(PAIR, tmp_path, times, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["visavis", "regressor", "speech", "idmatch"])
def test_every_network_is_served_as_its_configuration_tells(owner: str, tmp_path: Path) -> None:
    networks = networks_of(owner)
    built = list(build_ahead(networks, "triton", folder=tmp_path))
    assert [b.network for b in built] == [n.name for n in networks]
    for network in networks:
        answers_agree(network, tmp_path, 2, 2 / 255)


def test_half_precision_is_inside_the_model_alone(tmp_path: Path) -> None:
    write_model(PAIR, "fp16", tmp_path)
    answers_agree(PAIR, tmp_path, 2, 6 / 255)
    _, model = served(tmp_path, "pair")
    kinds = {
        w.data_type for w in onnx.load_from_string(model.read_bytes()).graph.initializer if len(w.dims) == 4
    }
    assert kinds == {onnx.TensorProto.FLOAT16}


# --- versions -------------------------------------------------------------------------------------


def test_what_is_there_is_left_and_another_network_is_another_version(tmp_path: Path) -> None:
    first, _, _ = write_model(PAIR, "fp32", tmp_path)
    stamp = first.stat().st_mtime_ns
    assert write_model(PAIR, "fp32", tmp_path) == (first, first.stat().st_size, False)
    assert first.stat().st_mtime_ns == stamp
    for number, other in enumerate((replace(PAIR, key="pair-others-source"), PAIR), 2):
        path, _, written = write_model(other, "fp32", tmp_path)
        assert written
        assert path == served(tmp_path, "pair")[1]
        assert path.parent.name == str(number)
    assert first.is_file()  # a server that still has it goes on
    assert write_model(PAIR, "fp16", tmp_path)[0].parent.name == "4"


def test_what_people_add_to_the_configuration_stays(tmp_path: Path) -> None:
    path, _, _ = write_model(PAIR, "fp32", tmp_path)
    config = tmp_path / "pair" / CONFIG
    text = config.read_text(encoding="utf-8") + "instance_group [ { count: 2 } ]\n"
    config.write_text(text, encoding="utf-8")
    assert write_model(PAIR, "fp32", tmp_path)[::2] == (path, False)
    assert config.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("broken", ["half a model", "no model", "no config", "another version served"])
def test_a_repository_that_is_not_whole_is_mended(broken: str, tmp_path: Path) -> None:
    path, _, _ = write_model(PAIR, "fp32", tmp_path)
    config = tmp_path / "pair" / CONFIG
    if broken == "half a model":
        path.write_bytes(path.read_bytes()[:1000])
    elif broken == "no model":
        path.unlink()
    elif broken == "no config":
        config.unlink()
    else:
        config.write_text(config.read_text(encoding="utf-8").replace("[ 1 ] }", "[ 7 ] }"), encoding="utf-8")
    path, _, written = write_model(PAIR, "fp32", tmp_path)
    assert written
    assert path.parent.name == "2"
    answers_agree(PAIR, tmp_path, 1, 1e-5)


def test_two_processes_at_once_write_two_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported, together = ours._exported, threading.Barrier(2)  # pyright: ignore[reportPrivateUsage]

    def at_once(network: Network, precision: Any) -> Any:
        model = exported(network, precision)
        together.wait(600)
        return model

    monkeypatch.setattr(ours, "_exported", at_once)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(write_model(PAIR, "fp32", tmp_path)[0]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert sorted(p.parent.name for p in found) == ["1", "2"]
    answers_agree(PAIR, tmp_path, 1, 1e-5)


def test_until_a_model_is_whole_the_server_goes_on_with_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(PAIR, "fp32", tmp_path)
    before = (tmp_path / "pair" / CONFIG).read_bytes()

    def full(path: Path, data: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ours, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        write_model(PAIR, "fp16", tmp_path)
    assert (tmp_path / "pair" / CONFIG).read_bytes() == before
    answers_agree(PAIR, tmp_path, 1, 1e-5)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "a" max_batch: 8', "no field named"),
        ('name: "a" max_batch_size: "8"', "8"),
        ('name: "a" input [ { data_type: TYPE_FLOAT32 } ]', "TYPE_FLOAT32"),
        ('name: "a" input [ { dims: [ 3, ] } ]', "]"),
    ],
)
def test_the_reader_of_these_tests_is_strict(text: str, said: str) -> None:
    from google.protobuf import text_format

    with pytest.raises(text_format.ParseError, match=said):
        parsed(text)


def test_a_model_without_a_row_a_call_is_refused() -> None:
    def model(shape: Sequence[Any], kind: int = 1) -> Any:
        ports = [onnx.helper.make_tensor_value_info(n, kind, shape) for n in "xy"]
        return onnx.helper.make_model(onnx.helper.make_graph([], "g", ports[:1], ports[1:]))

    inputs, outputs = ports_of(model(["rows", 3]))
    assert [(p.name, p.kind, p.dims) for p in (*inputs, *outputs)] == [
        ("x", "TYPE_FP32", (3,)), ("y", "TYPE_FP32", (3,)),
    ]  # fmt: skip
    for shape in ([1, 3], ["rows", "columns"], []):
        with pytest.raises(EngineError, match=r"Triton is not told of x: .* is not one row a call"):
            ports_of(model(shape))
    with pytest.raises(EngineError, match="of element type 14"):
        ports_of(model(["rows"], 14))


def test_a_repository_must_be_named_and_cards_must_not() -> None:
    with pytest.raises(EngineError, match="name a folder for it with -o"):
        list(build_ahead([PAIR], "triton"))
    with pytest.raises(EngineError, match="leave --target out"):
        build_ahead([PAIR], "triton", ("sm89",))


def test_a_configuration_is_text_of_its_own_kind() -> None:
    ports = [ours.Port("x", "TYPE_INT64", (2, 3)), ours.Port("y", "TYPE_FP32", ())]
    config = parsed(config_of("some-name", 12, ports, ports[:1]))
    assert config.name == "some-name"
    assert list(config.version_policy.specific.versions) == [12]
    assert [(p.name, kind_of(p), list(p.dims)) for p in config.input] == [
        ("x", "TYPE_INT64", [2, 3]), ("y", "TYPE_FP32", []),
    ]  # fmt: skip
