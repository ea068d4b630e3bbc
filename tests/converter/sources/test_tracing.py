"""PyTorch networks of users, each with one construct: the graph computes what the network computes, or the reason."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lmconv.errors import InputError, UsageError
from lmconv.graph import naming
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.sources.batches import BATCHES, batch_of
from lmconv.sources.export import export_session
from lmconv.sources.exporters import EXPORTERS, Traced
from lmconv.sources.pytorch import TorchSource
from lmconv.sources.resolve import open_source, resolve
from lmconv.sources.tracing import Exported

HEAD = """
import numpy, torch
from collections import OrderedDict
from torch import nn
from torch.nn import functional as F

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 8)
    def middle(self, y):
        return y
    def forward(self, x):
        return self.head(self.middle(self.stem(x)).mean((2, 3)))

"""


def exported(folder: Path, code: str, *, batch: int | None = None, **options: Any) -> Exported:
    """Exports the class or function `Net` of a file, and compares the graph with the network at every batch size."""
    path = folder / "nets.py"
    path.write_text(HEAD + code, encoding="utf-8")
    source = resolve(f"{path}:Net", size=(16, 16), landmarks=4, seed=0, **options)
    with open_source(source) as session:
        assert isinstance(session, TorchSource)
        source = session.source
        decided = batch_of(source, session, batch)
        result = export_session(source, session, batch) if decided.fixed is None else None
        assert result is not None, decided.note
        onnx.checker.check_model(result.model)
        size = result.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        with OrtSession(result.model.SerializeToString()) as graph:
            for count in (size,) if size else BATCHES:
                images = noise(source.spec, count, 1)
                found, expected = (each.run({"input": images})["landmarks"] for each in (graph, session))
                np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    return result


# Names

TAKEN = "input", "landmarks", "heatmaps", "mean", "conv2d", "relu", "getitem", "val_0", "net", "linear", "p_input", "x"


def test_parameters_may_have_names_of_the_graph(tmp_path: Path) -> None:
    code = f"""
class Net(Base):
    def __init__(self):
        super().__init__()
        for name in {TAKEN}:
            self.register_parameter(name, nn.Parameter(torch.rand(8)))
    def forward(self, x):
        y = super().forward(x)
        for name in {TAKEN}:
            y = y + getattr(self, name)
        return y
"""
    model = exported(tmp_path, code).model
    names = {tensor.name for tensor in model.graph.initializer}
    assert set(TAKEN) - {"input", "landmarks"} <= names
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "landmarks"]


def test_modules_may_have_any_name(tmp_path: Path) -> None:
    code = """
def Net():
    first, last = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(256, 8)
    parts = [("свёртка 1/é", first), ("  ", nn.ReLU()), ("net", nn.Flatten()), ("input", last)]
    return nn.Sequential(OrderedDict(parts))
"""
    model = exported(tmp_path, code).model
    assert {"свёртка 1/é.weight", "input.weight"} <= {tensor.name for tensor in model.graph.initializer}


def test_heatmaps_may_meet_names_of_the_decoding(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    code = """
class Net(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3, 2, 1)
        for name in ("heatmaps", "landmarks", "decode_0", "std"):
            self.register_buffer(name, torch.rand(1, 4, 1, 1))
    def forward(self, x):
        return super().forward(x) * self.heatmaps + self.landmarks + self.decode_0 - self.std
