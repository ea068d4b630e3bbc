"""Graphs that cut, normalise and map back crops and frames compute the same as the host, in both CPU runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lmconv.errors import UsageError
from lmconv.graph import naming
from lmconv.inference.ort import OrtSession
from lmconv.inference.scenes import landmarks_in
from lmconv.networks.interfaces import interface_of
from lmconv.networks.preprocess import in_colours, network_input
from lmconv.networks.seeded import Scene, scene
from lmconv.networks.squares import around, cut, to_picture
from lmconv.networks.wrapping import PREFIX
from lmconv.targets import openvino
from lmconv.types import Crop, Float32, Io, ModelSpec, Precision, Preprocess, Session, TensorSpec, Uint8, landmark_spec

Open: TypeAlias = Callable[[onnx.ModelProto, ModelSpec], Session]

IMAGENET = Preprocess(colour="RGB", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GREY = 1.5 / 255
"""Tolerance above one grey level, for an input that is scaled by 1/255."""
CORNERS = np.array([[0, 0], [1, 1], [0.25, 0.75]], np.float32)
"""Points that the network below returns, fractions of the input."""


def spec_of(height: int = 24, width: int = 16, **settings: Any) -> ModelSpec:
    return landmark_spec("seeing", "onnx", size=(height, width), landmarks=len(CORNERS), **settings)


def seeing(spec: ModelSpec, points: Float32 = CORNERS) -> onnx.ModelProto:
    """Returns a network with two outputs: `seen`, twice the input, and `landmarks`, always the same points."""
    height, width = spec.input_size
    constants = {"points": points[None], "nothing": np.zeros((3 * height * width, points.size), np.float32)}
    shapes = {"shape": np.array([-1, *points.shape], np.int64)}
    nodes = [
        helper.make_node("Add", ["input", "input"], ["seen"]),
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "nothing"], ["zeros"]),
        helper.make_node("Reshape", ["zeros", "shape"], ["rows"]),
        helper.make_node("Add", ["rows", "points"], ["landmarks"]),
    ]
    batch = spec.batch or "N"
    image = [batch, 3, height, width]
    graph = helper.make_graph(
        nodes,
        "seeing",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [batch, *points.shape]),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, image),
        ],
        [numpy_helper.from_array(value, name) for name, value in (constants | shapes).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(params=["onnxruntime", "openvino"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Function that opens a graph in a runtime."""
    sessions: list[Session] = []

    def call(model: onnx.ModelProto, spec: ModelSpec) -> Session:
        onnx.checker.check_model(model, full_check=True)
        if request.param == "onnxruntime":
            sessions.append(OrtSession(model.SerializeToString(), threads=1))
        else:
            built = openvino.build(model, tmp_path, spec, Precision.FP32)
            free = openvino.free_inputs(spec) if openvino.STATIC in built.execution else ()
            sessions.append(openvino.OpenVinoSession(tmp_path / "model.xml", "f32", 1, free))
        return sessions[-1]

    yield call
    for session in sessions:
        session.__exit__(None, None, None)


def wrap(model: onnx.ModelProto, spec: ModelSpec, io: Io) -> tuple[onnx.ModelProto, ModelSpec]:
    interface = interface_of(spec, io)
    return interface.wrap(model), interface.spec


def wrapped(opened: Open, spec: ModelSpec, io: Io, points: Float32 = CORNERS) -> Session:
    return opened(*wrap(seeing(spec, points), spec, io))


def run_frame(session: Session, spec: ModelSpec, shown: Scene) -> dict[str, NDArray[Any]]:
    return session.run({"frame": in_colours(shown.frame, spec.preprocess), "boxes": shown.boxes})


def assert_as_on_the_host(outputs: dict[str, NDArray[Any]], shown: Scene, spec: ModelSpec) -> None:
    """Asserts that the points equal the host's, and the crops too, except one grey level in one of 10,000 values."""
    expected = network_input(shown.crops(spec), spec.preprocess)
    differences = np.abs(outputs["seen"] / 2 - expected) * min(spec.preprocess.std)
    assert differences.max(initial=0) < GREY
    assert np.count_nonzero(differences > 1e-5) <= 1e-4 * differences.size
    squares = np.array(shown.squares(spec.crop))
    points = to_picture(np.repeat(CORNERS[None], len(squares), 0), squares)
    np.testing.assert_allclose(outputs["landmarks"], points, atol=1e-3)


