"""Heads and interfaces: the spec decides on the head, and outputs stay equal after conversion to named arrays."""

from __future__ import annotations

import numpy as np
import pytest

from lmconv.building.feasibility import is_possible
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import INTERFACES, folder_name, interface_of
from lmconv.networks.seeded import scene
from lmconv.plugins import TARGETS
from lmconv.types import Decode, Io, ModelSpec, Precision, Variant, detection_spec, landmark_spec

POINTS = landmark_spec("points", "points", size=(8, 8), landmarks=2)
MAPS = landmark_spec("maps", "maps", size=(8, 8), landmarks=2, heatmaps=Decode())
RAW = detection_spec("raw", outputs={"scores": ("N", "P", 2), "boxes": ("N", "P", 4)})


def chunk(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Returns the outputs of a session for three inputs."""
    random = np.random.default_rng(0)
    shapes = {"landmarks": (3, 2, 2), "heatmaps": (3, 2, 4, 4), "scores": (3, 5, 2), "boxes": (3, 5, 4)}
    return {tensor.name: random.random(shapes[tensor.name]).astype(np.float32) for tensor in spec.outputs}


@pytest.mark.parametrize(("spec", "name"), [(POINTS, "points"), (MAPS, "heatmaps"), (RAW, "raw")])
def test_the_spec_decides_on_the_head(spec: ModelSpec, name: str) -> None:
    assert head_of(spec).name == name


@pytest.mark.parametrize("spec", [POINTS, MAPS, RAW], ids=lambda spec: spec.name)
def test_outputs_stay_equal_after_conversion_to_arrays(spec: ModelSpec) -> None:
    head = head_of(spec)
    outputs = head.collect([(0, chunk(spec))], None)
    again = head.from_arrays(head.to_arrays(outputs))
    gap = head.gap(again, outputs)
    assert (gap.landmarks.max_abs, gap.landmarks.n, gap.max_map or 0) == (0, 3, 0)
    assert head.mean_change(outputs, again) == 0


@pytest.mark.parametrize("spec", [POINTS, MAPS, RAW], ids=lambda spec: spec.name)
def test_outputs_in_parts_are_joined(spec: ModelSpec) -> None:
    head, values = head_of(spec), chunk(spec)
    whole = head.collect([(0, values)], None)
    parts = [head.collect([(0, {name: value[rows] for name, value in values.items()})], None) for rows in ([0], [1, 2])]
    assert head.gap(head.join(parts), whole).landmarks.max_abs == 0


def test_heatmaps_are_kept_for_the_first_inputs_only() -> None:
    head, values = head_of(MAPS), chunk(MAPS)
    kept = head.collect([(0, values), (3, values)], 4).heatmaps
    assert kept is not None
    assert len(kept) == 4
    assert head.collect([(0, values)], 0).heatmaps is None


def test_a_detector_is_judged_on_no_faces_and_takes_tensors_only() -> None:
    assert (head_of(RAW).on_faces, head_of(RAW).ios) == (False, ("tensor",))


@pytest.mark.parametrize(("io", "folder"), [("tensor", "t-fp32"), ("image", "t-fp32-image"), ("frame", "t-fp32-frame")])
def test_the_folder_names_the_interface(io: Io, folder: str) -> None:
    assert folder_name(Variant(target="t", io=io)) == folder


def test_coordinates_of_a_frame_are_impossible_in_bf16() -> None:
    openvino = TARGETS.load("openvino")
    assert [io for io in INTERFACES if is_possible(openvino, Precision.BF16, io)] == ["tensor", "image"]


@pytest.mark.parametrize("io", list(INTERFACES))
def test_fractions_and_pixels_of_the_frame_describe_the_same_position(io: Io) -> None:
    interface, shown = interface_of(POINTS, io), scene(3, 0)
    points = np.random.default_rng(0).random((3, 2, 2)).astype(np.float32)
    inputs = interface.of_scene(shown)[interface.batched]
    fractions = interface.fractions(points, inputs)
    squares = np.array(shown.squares(POINTS.crop))
    in_frame = fractions * squares[:, None, 2:] + squares[:, None, :2]
    np.testing.assert_allclose(interface.in_picture(points, shown), in_frame, atol=1e-3)
