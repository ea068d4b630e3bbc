"""ONNX files with other inputs than (N, 3, H, W) float32: the artefact takes the hub's input and computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.helpers import SIZE, Cli

from lmconv.building.plain import plain_graph
from lmconv.errors import InputError, UsageError
from lmconv.inference.ort import OrtSession
from lmconv.inference.session import noise
from lmconv.networks.preprocess import parse
from lmconv.pipeline import convert
from lmconv.plugins import TARGETS
from lmconv.sources import export
from lmconv.sources import resolve as source
from lmconv.types import Artifact, Float32, OpenOptions, Precision, Session

POINTS = 10
FLOAT, HALF, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8
Node = onnx.NodeProto


def network(
    first: Sequence[Node] = (),
    *,
    kind: int = FLOAT,
    shape: Sequence[int | str | None] | None = ("N", 3, SIZE, SIZE),
    constants: Sequence[tuple[str, Any]] = (),
    further: Sequence[onnx.ValueInfoProto] = (),
    last: Sequence[Node] = (),
    out: int = FLOAT,
    half: bool = False,
) -> onnx.ModelProto:
    """A network of any input size: nodes `first` from `data` to `images`, a convolution, pooling, nodes `last`.

    Args:
        first: Nodes from the input `data` to `images`; without nodes the convolution reads `data`.
        kind: Type of `data`.
        shape: Declared shape of `data`; None for none.
        constants: Further initializers by name.
        further: Further inputs.
        last: Nodes from `flat` (N, 20) to `points`; without nodes `points` is this value.
        out: Type of `points`.
        half: True for weights in float16.
    """
    random = np.random.default_rng(0)
    weights = [
        ("w", random.normal(0, 0.3, (8, 3, 3, 3))),
        ("b", random.normal(0, 0.3, 8)),
        ("fc", random.normal(0, 0.3, (2 * POINTS, 8))),
        ("bias", random.random(2 * POINTS)),
    ]
    tensors = [(name, value.astype(np.float16 if half else np.float32)) for name, value in weights]
    nodes = [
        *first,
        helper.make_node("Conv", ["images" if first else "data", "w", "b"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "fc", "bias"], ["flat" if last else "points"], transB=1),
        *last,
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("data", kind, shape), *further],
        [helper.make_tensor_value_info("points", out, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (*tensors, *constants)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "file.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def in_file(path: Path, inputs: NDArray[Any], **further: Any) -> NDArray[Any]:
    """Returns the first output of a file in ONNX Runtime."""
    with OrtSession(path) as session:
        result: NDArray[Any] = next(iter(session.run({"data": inputs, **further}).values()))
    return result


def opened(artifact: Artifact) -> Session:
    session: Session = TARGETS.load(artifact.target).open(artifact, OpenOptions())
    return session


def in_artefact(path: Path, folder: Path, images: Float32, target: str = "onnx", **options: Any) -> Float32:
    """Converts a file to an fp32 artefact, and returns the landmarks for images as (n, 20) float32."""
    artifact = convert(source.resolve(str(path), **options), target, Precision.FP32, out=folder / "build")
    size = artifact.spec.batch or len(images)
    with opened(artifact) as session:
        parts = [session.run({"input": images[start : start + size]}) for start in range(0, len(images), size)]
    return np.concatenate([part["landmarks"] for part in parts]).reshape(len(images), -1)


def some_images(count: int, *, whole: bool = False) -> Float32:
    """Returns (count, 3, 32, 32) float32: whole numbers 0 to 255, or fractions that float16 cannot hold."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, 3, SIZE, SIZE))
    return (pixels if whole else pixels / 255).astype(np.float32)


TO_NCHW = helper.make_node("Transpose", ["nhwc"], ["images"], perm=[0, 3, 1, 2])


def nhwc(*, kind: int = FLOAT, first: Sequence[Node] = (), batch: int | str = "N") -> onnx.ModelProto:
    """A network with the input (N, H, W, 3); nodes `first` go from `data` to `nhwc`."""
    begin = first or [helper.make_node("Identity", ["data"], ["nhwc"])]
    return network([*begin, TO_NCHW], kind=kind, shape=(batch, SIZE, SIZE, 3))


def normalised() -> list[Node]:
    """Nodes from pixels `data` to fractions `nhwc`."""
    return [
        helper.make_node("Cast", ["data"], ["numbers"], to=FLOAT),
        helper.make_node("Div", ["numbers", "255"], ["nhwc"]),
    ]