@pytest.mark.parametrize("io", ["image", "frame"])
@pytest.mark.parametrize(
    "names",
    [
        {"flat": "image", "zeros": "frame", "rows": "boxes"},
        {"flat": "io_planes", "zeros": "io_network_landmarks", "rows": "io_one_", "nothing": "io_scale_"},
    ],
    ids=["of the inputs", "of what is added"],
)
def test_values_of_the_network_may_have_the_names_of_added_values(opened: Open, io: Io, names: dict[str, str]) -> None:
    spec = spec_of()
    model = seeing(spec)
    for old, new in names.items():
        naming.rename(model.graph, old, new)
    for node in model.graph.node:  # the names of the nodes collide, too
        node.name = node.output[0]
    model.graph.node[0].name = "input"
    wrapping_model, made = wrap(model, spec, io)
    shown = scene(2, 0)
    assert_as_on_the_host(on_host(opened(wrapping_model, made), made, shown), shown, spec)


@pytest.mark.parametrize("io", ["image", "frame"])
def test_a_branch_may_read_a_value_with_the_name_of_an_input(io: Io) -> None:
    spec = spec_of()
    model = seeing(spec)
    naming.rename(model.graph, "flat", io)
    kinds = {"one": "Abs", "other": "Neg"}
    branches = [
        helper.make_graph(
            [helper.make_node(kind, [io], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, kind in kinds.items()
    ]
    model.graph.node.insert(
        2, helper.make_node("If", ["yes"], ["either"], then_branch=branches[0], else_branch=branches[1])
    )
    model.graph.node[3].input[0] = "either"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    whole, made = wrap(model, spec, io)
    shown = scene(2, 0)
    with OrtSession(whole.SerializeToString()) as session:
        assert_as_on_the_host(on_host(session, made, shown), shown, spec)


@pytest.mark.parametrize("io", ["image", "frame"])
def test_known_shapes_stay(io: Io) -> None:
    spec = spec_of()
    model = seeing(spec)
    model.graph.value_info.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 3 * 24 * 16]))
    naming.rename(model.graph, "flat", io)
    whole, _ = wrap(model, spec, io)
    (known,) = whole.graph.value_info
    assert known.name != io
    assert known.name in {name for node in whole.graph.node for name in node.output}
    onnx.checker.check_model(whole, full_check=True)


def on_host(session: Session, spec: ModelSpec, shown: Scene) -> dict[str, NDArray[Any]]:
    """Returns the outputs of an artefact, with the points in pixels of the frame."""
    return {**session.run(interface_of(spec).of_scene(shown)), "landmarks": landmarks_in(session, spec, shown)}


# Images


@pytest.mark.parametrize("preprocess", [Preprocess(), Preprocess(scale=1 / 127, mean=(1.0, 1.0, 1.0)), IMAGENET])
def test_an_image_is_normalised_as_on_the_host(opened: Open, preprocess: Preprocess) -> None:
    spec = spec_of(preprocess=preprocess)
    session = wrapped(opened, spec, "image")
    for batch in (1, 2, 7, 64):
        crops = np.random.default_rng(batch).integers(0, 256, (batch, *spec.input_size, 3), np.uint8)
        outputs = session.run({"image": in_colours(crops, spec.preprocess)})
        np.testing.assert_allclose(outputs["seen"] / 2, network_input(crops, preprocess), atol=1e-6)
        np.testing.assert_allclose(outputs["landmarks"], np.tile(CORNERS * (16, 24), (batch, 1, 1)), atol=1e-5)


def test_points_in_pixels_of_the_crop_stay_in_pixels(opened: Open) -> None:
    spec = spec_of(decode="pixels")
    crops = np.zeros((2, 24, 16, 3), np.uint8)
    outputs = wrapped(opened, spec, "image", 10 * CORNERS).run({"image": crops})
    np.testing.assert_allclose(outputs["landmarks"], np.tile(10 * CORNERS, (2, 1, 1)))


# Frames

BOXES = {
    "inside": (30.0, 20.0, 70.0, 55.0),
    "between pixels": (30.3, 20.7, 70.5, 55.1),
    "made larger": (40.0, 30.0, 45.0, 38.0),
    "of one pixel": (40.0, 30.0, 40.0, 30.0),
    "the size of the input": (20.0, 20.0, 39.0, 30.0),
    "over the left border": (-12.5, 20.0, 20.0, 55.0),
    "over two borders": (80.0, 60.0, 130.0, 110.0),
    "over all borders": (-20.0, -50.0, 140.0, 130.0),
    "touching the border": (0.0, 0.0, 99.0, 79.0),
    "outside": (200.0, 300.0, 260.0, 350.0),
    "far outside": (-5000.0, -4000.0, -4900.0, -3900.0),
}


