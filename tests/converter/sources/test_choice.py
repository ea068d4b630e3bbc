"""The choice of the outputs that hold the landmarks: rules, questions, refusals."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lmconv.errors import InputError, LmconvError, UsageError
from lmconv.networks.candidates import Candidate, Candidates
from lmconv.sources.choice import choose
from lmconv.types import Decode, ModelSpec, OutputOptions, landmark_spec

SPEC = landmark_spec("net", "onnx", size=(64, 48), landmarks=0)


def output(name: str, *sizes: int, dtype: str = "float32", batched: bool = True) -> Candidate:
    """Returns an output with values from 0 to 1 for two inputs."""
    values = np.random.default_rng(list(name.encode())).random((2, *sizes)).astype(np.float32)
    return Candidate(name=name, values=values, dtype=dtype, batched=batched)


def chosen(*outputs: Candidate, **options: object) -> ModelSpec:
    return choose(Candidates(source="net.onnx", outputs=outputs), SPEC, OutputOptions(**options))  # type: ignore[arg-type]


def names(spec: ModelSpec) -> tuple[str, ...]:
    assert spec.chosen
    return spec.chosen.names


@pytest.mark.parametrize(
    "sizes", [(136,), (68, 2), (136, 1, 1), (1, 1, 136), (1, 136), (1, 68, 2), (68, 1, 2)], ids=str
)
def test_the_shapes_of_68_points_are_points(sizes: tuple[int, ...]) -> None:
    spec = chosen(output("y", *sizes))
    assert (spec.landmarks, spec.outputs[0].shape) == (68, ("N", 68, 2))


@pytest.mark.parametrize("sizes", [(20,), (10, 2)])
def test_points_may_have_no_batch_axis(sizes: tuple[int, ...]) -> None:
    assert chosen(output("y", *sizes, batched=False)).landmarks == 10


def test_features_before_the_landmarks_are_left_out_and_named() -> None:
    spec = chosen(output("output1", 64, 28, 28), output("output", 212))
    assert (spec.landmarks, names(spec)) == (106, ("output",))
    assert spec.chosen
    assert re.fullmatch(r"output1 float32 \(N, 64, 28, 28\) \S+ to \S+", spec.chosen.left_out[0])


@pytest.mark.parametrize("name", ["landmarks", "lmk", "pts.keypoints", "kpts", "face_points", "coords", "Landmark_5"])
def test_a_name_decides_among_outputs_that_can_be_points(name: str) -> None:
    assert names(chosen(output("score", 8, 1, 1), output(name, 20))) == (name,)


def test_two_outputs_that_can_be_points_are_a_question() -> None:
    with pytest.raises(UsageError, match="2 outputs that can be landmarks") as caught:
        chosen(output("score", 8, 1, 1), output("y", 20))
    assert caught.value.hint == "name one: --output score or --output y"
    for part in ("score float32 (N, 8, 1, 1) 0.", "y float32 (N, 20) 0."):
        assert part in caught.value.message


def test_the_first_output_is_taken_if_no_other_has_a_published_number_of_points() -> None:
    assert names(chosen(output("y", 20), output("score", 8, 1, 1))) == ("y",)


@pytest.mark.parametrize("which", ["y", "1"])
def test_the_user_names_an_output_by_name_or_index(which: str) -> None:
    assert names(chosen(output("score", 8, 1, 1), output("y", 20), output=which)) == ("y",)


def test_the_number_of_points_decides_among_outputs() -> None:
    assert names(chosen(output("a", 20), output("b", 136), landmarks=68)) == ("b",)


@pytest.mark.parametrize("sizes", [(4420, 2), (1600,), (16,), (7, 2)])
def test_a_number_of_points_that_nobody_published_must_be_named(sizes: tuple[int, ...]) -> None:
    count = sizes[0] if len(sizes) == 2 else sizes[0] // 2
    with pytest.raises(UsageError, match=f"{count} points, which no published scheme has") as caught:
        chosen(output("y", *sizes))
    assert f"--landmarks {count}" in caught.value.hint
    assert chosen(output("y", *sizes), landmarks=count).landmarks == count


def test_an_output_called_landmarks_with_two_coordinates_needs_no_number() -> None:
    assert chosen(output("landmarks", 7, 2)).landmarks == 7


@pytest.mark.parametrize(
    "outputs",
    [
        (output("cls", 1600, 1), output("obj", 400, 1), output("kps", 1600, 10)),
        (output("classes", 20, dtype="int64"),),
        (output("features", 512, 7, 7),),
        (output("odd", 7),),
        (output("loc", 1076, 14, batched=False),),
    ],
    ids=lambda outputs: outputs[0].name,
)
def test_scores_boxes_and_features_are_never_points(outputs: tuple[Candidate, ...]) -> None:
    with pytest.raises(LmconvError, match="has no output of points"):
        chosen(*outputs)


def test_probabilities_are_no_points() -> None:
    values = np.full((2, 68, 2), 0.5, np.float32)
    with pytest.raises(InputError, match="sums of 1"):
        chosen(Candidate(name="y", values=values, dtype="float32"))


def test_an_unknown_output_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match="has no output points") as caught:
        chosen(output("a", 20), output("b", 20), output="points")
    assert caught.value.hint == "its outputs: a, b"


def test_an_output_that_is_there_twice_is_no_question() -> None:
    twice = output("a", 20)
    again = Candidate(name="b", values=twice.values, dtype="float32")
    assert names(chosen(twice, again)) == ("a",)


# Hints


def test_the_hint_for_another_number_of_points_names_the_number() -> None:
    with pytest.raises(UsageError, match="no output of 12 points") as caught:
        chosen(output("features", 16, 16, 16), output("y", 20, 1, 1), landmarks=12)
    assert caught.value.hint == "use --landmarks 10"


def test_the_hint_for_maps_alone_is_decode() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(output("y", 68, 16, 12))
    assert caught.value.hint == "if these are heatmaps of 68 points: use --landmarks 68 --decode argmax"


def test_the_hint_for_two_vectors_is_simcc() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(output("x", 68, 96), output("y", 68, 128))
    assert "--decode simcc" in caught.value.hint


@pytest.mark.parametrize("options", [{"coordinates": "xyz"}, {"output": "features"}, {"decode": Decode()}], ids=str)
def test_the_hint_for_a_superfluous_option_names_the_output_that_holds_points(options: dict[str, object]) -> None:
    outputs = (output("features", 64, 28, 28), output("y", 212))
    with pytest.raises(UsageError) as caught:
        chosen(*outputs, **options)
    assert caught.value.hint == f"leave --{next(iter(options))} out: y holds 106 points"
    assert chosen(*outputs).landmarks == 106


def test_a_message_names_a_dozen_outputs_and_counts_the_others() -> None:
    with pytest.raises(UsageError, match=r"11 float32 \(N, 8, 4, 4\) \S+ to \S+; and 8 more"):
        chosen(*(output(str(index), 8, 4, 4) for index in range(20)))


def test_the_hint_for_1404_numbers_is_468_points_of_three_coordinates() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(output("y", 1404), landmarks=400)
    assert caught.value.hint == "use --landmarks 468"


# Three coordinates


@pytest.mark.parametrize("sizes", [(1404,), (468, 3), (1, 1, 1404)], ids=str)
def test_468_points_have_three_coordinates(sizes: tuple[int, ...]) -> None:
    spec = chosen(output("y", *sizes))
    assert (spec.landmarks, spec.outputs[0].shape) == (468, ("N", 468, 3))
    dropped = chosen(output("y", *sizes), coordinates="xy")
    assert (dropped.outputs[0].shape, dropped.chosen and dropped.chosen.axes) == (("N", 468, 2), "xyz")


def test_a_flat_output_is_read_with_two_coordinates_if_both_readings_are_published() -> None:
    assert chosen(output("y", 30)).landmarks == 15
    solid = chosen(output("y", 30), coordinates="xyz")
    assert (solid.landmarks, solid.outputs[0].shape) == (10, ("N", 10, 3))


def test_three_coordinates_are_not_guessed_against_the_users_number() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(output("y", 12), landmarks=4)
    assert caught.value.hint == "for 4 points of three coordinates, add --coordinates xyz"


# Units


@pytest.mark.parametrize(
    ("low", "high", "unit"), [(0.05, 0.95, "fraction"), (3, 60, "pixels"), (40, 600, "pixels"), (-0.8, 0.8, "[-1,1]")]
)
def test_the_range_shows_the_unit(low: float, high: float, unit: str) -> None:
    points = np.linspace(low, high, 136, dtype=np.float32)
    values = np.stack([points, points * 1.01, points * 0.99])
    spec = chosen(Candidate(name="y", values=values, dtype="float32"))
    assert spec.decode == unit
    assert spec.chosen
    assert f"x and y are {values.min():.3g} to {values.max():.3g}" in spec.chosen.unit_reason
    assert chosen(Candidate(name="y", values=values, dtype="float32"), unit="fraction").decode == "fraction"


# Heatmaps and SimCC


def test_a_slice_of_points_is_not_taken_from_feature_maps() -> None:
    assert names(chosen(output("features", 64, 28, 28), output("y", 212), output_slice=(0, 136))) == ("y",)


def test_heatmaps_need_no_equal_sides() -> None:
    spec = chosen(output("y", 68, 16, 12), decode=Decode())
    assert spec.outputs[1].shape == ("N", 68, 16, 12)


def test_feature_maps_are_heatmaps_by_the_users_word_only() -> None:
    outputs = (output("features", 64, 28, 28), output("y", 212))
    with pytest.raises(UsageError, match="64 points, which no published scheme has"):
        chosen(*outputs, decode=Decode())
    assert names(chosen(*outputs, decode=Decode(), landmarks=64)) == ("features",)


def test_the_last_of_a_stack_of_heatmaps_is_taken() -> None:
    stacks = (output("0", 68, 16, 16), output("1", 68, 16, 16))
    assert names(chosen(*stacks, decode=Decode())) == ("1",)
    assert names(chosen(*stacks, decode=Decode(), output="0")) == ("0",)


@pytest.mark.parametrize("other", [output("b", 68, 16, 16), output("1", 68, 8, 8)])
def test_two_outputs_that_can_be_heatmaps_are_a_question(other: Candidate) -> None:
    with pytest.raises(UsageError, match="2 outputs that can be heatmaps"):
        chosen(output("0", 68, 16, 16), other, decode=Decode())


def test_a_part_of_the_maps_is_named_by_the_slice() -> None:
    assert chosen(output("y", 69, 16, 16), decode=Decode(), output_slice=(0, 68)).landmarks == 68


def test_simcc_takes_the_vector_of_x_first() -> None:
    spec = chosen(output("simcc_y", 68, 128), output("simcc_x", 68, 96), decode=Decode(method="simcc", beta=0))
    assert names(spec) == ("simcc_x", "simcc_y")
    assert (spec.outputs[1].shape, spec.chosen and spec.chosen.split) == (("N", 68, 224), 96)


def test_more_than_two_vectors_are_a_question() -> None:
    vectors = [output(name, 68, 96) for name in "xyz"]
    simcc = Decode(method="simcc", beta=0)
    with pytest.raises(UsageError, match="more than two SimCC vectors"):
        chosen(*vectors, decode=simcc)
    assert names(chosen(*vectors, decode=simcc, output="y, x")) == ("y", "x")


def test_unit_and_coordinates_are_for_points() -> None:
    for options in ({"unit": "pixels"}, {"coordinates": "xy"}):
        with pytest.raises(UsageError, match="is for points"):
            chosen(output("y", 68, 16, 16), decode=Decode(), **options)