def test_an_artefact_of_an_nhwc_file_takes_nchw(tmp_path: Path) -> None:
    path, images = saved(nhwc(), tmp_path), some_images(3)
    expected = in_file(path, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(in_artefact(path, tmp_path, images), expected, atol=1e-5)


def test_a_transpose_in_a_file_and_the_one_in_front_cancel_out(tmp_path: Path) -> None:
    path = saved(nhwc(), tmp_path)
    artifact = convert(source.resolve(str(path)), "onnx", Precision.FP32, out=tmp_path / "build")
    operators = {node.op_type for node in onnx.load(artifact.path / "model.onnx").graph.node}
    assert "Transpose" not in operators


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_uint8_file_normalises_itself_and_its_artefact_takes_the_pixels(tmp_path: Path, target: str) -> None:
    model = nhwc(kind=UINT8, first=normalised(), batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "255"))
    path, pixels = saved(model, tmp_path), some_images(2, whole=True)
    resolved = source.resolve(str(path))
    assert resolved.spec.preprocess == parse("BGR,1")
    alone = [in_file(path, image[None].transpose(0, 2, 3, 1).astype(np.uint8)) for image in pixels]
    result = in_artefact(path, tmp_path, pixels, target)
    np.testing.assert_allclose(result, np.concatenate(alone), atol=1e-5)


def test_io_image_of_a_uint8_file_adds_no_arithmetic(tmp_path: Path) -> None:
    model = nhwc(kind=UINT8, first=normalised(), batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "255"))
    path, pixels = saved(model, tmp_path), some_images(2, whole=True).astype(np.uint8).transpose(0, 2, 3, 1)
    artifact = convert(source.resolve(str(path)), "onnx", Precision.FP32, io="image", out=tmp_path / "build")
    with opened(artifact) as session:
        result = session.run({"image": np.ascontiguousarray(pixels)})["landmarks"].reshape(2, -1)
    expected = np.concatenate([in_file(path, image[None]) for image in pixels]) * SIZE
    np.testing.assert_allclose(result, expected, atol=1e-3)
    operators = [node.op_type for node in onnx.load(artifact.path / "model.onnx").graph.node]
    assert [operators.count(name) for name in ("Sub", "Div", "Mul")] == [0, 1, 1]  # of the file; fractions to pixels


def test_fractions_for_a_file_that_takes_integers_are_refused(tmp_path: Path) -> None:
    model = nhwc(kind=UINT8, first=normalised(), batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "255"))
    with pytest.raises(UsageError, match="takes uint8, and --preprocess gives fractions"):
        source.resolve(str(saved(model, tmp_path)), preprocess=parse("RGB,1/255"))


def test_a_quantised_input_keeps_its_type_behind_a_cast(tmp_path: Path) -> None:
    first = [helper.make_node("DequantizeLinear", ["data", "scale", "zero"], ["images"])]
    constants = [("scale", np.array(1 / 255, np.float32)), ("zero", np.array(0, np.uint8))]
    path = saved(network(first, kind=UINT8, constants=constants), tmp_path)
    pixels = some_images(2, whole=True)
    np.testing.assert_allclose(in_artefact(path, tmp_path, pixels), in_file(path, pixels.astype(np.uint8)), atol=1e-5)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize(("kind", "dtype"), [(HALF, np.float16), (DOUBLE, np.float64)])
def test_a_file_in_another_type_of_floats_is_computed_alike(
    tmp_path: Path, kind: int, dtype: type, target: str
) -> None:
    if kind == HALF:
        model = network(kind=HALF, out=HALF, half=True)
    else:
        first = [helper.make_node("Cast", ["data"], ["images"], to=FLOAT)]
        last = [helper.make_node("Cast", ["flat"], ["points"], to=DOUBLE)]
        model = network(first, kind=DOUBLE, last=last, out=DOUBLE)
    path, images = saved(model, tmp_path), some_images(3)
    expected = in_file(path, images.astype(dtype))
    result = in_artefact(path, tmp_path, images, target)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_the_graph_of_a_float16_file_is_in_float32(tmp_path: Path) -> None:
    path = saved(network(kind=HALF, out=HALF, half=True), tmp_path)
    model, _ = export.export(source.resolve(str(path)))
    assert {tensor.data_type for tensor in model.graph.initializer} <= {FLOAT, TensorProto.INT64}


