"""The layer or node of a source network that its exported graph computes differently is named."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import tiny_onnx

from lmconv.graph.facts import copied
from lmconv.inference.session import noise
from lmconv.sources.divergence import first_divergence
from lmconv.sources.export import export_session
from lmconv.sources.resolve import open_source, resolve

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 20),
    )
"""


def _changed(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Adds 0.5 to the first number of a weight."""
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


@pytest.mark.slow
def test_the_layer_of_a_changed_weight_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    source = resolve(f"{tmp_path / 'net.py'}:build", landmarks=10, size=(32, 32), seed=0)
    with open_source(source) as session:
        exported = export_session(source, session, None)
        found = {
            weight: first_divergence(
                _changed(copied(exported.model), weight), exported.modules, session, noise(source.spec, 2, 0)
            )
            for weight in ("0.weight", "3.weight", "7.weight")
        }
    assert [text.partition(" [")[0] for text in found.values()] == ["0 (Conv2d)", "3 (Conv2d)", "7 (Linear)"]


def test_the_node_of_a_changed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_onnx(), path)
    source = resolve(str(path))
    with open_source(source) as session:
        exported = export_session(source, session, None)
        images = noise(source.spec, 2, 0)
        found = first_divergence(_changed(exported.model, "fc.weight"), exported.modules, session, images)
    assert found.startswith("points (Gemm)"), found