"""
    path.write_text(HEAD + code, encoding="utf-8")
    from lmconv.types import Decode

    source = resolve(f"{path}:Net", size=(16, 16), landmarks=4, seed=0, decode=Decode())
    with open_source(source) as session:
        model = export_session(session.source, session).model
        images = noise(source.spec, 2, 0)
        with OrtSession(model.SerializeToString()) as graph:
            found, expected = (each.run({"input": images}) for each in (graph, session))
    np.testing.assert_allclose(found["heatmaps"], expected["heatmaps"], atol=1e-5)
    assert len(naming.taken(model.graph)) > 0


# Forms of networks

FORMS = {
    "weight_norm": "def Net():\n n = Base(); nn.utils.parametrizations.weight_norm(n.head); return n",
    "spectral_norm": "def Net():\n n = Base(); nn.utils.parametrizations.spectral_norm(n.stem[0]); return n",
    "old spectral_norm": "def Net():\n n = Base(); nn.utils.spectral_norm(n.stem[0]); return n",
    "DataParallel": "def Net():\n return nn.DataParallel(Base())",
    "compiled": "def Net():\n return torch.compile(Base())",
    "lazy": "def Net():\n return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Flatten(), nn.LazyLinear(8))",
    "compiled part": "def Net():\n n = Base(); n.stem = torch.compile(n.stem); return n",
    "scripted part": "def Net():\n n = Base(); n.stem = torch.jit.script(n.stem); return n",
    "traced": "def Net():\n return torch.jit.trace(Base().eval(), torch.rand(2, 3, 16, 16))",
    "half": "def Net():\n return Base().half()",
    "bfloat16": "def Net():\n return Base().bfloat16()",
    "double": "def Net():\n return Base().double()",
    "hook": "def Net():\n n = Base(); n.stem.register_forward_hook(lambda m, i, o: 2 * o); return n",
    "keyword": "class Net(Base):\n def forward(self, *, image):\n  return super().forward(image)",
    "squeezed": "class Net(Base):\n def forward(self, x):\n  return super().forward(x).view(-1, 4, 2)",
    "constant item": (
        "class Net(Base):\n def __init__(self):\n  super().__init__(); self.register_buffer('on', torch.ones(1))\n"
        " def middle(self, y):\n  return 2 * y if self.on.item() else y"
    ),
    "in place": "class Net(Base):\n def forward(self, x):\n  x -= 0.5; return super().forward(x.mul_(2))",
    "state": (
        "class Net(Base):\n def __init__(self):\n  super().__init__(); self.register_buffer('n', torch.zeros(1))\n"
        " def middle(self, y):\n  self.n += 1; return y"
    ),
}


QUICK = "weight_norm", "DataParallel", "double", "keyword", "squeezed", "state"
"""Forms that the quick run tries; CI tries all forms."""


@pytest.mark.parametrize("form", [pytest.param(form, marks=[pytest.mark.slow] * (form not in QUICK)) for form in FORMS])
def test_networks_of_every_form_are_exported(tmp_path: Path, form: str) -> None:
    exported(tmp_path, FORMS[form])


@pytest.mark.parametrize(("kind", "words"), [("half", ["float16"]), ("double", ["float64"]), ("float", [])])
def test_weights_of_another_type_are_a_note(tmp_path: Path, kind: str, words: list[str]) -> None:
    path = tmp_path / "nets.py"
    path.write_text(f"{HEAD}def Net():\n return Base().{kind}()", encoding="utf-8")
    with open_source(resolve(f"{path}:Net", size=(16, 16), landmarks=4, seed=0)) as session:
        assert isinstance(session, TorchSource)
        assert session.notes == [
            f"the network's weights are {word}: lmconv runs the network in float32" for word in words
        ]


def test_values_of_further_arguments_are_constants(tmp_path: Path) -> None:
    code = "class Net(Base):\n def forward(self, x, scale, shift):\n  return super().forward(x) * scale + shift"
    with pytest.raises(InputError, match=r"needs scale, shift beside the image .*--constant scale=VALUE"):
        exported(tmp_path, code)
    exported(tmp_path, code, constants={"scale": 2, "shift": [0.5] * 8})
    with pytest.raises(
        UsageError, match=r"no argument zoom for a constant \(beside the image, forward\(\) has the arguments scale"
    ):
        exported(tmp_path, code, constants={"scale": 2, "shift": 0, "zoom": 1})


# Operators that PyTorch's exporter has no function for

OPERATORS = {
    "adaptive_max_pool2d": "F.adaptive_max_pool2d(y, (5, 3))",
    "median": "y.flatten(2).median(-1)[0][..., None, None]",
    "kthvalue": "y.flatten(2).kthvalue(3, -1)[0][..., None, None]",
    "cdist": "torch.cdist(y.flatten(2), y.flatten(2) + 1)[..., None]",
    "cumprod": "torch.cumprod(y + 1, 3).clamp(max=5)",
    "cummax": "torch.cummax(y, 2)[0] + torch.cummin(y, 3)[0]",
    "inverse": "torch.linalg.inv(y[:, :, :3, :3] + 3 * torch.eye(3))",
    "rfft2": "torch.fft.rfft2(y).abs()",
    "fft": "torch.fft.fft2(y, norm='ortho').imag.abs()",
    "irfft2": "torch.fft.irfft2(torch.fft.rfft2(y) * 0.5, s=y.shape[-2:])",
}


@pytest.mark.parametrize(
    "operator", [pytest.param(name, marks=[pytest.mark.slow] * bool(n)) for n, name in enumerate(OPERATORS)]
)
def test_operators_without_an_onnx_function_are_written_with_others(tmp_path: Path, operator: str) -> None:
    result = exported(tmp_path, f"class Net(Base):\n def middle(self, y):\n  return {OPERATORS[operator]}")
    assert result.exporter == "torch.onnx dynamo, decomposed"


@pytest.mark.slow
def test_an_operator_that_nothing_can_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ONNX has no operator for aten\.mode"):
        exported(
            tmp_path, "class Net(Base):\n def middle(self, y):\n  return y + y.flatten(2).mode(-1)[0][..., None, None]"
        )


# Batches

LOOP = (
    "class Net(Base):\n def forward(self, x):\n"
    "  return torch.cat([super(Net, self).forward(x[i:i+1]) for i in range(len(x))])"
)
PAIR = (
    "class Net(Base):\n def forward(self, x):\n"
    "  a, b = super().forward(torch.cat([x, x.flip(3)])).chunk(2); return (a + b) / 2"
)
ONE = "class Net(Base):\n def forward(self, x):\n  y = super().forward(x); return y + 0.1 if len(x) == 1 else y"
VIEW = "class Net(Base):\n def middle(self, y):\n  return y.view(1, 4, 8, 8)"


def test_a_mirrored_copy_in_the_batch_keeps_the_batch_free(tmp_path: Path) -> None:
    result = exported(tmp_path, PAIR)
    assert result.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert result.exporter == "torch.onnx torchscript"
    assert "torch.onnx dynamo does not convert the network" in result.notes[0]


@pytest.mark.slow
def test_an_output_in_float16_is_cast_back_before_any_other_operation(tmp_path: Path) -> None:
    model = exported(tmp_path, "class Net(Base):\n def forward(self, x):\n  return super().forward(x).half()").model
    operators = [node.op_type for node in model.graph.node]
    first = operators.index("Cast")
    assert operators[first : first + 2] == ["Cast", "Cast"]


def test_a_loop_over_the_batch_fixes_the_batch_and_says_so(tmp_path: Path) -> None:
    (note,) = exported(tmp_path, LOOP).notes
    assert note.startswith("the batch is fixed to 1: ")
    assert exported(tmp_path, LOOP, batch=3).notes == ()


@pytest.mark.parametrize(("code", "reason"), [(ONE, "takes another way"), (VIEW, "at a batch of 2")])
def test_a_network_for_one_input_is_found_before_export(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=rf"the batch is fixed to 1: .*{reason}"):
        exported(tmp_path, code)


def test_inputs_that_influence_each_other_are_refused_and_the_layer_is_named(tmp_path: Path) -> None:
    code = "def Net():\n n = Base(); n.stem[1] = nn.BatchNorm2d(4, track_running_stats=False); return n"
    with pytest.raises(InputError, match=r"depends on the other inputs .*batch: stem\.1 \(BatchNorm2d\).*--batch 1"):
        exported(tmp_path, code)


def test_a_small_influence_between_inputs_is_found_too(tmp_path: Path) -> None:
    code = "class Net(Base):\n def middle(self, y):\n  return y + y[y > 0.5].mean()"
    with pytest.raises(InputError, match=r"depends on the other inputs .*batch"):
        exported(tmp_path, code)


# Networks that cannot be converted as they are

REFUSED = {
    "training": (
        "class Net(Base):\n def train(self, mode=True):\n  super().train(mode); self.stem.train(); return self",
        r"keeps layers in training mode after eval\(\): stem\.1 \(BatchNorm2d\)",
    ),
    "dropout": ("class Net(Base):\n def middle(self, y):\n  return F.dropout(y, 0.5)", "random numbers in Net"),
    "data": (
        "class Net(Base):\n def middle(self, y):\n  return 2 * y if y.mean() > 0.1 else y",
        r"nets\.py:\d+: Python code reads a number that depends on the input",
    ),
    "grey": (
        "class Net(Base):\n def __init__(self):\n  super().__init__(); self.stem[0] = nn.Conv2d(1, 4, 3)",
        "1 channels",
    ),
    "observers": (
        "def Net():\n import torch.ao.quantization as q\n n = Base().train()\n"
        " n.qconfig = q.get_default_qat_qconfig('fbgemm')\n return q.prepare_qat(n)",
        "changes its quantisation scales in every run.*disable_observer",
    ),
    "quantised": (
        "def Net():\n return torch.ao.quantization.quantize_dynamic(Base().eval(), {nn.Linear})",
        "is quantised already: head.*--precision int8 quantises",
    ),
    "quantised and scripted": (
        "def Net():\n return torch.jit.script(torch.ao.quantization.quantize_dynamic(Base().eval(), {nn.Linear}))",
        "is quantised already: head",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_reason_names_the_layer_or_the_line(tmp_path: Path, case: str) -> None:
    code, reason = REFUSED[case]
    with pytest.raises(InputError, match=reason):
        exported(tmp_path, code)


@pytest.mark.skipif(sys.platform != "linux", reason="the older exporter has a process of its own on Linux alone")
def test_a_crash_of_the_older_exporter_is_an_error() -> None:
    class Crash(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGSEGV)
            return x

    arguments = Traced(network=Crash(), shape=(2, 3, 4, 4), free={0: "N"}, outputs=("landmarks",))
    with pytest.raises(RuntimeError, match="ended its process with exit code -11"):
        EXPORTERS[-1].export(arguments)
