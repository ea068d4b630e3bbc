"""Decoding of heatmaps: the nodes in the graph and the NumPy implementation both follow the reference rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.helpers import Cli

from lmconv.errors import UsageError
from lmconv.inference.ort import OrtSession
from lmconv.networks import heatmaps
from lmconv.networks.heads import head_of
from lmconv.networks.outputs import Outputs
from lmconv.pipeline import convert
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.types import Decode, Float32, Precision, landmark_spec

ARGMAX = Decode(method="argmax")
Cell: TypeAlias = tuple[float, float]
Rule: TypeAlias = Callable[[Float32, Decode], Float32]


def in_graph(maps: Float32, how: Decode) -> Float32:
    """Decodes maps with the nodes of an artefact, in ONNX Runtime."""
    points, height, width = maps.shape[1:]
    graph = helper.make_graph(
        [],
        "decode",
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", points, height, width])],
        [helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", points, 2])],
    )
    heatmaps.append(graph, "maps", (height, width), how)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    with OrtSession(model.SerializeToString()) as session:
        return np.asarray(session.run({"maps": maps})["landmarks"], np.float32)


@pytest.fixture(params=["in NumPy", "in the graph"])
def decode(request: pytest.FixtureRequest) -> Rule:
    return heatmaps.decode if request.param == "in NumPy" else in_graph


def reference(maps: Float32) -> Float32:
    """Decodes maps one by one, by the rule of the stacked hourglass."""
    height, width = maps.shape[2:]
    points = np.zeros((*maps.shape[:2], 2), np.float32)
    for index in np.ndindex(*maps.shape[:2]):
        cells = maps[index]
        row, column = divmod(int(cells.argmax()), width)
        x, y = float(column), float(row)
        if 0 < column < width - 1 and 0 < row < height - 1:
            x += 0.25 * np.sign(cells[row, column + 1] - cells[row, column - 1])
            y += 0.25 * np.sign(cells[row + 1, column] - cells[row - 1, column])
        points[index] = (x + 0.5) / width, (y + 0.5) / height
    return points


def peak(column: int, row: int, *neighbours: tuple[int, int], width: int = 6, height: int = 4) -> Float32:
    """Returns a heatmap (1, 1, height, width) float32: 1 in one cell, 0.5 in `neighbours`, 0 elsewhere."""
    heatmap = np.zeros((1, 1, height, width), np.float32)
    for x, y in neighbours:
        heatmap[0, 0, y, x] = 0.5
    heatmap[0, 0, row, column] = 1
    return heatmap


def cell(points: Float32, width: int = 6, height: int = 4) -> Cell:
    """Position of a point (x, y), cells: (2, 1) is the centre of the third cell in the second row."""
    x, y = points[0, 0].tolist()
    return round(x * width - 0.5, 5), round(y * height - 0.5, 5)


@pytest.mark.parametrize("values", ["noise", "ties"])
def test_the_arg_max_equals_the_reference(decode: Rule, values: str) -> None:
    random = np.random.default_rng(0)
    shape = (40, 5, 6, 9)
    maps = (random.random(shape) if values == "noise" else random.integers(0, 3, shape)).astype(np.float32)
    np.testing.assert_allclose(decode(maps, ARGMAX), reference(maps), rtol=0, atol=1e-6)


def test_the_arg_max_moves_a_quarter_towards_the_larger_neighbour(decode: Rule) -> None:
    assert cell(decode(peak(2, 1, (3, 1)), ARGMAX)) == (2.25, 1)
    assert cell(decode(peak(2, 1, (1, 1), (2, 2)), ARGMAX)) == (1.75, 1.25)


def test_the_arg_max_stays_between_equal_neighbours(decode: Rule) -> None:
    assert cell(decode(peak(2, 1, (1, 1), (3, 1)), ARGMAX)) == (2, 1)


@pytest.mark.parametrize(("column", "row"), [(0, 1), (5, 1), (2, 0), (2, 3), (0, 0), (5, 3)])
def test_the_arg_max_stays_at_every_border(decode: Rule, column: int, row: int) -> None:
    uneven = np.random.default_rng(0).random((1, 1, 4, 6)).astype(np.float32)
    assert cell(decode(peak(column, row) + 0.5 * uneven, ARGMAX)) == (column, row)


def test_the_first_of_equal_maxima_counts(decode: Rule) -> None:
    assert cell(decode(np.zeros((1, 1, 4, 6), np.float32), ARGMAX)) == (0, 0)
    heatmap = peak(3, 2)
    heatmap[0, 0, 1, 4] = 1
    assert cell(decode(heatmap, ARGMAX)) == (4, 1)


def test_the_soft_arg_max_is_the_mean_position(decode: Rule) -> None:
    flat = np.zeros((2, 3, 4, 6), np.float32)
    np.testing.assert_allclose(decode(flat, Decode(method="soft-argmax")), np.full((2, 3, 2), 0.5), atol=1e-6)
    between = decode(peak(2, 1) + peak(3, 1), Decode(method="soft-argmax", beta=100.0))
    np.testing.assert_allclose(between, [[[3 / 6, 1.5 / 4]]], atol=1e-6)


def test_a_sharp_soft_arg_max_equals_the_arg_max_without_the_quarter_step(decode: Rule) -> None:
    heatmap = peak(4, 2)
    sharp = decode(heatmap, Decode(method="soft-argmax", beta=1000.0))
    np.testing.assert_allclose(sharp, decode(heatmap, ARGMAX), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("argmax", ARGMAX),
        ("soft-argmax:50", Decode(method="soft-argmax", beta=50)),
        ("simcc", Decode(method="simcc", beta=0)),
        ("simcc:2", Decode(method="simcc", beta=2)),
    ],
)
def test_text_selects_the_rule(text: str, expected: Decode) -> None:
    assert heatmaps.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["max", "argmax:2", "soft-argmax:", "soft-argmax:0", "soft-argmax:nan", "soft-argmax:-1", "simcc:0"]
)
def test_an_unknown_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="argmax, soft-argmax:BETA or simcc:CELLS_PER_PIXEL"):
        heatmaps.parse(text)


def test_a_point_is_undecided_if_rounding_could_move_the_point() -> None:
    maps = np.concatenate([peak(2, 1, (3, 1)), peak(2, 1, (3, 1), (2, 2)), peak(0, 1), peak(2, 1), peak(4, 2)], 1)
    maps[0, 4, 2, 3] = 0.9999
    mask = heatmaps.undecided(maps, ARGMAX)
    assert mask.tolist() == [[True, False, False, True, True]], "flat above and below; -; at a border; flat; a rival"
    assert not heatmaps.undecided(maps, Decode(method="soft-argmax")).any()


def test_undecided_points_are_excluded_from_parity_and_counted() -> None:
    spec = landmark_spec("maps", "maps", size=(4, 6), landmarks=2, heatmaps=ARGMAX)
    one = np.concatenate([peak(1, 1, (2, 1), (1, 2)), peak(3, 2, (4, 2), (3, 1))], 1)
    other = one.copy()
    one[0, 0, 2, 4] = 1 - 1e-5
    other[0, 0, 2, 4] = 1 + 1e-5  # another cell is the largest
    outputs, expected = (
        Outputs(landmarks=heatmaps.decode(maps, ARGMAX), heatmaps=maps, undecided=heatmaps.undecided(maps, ARGMAX))
        for maps in (other, one)
    )
    gap = head_of(spec).gap(outputs, expected)
    assert (gap.undecided, gap.landmarks.max_abs) == (1, 0)
    assert gap.max_map == pytest.approx(2e-5, rel=1e-2)
    other[0, 1] = peak(1, 1, (2, 1), (1, 2))[0, 0]  # and a point that really moved
    outputs = Outputs(landmarks=heatmaps.decode(other, ARGMAX), heatmaps=other)
    gap = head_of(spec).gap(outputs, expected)
    assert gap.max_map == pytest.approx(1)
    assert gap.landmarks.max_abs > 0.1, "an error is never undecided, however large"


# ONNX files with heatmaps


def heatmap_onnx(path: Path, *, channels: int = 7) -> Path:
    """Writes a third party's network: `data` (N, 3, 32, 32) to maps (N, channels, 8, 8)."""
    weight = np.random.default_rng(0).normal(size=(channels, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["data", "weight"], ["maps"], strides=[4, 4])],
        "maps",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", channels, 8, 8])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("first", ["landmarks", "heatmaps"])