@pytest.mark.parametrize("side", ["max", "min"])
def test_a_face_is_cut_out_as_on_the_host(opened: Open, side: Any) -> None:
    spec = spec_of(crop=Crop(side=side))
    session = wrapped(opened, spec, "frame")
    for place, box in BOXES.items():
        shown = Scene(frame=noise(80, 100), boxes=np.array([box], np.float32))
        try:
            assert_as_on_the_host(run_frame(session, spec, shown), shown, spec)
        except AssertionError as error:
            raise AssertionError(f"a face {place}") from error


def noise(height: int, width: int) -> Uint8:
    """Returns a picture without black pixels: black marks the area beyond the border."""
    return np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("preprocess", [Preprocess(), IMAGENET])
def test_any_number_of_boxes_is_cut_out_of_one_frame(opened: Open, preprocess: Preprocess) -> None:
    spec = spec_of(56, 56, preprocess=preprocess)
    session = wrapped(opened, spec, "frame")
    for count in (1, 2, 7, 64):
        for size in ((480, 640), (641, 97)):
            shown = scene(count, count, size=size)
            assert_as_on_the_host(run_frame(session, spec, shown), shown, spec)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2160, 3840)])
def test_frames_of_any_size_are_accepted(opened: Open, size: tuple[int, int]) -> None:
    spec = spec_of(112, 112)
    centre = np.array(size[::-1]) / 2
    boxes = [(*(centre - half), *(centre + 0.9 * half)) for half in (3.0, 200.0, 1500.0)]
    shown = Scene(frame=noise(*size), boxes=np.array(boxes, np.float32))
    assert_as_on_the_host(run_frame(wrapped(opened, spec, "frame"), spec, shown), shown, spec)


def test_pixels_with_an_index_beyond_float32_are_read_correctly(opened: Open) -> None:
    spec = spec_of(16, 16)
    frame = np.zeros((4096, 5001, 3), np.uint8)  # 20 million pixels, above 2^24
    frame[4000:, 4900:] = noise(96, 101)
    shown = Scene(frame=frame, boxes=np.array([(4910.0, 4010.0, 4950.0, 4050.0)], np.float32))
    assert_as_on_the_host(run_frame(wrapped(opened, spec, "frame"), spec, shown), shown, spec)


@pytest.mark.parametrize(
    "scale", [0.7, 1.15, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1.0, 1.2, 1.23456, 2.0))]
)
def test_a_square_of_any_size_equals_the_square_of_the_host(opened: Open, scale: float) -> None:
    spec = spec_of(4, 4, crop=Crop(scale=scale))
    session = wrapped(opened, spec, "frame")
    sizes = np.arange(1, 16000)
    boxes = np.stack([3 + 0 * sizes, 5 - sizes, 3 + sizes // 3, 5 + 0 * sizes], 1).astype(np.float32)
    points = session.run({"frame": noise(8, 8), "boxes": boxes})["landmarks"]
    squares = np.array([around(box.tolist(), spec.crop) for box in boxes])
    np.testing.assert_array_equal(points[:, 0], squares[:, :2])
    np.testing.assert_array_equal(points[:, 1], squares[:, :2] + squares[:, 2:])


def test_points_in_pixels_of_the_crop_are_mapped_to_the_frame(opened: Open) -> None:
    spec = spec_of(decode="pixels")
    shown = scene(3, 0)
    points = (CORNERS * np.array([16, 24], np.float32)).astype(np.float32)
    assert_as_on_the_host(run_frame(wrapped(opened, spec, "frame", points), spec, shown), shown, spec)


def test_no_boxes_give_no_landmarks(opened: Open) -> None:
    spec = spec_of()
    outputs = wrapped(opened, spec, "frame").run({"frame": noise(8, 8), "boxes": np.empty((0, 4), np.float32)})
    assert outputs["landmarks"].shape == (0, len(CORNERS), 2)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_not_finite_gives_nan_and_does_not_affect_other_boxes(opened: Open, number: float) -> None:
    spec = spec_of()
    shown = scene(7, 0)
    boxes = shown.boxes.copy()
    boxes[[1, 2, 4, 5], range(4)] = number
    outputs = run_frame(wrapped(opened, spec, "frame"), spec, replace(shown, boxes=boxes))
    assert np.isnan(outputs["landmarks"][[1, 2, 4, 5]]).all()
    rest = [0, 3, 6]
    finite = {name: values[rest] for name, values in outputs.items()}
    assert_as_on_the_host(finite, replace(shown, boxes=boxes[rest]), spec)


@pytest.mark.parametrize("number", [3e38, -3e38, 2.0**31, -(2.0**31)])
def test_coordinates_of_a_box_may_be_as_large_as_float32_allows(opened: Open, number: float) -> None:
    spec = spec_of()
    boxes = np.array([(5, 5, 9, 9), (number, number, number, number), (-number, -number, number, number)], np.float32)
    outputs = wrapped(opened, spec, "frame").run({"frame": noise(16, 16), "boxes": boxes})
    assert outputs["landmarks"].shape == (3, len(CORNERS), 2)
    assert np.isfinite(outputs["landmarks"][:2]).all()


@pytest.mark.parametrize("io", ["image", "frame"])
def test_a_fixed_batch_stays_fixed(opened: Open, io: Io) -> None:
    spec = spec_of()
    spec = replace(spec, inputs=(replace(spec.inputs[0], shape=(3, 3, 24, 16)),))
    model, made = wrap(seeing(spec), spec, io)
    assert interface_of(made).inputs[-1].shape[0] == made.batch == 3
    assert model.graph.input[-1].type.tensor_type.shape.dim[0].dim_value == 3
    shown = scene(3, 0)
    assert opened(model, made).run(interface_of(made).of_scene(shown))["landmarks"].shape == (3, len(CORNERS), 2)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("width", 0.0), ("height", 0.0), ("one_16th", 1 / 15), ("sides", 9.0), ("scale", 1 / 250), ("two_real", 0.0)],
)
def test_the_comparison_detects_a_wrong_constant(opened: Open, name: str, wrong: float) -> None:
    spec = spec_of()
    model, made = wrap(seeing(spec), spec, "frame")
    constant = next(tensor for tensor in model.graph.initializer if tensor.name == f"{PREFIX}_{name}_")
    shape = numpy_helper.to_array(constant).shape
    constant.CopyFrom(numpy_helper.from_array(np.full(shape, wrong, np.float32), constant.name))
    shown = scene(8, 0)
    outputs = run_frame(opened(model, made), spec, shown)
    with pytest.raises(AssertionError):
        assert_as_on_the_host(outputs, shown, spec)


