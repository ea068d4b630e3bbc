"""What an engine takes, told without one. That it runs is for machines with a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from lmconv.trt import device
from lmconv.trt.engine import Engine, Tensor, input_mismatch
from lmconv.trt.faults import Fault
from lmconv.types import Float32

FREE = (Tensor("input", np.dtype(np.float32), (-1, 3, 4, 4)),)
FIXED = (Tensor("input", np.dtype(np.float32), (2, 3, 4, 4)),)
PROFILE = (2, 4, 8)


def images(*shape: int) -> dict[str, Float32]:
    return {"input": np.zeros(shape, np.float32)}


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_batches_of_the_profile_fit(batch: int) -> None:
    assert input_mismatch(images(batch, 3, 4, 4), FREE, PROFILE) is None


@pytest.mark.parametrize(("batch", "hint"), [(1, "--batch 1:4:8"), (9, "--batch 2:4:9"), (0, "--batch 1:4:8")])
def test_other_batches_are_told_what_to_export(batch: int, hint: str) -> None:
    message, said = input_mismatch(images(batch, 3, 4, 4), FREE, PROFILE) or ("", "")
    assert message == f"the batch size of input is {batch}, but the engine takes 2 to 8"
    assert said == f"export again with {hint}"


def test_a_fixed_batch_is_told_what_to_export() -> None:
    assert input_mismatch(images(2, 3, 4, 4), FIXED, None) is None
    found = input_mismatch(images(3, 3, 4, 4), FIXED, None)
    assert found == ("input is 3 x 3 x 4 x 4, but the engine takes 2 x 3 x 4 x 4", "export again with --batch 3")


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (2, 3, 4, 4, 1), ()])
def test_another_shape_does_not_fit(shape: tuple[int, ...]) -> None:
    message, hint = input_mismatch(images(*shape), FREE, PROFILE) or ("", "")
    assert "the engine takes N x 3 x 4 x 4" in message
    assert hint == "use arrays of this shape"


def test_nothing_is_cast_in_silence() -> None:
    found = input_mismatch({"input": np.zeros((2, 3, 4, 4))}, FREE, PROFILE)
    assert found == ("input is float64, but the engine takes float32", "convert input to float32")


@pytest.mark.parametrize("given", [{}, {"image": 0}, {"input": 0, "boxes": 0}])
def test_other_inputs_are_named(given: dict[str, object]) -> None:
    message, _ = input_mismatch(given, FREE, PROFILE) or ("", "")
    assert message.startswith("the engine takes input, not ")


def test_inputs_come_in_equal_numbers() -> None:
    two = (*FREE, Tensor("boxes", np.dtype(np.float32), (-1, 4)))
    given = {**images(4, 3, 4, 4), "boxes": np.zeros((5, 4), np.float32)}
    message = "the inputs have different batch sizes"
    assert input_mismatch(given, two, PROFILE) == (message, "use the same batch size for all inputs")


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_without_a_gpu_an_engine_is_a_fault_and_no_crash() -> None:
    with pytest.raises(Fault) as error:
        Engine(b"no engine")
    assert error.value.kind == "device"


def test_an_engine_that_was_closed_is_a_fault() -> None:
    closed = Engine.__new__(Engine)  # as `close` leaves it
    with pytest.raises(Fault, match="is closed") as caught:
        closed.run(images(2, 3, 4, 4))
    assert caught.value.kind == "run"