def test_an_artefact_that_decodes_heatmaps_can_become_a_source(tmp_path: Path, first: str) -> None:
    network = source.resolve(str(heatmap_onnx(tmp_path / "maps.onnx")), decode=ARGMAX, landmarks=7)
    made = convert(network, "onnx", Precision.FP32, out=tmp_path / "out")
    model = onnx.load(made.path / "model.onnx")
    outputs = sorted(model.graph.output, key=lambda value: value.name != first)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, tmp_path / "again.onnx")
    how = ARGMAX if first == "heatmaps" else None
    again = source.resolve(str(tmp_path / "again.onnx"), decode=how, landmarks=7 if how else None)
    twice = convert(again, "onnx", Precision.FP32, out=tmp_path / "out")
    expected, actual = (reference_file.read(artifacts.read(artefact.path)).outputs for artefact in (made, twice))
    np.testing.assert_allclose(actual.landmarks, expected.landmarks, atol=1e-6)


@pytest.mark.parametrize("how", ["argmax", "soft-argmax:3"])
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_heatmaps_of_an_onnx_file_become_points_in_the_graph(tmp_path: Path, how: str, target: str) -> None:
    path = heatmap_onnx(tmp_path / "maps.onnx")
    network = source.resolve(str(path), decode=heatmaps.parse(how), output_slice=(2, 7))
    made = convert(network, target, Precision.FP32, out=tmp_path / "out")
    assert made.spec.landmarks == 5
    assert [tensor.shape for tensor in made.spec.outputs] == [("N", 5, 2), ("N", 5, 8, 8)]
    kept = reference_file.read(artifacts.read(made.path)).outputs
    assert kept.heatmaps is not None
    np.testing.assert_allclose(heatmaps.decode(kept.heatmaps, heatmaps.parse(how)), kept.landmarks[:2])