def test_opencv_resizes_by_the_rule_of_the_graph() -> None:
    """A failure means that OpenCV has changed its arithmetic; the runtimes are not the cause."""
    image = noise(90, 90)
    for side in (16, 33, 90):
        part = image[:side, :side]
        np.testing.assert_array_equal(resized(part, 24, 16), cut(part, (0, 0, side), (24, 16)))


def resized(image: Uint8, height: int, width: int) -> Uint8:
    """Resizes uint8 as OpenCV's modules/imgproc/src/resize.cpp does with INTER_LINEAR, in whole numbers."""

    def axis(count: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        at = ((np.arange(count) + 0.5) * (side / count) - 0.5).astype(np.float32)
        low = np.floor(at)
        return low.astype(np.int64), np.rint((at - low) * np.float32(2048)).astype(np.int64)

    side = len(image)
    pixels = image.astype(np.int64)
    x, second = axis(width, side)
    second[(x < 0) | (x >= side - 1)] = 0
    x = x.clip(0, side - 1)
    across = pixels[:, x] * (2048 - second)[:, None] + pixels[:, np.minimum(x + 1, side - 1)] * second[:, None]
    y, below = axis(height, side)
    upper, lower = (across[rows.clip(0, side - 1)] >> 4 for rows in (y, y + 1))
    down = (upper * (2048 - below)[:, None, None] >> 16) + (lower * below[:, None, None] >> 16)
    crop: Uint8 = (down + 2 >> 2).astype(np.uint8)
    return crop


# Refusals


def test_a_network_of_one_channel_is_refused_for_images() -> None:
    grey = TensorSpec(name="input", dtype="float32", shape=("N", 1, 24, 16), layout="NCHW")
    with pytest.raises(UsageError, match="three channels"):
        interface_of(replace(spec_of(), inputs=(grey,)), "image").require_possible(Precision.FP32)


def test_a_crop_around_another_box_is_refused_for_frames_alone() -> None:
    spec = spec_of(crop=Crop(box="detector"))
    interface_of(spec, "image").require_possible(Precision.FP32)
    with pytest.raises(UsageError, match="detector box"):
        interface_of(spec, "frame").require_possible(Precision.FP32)


def test_frames_are_refused_in_bf16() -> None:
    interface_of(spec_of(), "image").require_possible(Precision.BF16)
    with pytest.raises(UsageError, match="bf16"):
        interface_of(spec_of(), "frame").require_possible(Precision.BF16)
