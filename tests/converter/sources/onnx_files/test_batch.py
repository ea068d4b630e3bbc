"""Files in which the result of a face depends on the other faces of its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.converter.opsets.building import node, normal

from lmconv.building.plain import plain_graph
from lmconv.errors import InputError
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.sources import resolve as source
from lmconv.sources.resolve import open_source

LAYERS = {
    "BatchNormalization": [
        node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n", "mean", "var"], name="bn", training_mode=1)
    ],
    "DynamicQuantizeLinear": [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="quantise"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["n"]),
    ],
}


def file(folder: Path, layer: str) -> Path:
    """Writes a network for a free batch with a layer that computes statistics over the batch."""
    constants = {"s": normal(3), "b": normal(3, seed=2), "m": np.zeros(3, np.float32), "v": np.ones(3, np.float32)}
    nodes = [*LAYERS[layer], node("AveragePool", ["n"], ["p"], kernel_shape=[4, 4], strides=[4, 4])]
    nodes.append(node("Flatten", ["p"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "mixing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder / "mixing.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("layer", "name"), [("BatchNormalization", "bn"), ("DynamicQuantizeLinear", "quantise")])
def test_a_free_batch_is_refused_with_the_node(tmp_path: Path, layer: str, name: str) -> None:
    with pytest.raises(InputError) as refused:
        plain_graph(source.resolve(str(file(tmp_path, layer))), tmp_path)
    for part in ("depends on the other inputs of its batch", f"node {name} ({layer})", "--batch 1"):
        assert part in str(refused.value)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_computes_the_same_as_the_file_with_this_batch(tmp_path: Path, layer: str, batch: int) -> None:
    path = file(tmp_path, layer)
    plain = plain_graph(source.resolve(str(path)), tmp_path, batch=batch)
    assert plain.artifact.spec.batch == batch
    images = noise(plain.artifact.spec, batch, 7)
    with OrtSession(path) as original:
        expected = original.run({"x": images})["y"].reshape(batch, 6, 2)
    with OrtSession(plain.model.SerializeToString()) as session:
        np.testing.assert_allclose(session.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-5)
    recovered = source.recover(plain.artifact, tmp_path)
    assert recovered is not None
    with open_source(recovered) as again:
        np.testing.assert_allclose(again.run({"input": images})["landmarks"], expected, rtol=0, atol=1e-6)


def test_a_plain_graph_with_the_batch_of_an_earlier_run_is_not_reused(tmp_path: Path) -> None:
    resolved = source.resolve(str(file(tmp_path, "BatchNormalization")))
    first = plain_graph(resolved, tmp_path, batch=3)
    assert plain_graph(resolved, tmp_path, batch=3).artifact == first.artifact
    with pytest.raises(InputError, match="depends on the other inputs of its batch"):
        plain_graph(resolved, tmp_path)
