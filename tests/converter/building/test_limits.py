"""Limits by target, precision, head and interface."""

from __future__ import annotations

import math

import pytest

from lmconv.building import limits
from lmconv.building.limits import acceptance, coordinate, gates, scaled
from lmconv.plugins import TARGETS
from lmconv.types import Io, Precision


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        ("onnx", Precision.FP32, {"max_abs": 1e-5}),
        ("openvino", Precision.FP16, {"max_px": 0.1}),
        ("openvino", Precision.BF16, {"ion_loss": 0.15}),
        ("openvino", Precision.INT8, {"ion_loss": 0.15}),
        ("tensorrt", Precision.INT8, {"ion_loss": 0.15}),
        ("tensorrt", Precision.FP32, {"max_abs": 1e-4}),
        ("onnx", Precision.INT8, {"ion_loss": 0.3}),
        ("onnx", Precision.MIXED, {"ion_loss": 0.3}),
    ],
)
def test_every_precision_has_a_default_gate(target: str, precision: Precision, expected: dict[str, float]) -> None:
    assert gates(TARGETS.load(target), precision, head="points") == expected


def test_heatmaps_are_judged_by_their_maps() -> None:
    target = TARGETS.load("onnx")
    assert gates(target, Precision.FP32, head="heatmaps") == {"max_abs": 1e-5, "max_map": 1e-4}
    assert gates(target, Precision.FP16, head="heatmaps") == {"max_map": 1e-2, "mean_px": 0.1}


def test_raw_outputs_are_judged_by_their_range_below_fp32() -> None:
    target = TARGETS.load("openvino")
    assert gates(target, Precision.FP32, head="raw") == {"max_abs": 1e-4}
    assert gates(target, Precision.FP16, head="raw") == {"max_map": 1e-2}
    assert gates(target, Precision.BF16, head="raw") == {"max_map": 5e-2}


@pytest.mark.parametrize(
    ("head", "expected"), [("points", {"max_px": 0.05}), ("heatmaps", {"max_map": 1e-2, "mean_px": 0.05})]
)
def test_crops_cut_in_the_graph_may_differ_by_a_grey_level(head: str, expected: dict[str, float]) -> None:
    assert gates(TARGETS.load("onnx"), Precision.FP32, head=head, io="frame") == expected


@pytest.mark.parametrize(("io", "expected"), [("tensor", 0.5), ("frame", 0.55)])
def test_a_bound_of_compaction_replaces_the_gates_of_fp32(io: Io, expected: float) -> None:
    bounded = gates(TARGETS.load("onnx"), Precision.FP32, head="points", io=io, compact_px=0.5)
    assert bounded == {"compact_px": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("target", "io", "landmarks"), [("onnx", "tensor", 1e-5), ("tensorrt", "image", 1e-4), ("openvino", "frame", 4e-4)]
)
def test_an_artefact_in_fp32_is_written_at_parity_only(target: str, io: Io, landmarks: float) -> None:
    assert acceptance(TARGETS.load(target), Precision.FP32, io)["landmarks"] == landmarks


@pytest.mark.parametrize(("side", "px"), [(32, 0.1), (64, 0.1), (112, 0.175), (160, 0.25)])
def test_the_distance_in_fp16_grows_with_the_side_of_the_input(side: int, px: float) -> None:
    limits = gates(TARGETS.load("onnx"), Precision.FP16, head="points", side=side)
    assert limits == {"max_px": pytest.approx(px)}
    assert coordinate(TARGETS.load("onnx"), Precision.FP16, (side, side)) == pytest.approx(px / side)


def test_limits_on_coordinates_grow_with_the_largest_coordinate() -> None:
    limits = {"max_abs": 1e-5, "max_px": 0.1, "max_map": 1e-4, "ion_loss": 0.15}
    assert scaled(limits, 192.0) == {
        "max_abs": pytest.approx(192e-5),
        "max_px": pytest.approx(19.2),
        "max_map": 1e-4,
        "ion_loss": 0.15,
    }


@pytest.mark.parametrize(
    ("figure", "limit", "form", "expected"),
    [
        (0.0304, 0.03, "+.3f", ("+0.0304", "0.03")),
        (0.03, 0.03, "+.3f", ("+0.030", "0.03")),
        (-0.0871, 0.03, "+.3f", ("-0.087", "0.03")),
        (1.0349, 1.03, ".2f", ("1.035", "1.03")),
        (1.0000004e-5, 1e-5, ".2g", ("1.0000004e-05", "1e-05")),
        (0.15, 0.14998, ".2g", ("0.15", "0.14998")),
        (5.4, 0.1, ".2g", ("5.4", "0.1")),
        (math.nan, 0.1, ".2g", ("nan", "0.1")),
        (math.inf, 0.1, ".2g", ("inf", "0.1")),
    ],
)
def test_a_figure_has_the_digits_that_tell_it_from_its_limit(
    figure: float, limit: float, form: str, expected: tuple[str, str]
) -> None:
    assert limits.beside(figure, limit, form) == expected


def test_a_relative_limit_follows_the_ion_of_the_source() -> None:
    assert limits.Relative(percent=5).points(3.2) == pytest.approx(0.16)
    assert math.isnan(limits.Relative(percent=5).points(None))
