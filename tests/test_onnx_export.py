"""Every network as ONNX: standard operators alone, ONNX Runtime gives what torch gives, for any batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engines import networks
from engines.compile import onnx_export
from engines.compile.network import Network
from engines.compile.onnx_export import complaint_of, onnx_of
from engines.compile.openvino_engine import OpenVinoEngine
from engines.errors import EngineError
from engines.generators import weights_file
from engines.generators.registry import GENERATORS
from engines.networks import networks_of, owners
from engines.speech.features import FRAME_HZ
from engines.speech.network import INPUT_COUNT, SpeechNetwork, load_network

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed: ./scripts/test brings it")
onnxruntime: Any = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: ./scripts/test brings it"
)
pytest.importorskip("onnxscript", reason="onnxscript is not installed: ./scripts/test brings it")


def run(model: bytes, given: Sequence[Tensor]) -> list[Tensor]:
    """What ONNX Runtime makes of it."""
    session = onnxruntime.InferenceSession(model)
    wanted = session.get_inputs()
    assert len(wanted) == len(given)
    feed = {i.name: x.numpy() for i, x in zip(wanted, given, strict=True)}
    return [torch.from_numpy(np.asarray(x)) for x in session.run(None, feed)]


def stirred(network: Network) -> nn.Module:
    """The network with something in every weight: what begins as nothing would hide what is wrong before it."""
    module = copy.deepcopy(network.module)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return module.eval()


def shown(network: Network, times: int = 1) -> tuple[Tensor, ...]:
    """Inputs of `times` as many rows, in 0 … 1, no row as another; pictures are smooth, as photos are: in noise a
    hundredth of a pixel shows."""
    torch.manual_seed(5)
    found: list[Tensor] = []
    for x in network.example:
        shape = (times * len(x), *x.shape[1:])
        if x.dim() == 4:
            small = torch.rand(*shape[:2], *(-(-n // 8) for n in shape[2:]))
            found.append(F.interpolate(small, shape[2:], mode="bilinear"))
        else:
            found.append(torch.rand(shape))
    return tuple(found)


def told(module: nn.Module, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = module(*given)
    return result if isinstance(result, tuple) else (result,)


def farthest(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest difference, in shares of the largest number of each answer, or of 1."""
    pairs = list(zip(ones, others, strict=True))
    assert all(a.shape == b.shape and b.dtype == torch.float32 for a, b in pairs)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1)) for a, b in pairs)


def kinds_of_weights(model: bytes) -> set[int]:
    """Of the weights of convolutions and products, as they are stored."""
    graph = onnx.load_from_string(model).graph
    stored = {w.name: w.data_type for w in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    return {stored[node.input[1]] for node in layers if node.input[1] in stored}


@pytest.mark.slow
@pytest.mark.parametrize("owner", owners())
def test_each_network_for_any_batch_and_in_mixed_precision(owner: str) -> None:
    for network in networks_of(owner):
        module = stirred(network)
        whole = onnx_of(module, network.example, any_batch=True)
        for times in (1, 3):
            given = shown(network, times)
            assert farthest(told(module, given), run(whole, given)) < 2 / 255, (network.name, times)
        one = shown(network)
        expected = told(module, one)
        small = onnx_of(module, network.example, "fp16")
        assert farthest(expected, run(small, one)) < 6 / 255, network.name
        assert kinds_of_weights(small) == {onnx.TensorProto.FLOAT16}, network.name
        assert kinds_of_weights(whole) == {onnx.TensorProto.FLOAT}, network.name
        for model in (whole, small):
            onnx.checker.check_model(onnx.load_from_string(model), full_check=True)


def test_every_owner_of_networks_is_told() -> None:
    assert owners() == [*(n for n, e in GENERATORS.items() if e.blueprint), "regressor", "speech"]
    with pytest.raises(EngineError, match="no network 'hat'; choose one of: visavis"):
        networks_of("hat")


def test_keys_are_of_weights_and_source() -> None:
    found = networks_of("visavis")
    assert [n.name for n in found] == ["visavis-head", "visavis-paths", "visavis-encoder"]
    assert [n.key for n in networks_of("visavis")] == [n.key for n in found]
    assert len({n.key for n in found}) == 3
    one, other = (
        Network.of("a", nn.Conv2d(1, 1, 1), (torch.ones(1),), weights, without=without).key
        for weights, without in (("w", ()), ("w", ("flow",)))
    )
    assert one != other


def test_networks_that_nobody_has_trained_are_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights_file, "DATA", tmp_path)

    def numbers() -> list[bytes]:
        return [t.numpy().tobytes() for n in networks_of("pncc") for t in n.module.state_dict().values()]

    torch.manual_seed(11)
    before, first = torch.get_rng_state(), numbers()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert numbers() == first