def test_heatmaps_without_decode_are_refused(cli: Cli, tmp_path: Path) -> None:
    path = heatmap_onnx(tmp_path / "maps.onnx")
    cli("export", path).refused(2, "maps float32 (N, 7, 8, 8)", "use --landmarks 7 --decode argmax")


def test_decode_for_points_in_an_onnx_file_is_refused(cli: Cli, tiny: Path) -> None:
    cli("export", tiny, "--decode", "argmax").refused(2, "no heatmaps", "leave --decode out")


def test_decode_for_a_backbone_with_points_is_refused(cli: Cli, weights: Path) -> None:
    cli("export", "pfld", "--decode", "argmax").refused(2, "pfld gives points, not heatmaps")


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_heatmap_graph_with_fused_operators_is_converted(cli: Cli, shared: Path) -> None:
    path = shared / "weights" / "openseeface" / "lm_model0_opt.onnx"
    options = ("--decode", "argmax", "--output-slice", "0:66", "--to", "onnx", "--to", "openvino")
    assert cli("export", path, *options).code == 0
    verified = cli(
        "verify", "build/lm_model0_opt/onnx-fp32", "build/lm_model0_opt/openvino-fp32", "--weights", path, "--json"
    )
    assert verified.code == 0
    for row in verified.document["artifacts"]:
        assert row["parity"]["against"] == "onnx"
        assert row["gates"] == {"max_abs": "passed", "max_map": "passed"}
        assert row["parity"]["max_abs"] <= 1e-5
        assert 0 < row["parity"]["max_map"] <= 1e-4 or row["target"] == "onnx"