def test_float16_between_reshapes_is_rounded_as_in_the_file(tmp_path: Path) -> None:
    first = [
        helper.make_node("Cast", ["data"], ["half"], to=HALF),
        helper.make_node("Mul", ["half", "third"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "rows"], ["flat_rows"]),
        helper.make_node("Transpose", ["flat_rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["turned"], ["back"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["back", "planes"], ["images"]),
    ]
    constants = [
        ("third", np.array(1 / 3, np.float16)),
        ("rows", np.array([0, 3, -1])),
        ("planes", np.array([0, 3, SIZE, SIZE])),
    ]
    last = [helper.make_node("Cast", ["flat"], ["points"], to=FLOAT)]
    path = saved(network(first, constants=constants, last=last, half=True), tmp_path)
    images = some_images(3)
    for target in ("onnx", "openvino"):
        result = in_artefact(path, tmp_path, images, target)
        np.testing.assert_allclose(result, in_file(path, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(-1, 3, SIZE, SIZE), (None, 3, SIZE, SIZE), ("?", 3, SIZE, SIZE)])
def test_a_batch_without_a_name_is_free(tmp_path: Path, shape: tuple[int | str | None, ...]) -> None:
    path = saved(network(shape=shape), tmp_path)
    assert export.export(source.resolve(str(path)))[0].graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), ("a", "b", "c", "d"), None])
def test_a_file_for_images_of_any_size_gives_an_artefact_for_any_size(
    tmp_path: Path, shape: tuple[str, ...] | None
) -> None:
    path, images = saved(network(shape=shape), tmp_path), some_images(2)
    resolved = source.resolve(str(path))
    assert resolved.spec.sample == (112, 112)
    np.testing.assert_allclose(in_artefact(path, tmp_path, images), in_file(path, images), atol=1e-5)


def test_input_fixes_the_size_of_a_file_for_images_of_any_size(tmp_path: Path) -> None:
    spec = source.resolve(str(saved(network(shape=("N", 3, "H", "W")), tmp_path)), size=(48, 64)).spec
    assert (spec.input_size, spec.sample) == ((48, 64), None)


def test_a_size_that_only_the_weights_fix_is_found_by_running(tmp_path: Path) -> None:
    first = [
        helper.make_node("Reshape", ["data", "rows"], ["flattened"]),
        helper.make_node("MatMul", ["flattened", "square"], ["product"]),
        helper.make_node("Reshape", ["product", "planes"], ["images"]),
    ]
    constants = [
        ("rows", np.array([0, 3, SIZE * SIZE])),
        ("square", np.eye(SIZE * SIZE, dtype=np.float32)),
        ("planes", np.array([-1, 3, SIZE, SIZE])),
    ]
    spec = source.resolve(str(saved(network(first, shape=("N", 3, "H", "W"), constants=constants), tmp_path))).spec
    assert (spec.input_size, spec.sample) == ((SIZE, SIZE), None)


def test_a_declared_size_and_another_one_in_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes images of 3x32x32, not 3x64x64"):
        source.resolve(str(saved(network(), tmp_path)), size=(64, 64))


def test_a_side_above_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sides above 9999 are refused"):
        source.resolve(str(saved(network(shape=(1, 3, 1_000_000, SIZE)), tmp_path)))


def test_a_batch_that_cannot_be_freed_is_kept_and_recorded(tmp_path: Path) -> None:
    first = [
        helper.make_node("Reshape", ["data", "rows"], ["flattened"]),
        helper.make_node("Reshape", ["flattened", "planes"], ["images"]),
    ]
    constants = [("rows", np.array([4, -1])), ("planes", np.array([4, 3, SIZE, SIZE]))]
    path = saved(network(first, shape=(4, 3, SIZE, SIZE), constants=constants), tmp_path)
    artifact = convert(source.resolve(str(path)), "openvino", Precision.FP32, out=tmp_path / "build")
    assert artifact.spec.batch == 4
    images = some_images(4)
    with opened(artifact) as session:
        result = session.run({"input": images})["landmarks"].reshape(4, -1)
    np.testing.assert_allclose(result, in_file(path, images), atol=1e-5)


def test_a_batch_of_four_that_can_be_freed_is_free(tmp_path: Path) -> None:
    path = saved(network(shape=(4, 3, SIZE, SIZE)), tmp_path)
    artifact = convert(source.resolve(str(path)), "onnx", Precision.FP32, out=tmp_path / "build")
    assert artifact.spec.batch is None