@pytest.mark.parametrize(("cell", "features"), [("gru", "log-mel"), ("lstm", "mfcc")])
def test_the_speech_step_is_the_network_that_runs(cell: Any, features: Any) -> None:
    """Three steps of two streams, in torch and in numpy, state and all."""
    from engines.speech.layer import GATES
    from engines.speech.network import FEATURE_COUNTS, HOPS, OUTPUT_COUNT, SpeechConfig
    from engines.speech.step import SpeechStep

    rng, hidden, config = np.random.default_rng(0), 16, SpeechConfig(4, features, cell)
    assert config.look_ahead_hops < FRAME_HZ
    wide, gates = HOPS * FEATURE_COUNTS[config.features], GATES[config.cell] * hidden
    shapes: dict[str, tuple[int, ...]] = {"first.weight": (hidden, wide), "first.bias": (hidden,)}
    shapes |= {"head.weight": (OUTPUT_COUNT, hidden), "head.bias": (OUTPUT_COUNT,)}
    for k in (0, 1):
        shapes |= {f"{cell}.weight_{way}_l{k}": (gates, hidden) for way in ("ih", "hh")}
        shapes |= {f"{cell}.bias_{way}_l{k}": (gates,) for way in ("ih", "hh")}
    tensors = {n: (0.3 * rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()}
    step, runs = SpeechStep(tensors, config).eval(), SpeechNetwork(tensors, config)
    given = [torch.cat([x, x]) for x in step.example()]
    state, theirs = given[1:], runs.fresh(2)
    for _ in range(3):
        heard = rng.uniform(-10, 3, (2, INPUT_COUNT)).astype(np.float32)
        answer, *state = told(step, (torch.from_numpy(heard), *state))
        expected, theirs = runs(heard, theirs)
        assert np.abs(answer.numpy() - expected).max() < 1e-4


def test_the_speech_network_that_is_exported_has_the_weights_that_ship() -> None:
    (network,) = networks_of("speech")
    ships = load_network()
    heard = np.random.default_rng(1).uniform(-10, 3, (1, INPUT_COUNT)).astype(np.float32)
    ours = told(network.module, (torch.from_numpy(heard), *network.example[1:]))[0]
    assert np.abs(ours.numpy() - ships(heard, ships.fresh())[0]).max() < 1e-4


# --- what is no ONNX that anybody can run ---------------------------------------------------------


class Sampled(nn.Module):
    """Looks a volume or a picture up."""

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return F.grid_sample(x, where, align_corners=False)


class Shrunk(nn.Module):
    """Resizes with antialias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, (4, 4), mode="bilinear", antialias=True)


def test_what_compilers_refuse_is_refused_at_once() -> None:
    picture = (torch.rand(1, 2, 8, 8), torch.rand(1, 4, 4, 2))
    assert run(onnx_of(Sampled(), picture), picture)[0].shape == (1, 2, 4, 4)
    with pytest.raises(EngineError, match="GridSample of other than rank 4"):
        onnx_of(Sampled(), (torch.rand(1, 2, 8, 8, 8), torch.rand(1, 4, 4, 4, 3)))
    with pytest.raises(EngineError, match="a Resize with antialias"):
        onnx_of(Shrunk(), (torch.rand(1, 2, 8, 8),))


@pytest.mark.parametrize(
    ("name", "domain", "said"),
    [
        ("AffineGrid", "", "the operator AffineGrid"),
        ("DeformConv", "", "the operator DeformConv"),
        ("Fused", "com.example", "not ONNX's own: com.example"),
    ],
)
def test_operators_without_kernels_are_named(name: str, domain: str, said: str) -> None:
    node = onnx.helper.make_node(name, ["x"], ["y"], domain=domain)
    kinds = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", kinds[:1], kinds[1:]))
    assert said in str(complaint_of(model))


def test_a_function_of_ones_own_is_named() -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    kinds = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", kinds[:1], kinds[1:])
    opset = onnx.helper.make_opsetid("", 22)
    own = onnx.helper.make_function(
        "", "Own", ["a"], ["b"], [onnx.helper.make_node("Relu", ["a"], ["b"])], [opset]
    )
    assert complaint_of(onnx.helper.make_model(graph)) is None
    assert complaint_of(onnx.helper.make_model(graph, functions=[own])) == "functions of its own"


def test_a_network_that_cannot_be_exported_is_refused_in_one_sentence() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(EngineError, match="the export to ONNX failed: ") as raised:
        onnx_of(Sorted(), (torch.ones(2),))
    assert "\n" not in str(raised.value)


def test_without_the_packages_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onnx_export.export_refusal() is None
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(
        EngineError, match=r"^onnxscript is not installed; type: pip install 'visavis\[export\]'$"
    ):
        onnx_of(nn.ReLU(), (torch.ones(1),))
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    assert str(onnx_export.export_refusal()).startswith("onnx and onnxscript are not installed")


@pytest.mark.slow
def test_a_kept_network_of_another_engine_has_the_same_key() -> None:
    """What a generator compiles and what is compiled ahead for it are one network."""
    from engines.generators.visavis.generator import VisavisGenerator
    from engines.head.model import load_head_model

    generator = VisavisGenerator(load_head_model(), engines=(OpenVinoEngine(),))
    ahead = {n.key for n in networks.networks_of("visavis")}
    assert {n.key for n in generator.compiled} < ahead