@pytest.mark.parametrize(("layout", "shape"), [("chw", (3, SIZE, SIZE)), ("hwc", (SIZE, SIZE, 3))])
def test_a_file_without_a_batch_axis_takes_one_image(tmp_path: Path, layout: str, shape: tuple[int, ...]) -> None:
    first = [helper.make_node("Unsqueeze", ["data", "axis"], ["one"])]
    perm = [0, 1, 2, 3] if layout == "chw" else [0, 3, 1, 2]
    first.append(helper.make_node("Transpose", ["one"], ["images"], perm=perm))
    path, images = saved(network(first, shape=shape, constants=[("axis", np.array([0]))]), tmp_path), some_images(2)
    moved = images if layout == "chw" else images.transpose(0, 2, 3, 1)
    expected = np.concatenate([in_file(path, np.ascontiguousarray(image)) for image in moved])
    np.testing.assert_allclose(in_artefact(path, tmp_path, images), expected, atol=1e-5)


def test_images_of_one_channel_are_refused_with_the_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has inputs data float \['N', 1, 32, 32\], and none is an image"):
        source.resolve(str(saved(network(shape=("N", 1, SIZE, SIZE)), tmp_path)))


def scaled(shape: Sequence[int | str] = (1,)) -> onnx.ModelProto:
    """A network with the input `scale` before the image."""
    value = helper.make_tensor_value_info("scale", FLOAT, shape)
    model = network([helper.make_node("Mul", ["data", "scale"], ["images"])], further=[value])
    image = model.graph.input[0]
    del model.graph.input[0]
    model.graph.input.append(image)
    return model


def test_an_input_with_a_default_is_a_constant(tmp_path: Path) -> None:
    model = scaled()
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.float32), "scale"))
    path, images = saved(model, tmp_path), some_images(3)
    np.testing.assert_allclose(in_artefact(path, tmp_path, images), in_file(path, images), atol=1e-5)


def test_an_input_without_a_value_is_refused_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs scale float \[1\] beside the image \(give --constant scale=VALUE\)"):
        source.resolve(str(saved(scaled(), tmp_path)))


@pytest.mark.parametrize("shape", [(1,), ("N", 1, 1, 1)])
def test_a_constant_takes_the_place_of_an_input(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    path, images = saved(scaled(shape), tmp_path), some_images(3)
    resolved = source.resolve(str(path), constants={"scale": 2.5})
    scale = np.full([len(images) if side == "N" else 1 for side in shape], 2.5, np.float32)
    first = plain_graph(resolved, tmp_path / "build")
    with OrtSession(first.artifact.path / "model.onnx") as session:
        result = session.run({"input": images})["landmarks"].reshape(3, -1)
    np.testing.assert_allclose(result, in_file(path, images, scale=scale), atol=1e-5)
    assert source.recover(first.artifact, path) == resolved


def test_a_constant_replaces_a_default(tmp_path: Path) -> None:
    model = scaled()
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.float32), "scale"))
    path, images = saved(model, tmp_path), some_images(3)
    expected = in_file(path, images, scale=np.array([3], np.float32))
    np.testing.assert_allclose(in_artefact(path, tmp_path, images, constants={"scale": 3}), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("constants", "reason"),
    [
        ({"other": 1}, r"has no input other \(its inputs are scale, data\)"),
        ({"data": 1, "scale": 2}, r"--constant data: data is the image of"),
        ({"scale": [1, 2]}, "does not fit"),
        ({"scale": "x"}, "does not fit"),
    ],
)
def test_a_constant_that_fits_no_input_is_refused(tmp_path: Path, constants: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        source.resolve(str(saved(scaled(), tmp_path)), constants=constants)


def test_the_noise_of_a_source_is_in_the_numbers_that_the_file_takes(tmp_path: Path) -> None:
    model = nhwc(kind=UINT8, first=normalised(), batch=1)
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "255"))
    images = noise(source.resolve(str(saved(model, tmp_path))).spec, 2, 0)
    assert images.max() > 200
    assert (images == images.round()).all()


def test_inspect_takes_constants_for_a_file_and_refuses_them_for_an_artefact(tmp_path: Path, cli: Cli) -> None:
    path = saved(scaled(), tmp_path)
    assert "points float32 (N, 20)" in cli("inspect", path, "--constant", "scale=2").out
    assert cli("export", path, "--constant", "scale=2", "--no-guard").code == 0
    assert cli("inspect", "build/file/onnx-fp32").code == 0
    cli("inspect", "build/file/onnx-fp32", "--constant", "scale=2").refused(2, "--constant is for networks")
