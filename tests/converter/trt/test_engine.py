"""Inputs that an engine accepts, tested without an engine; running an engine needs a GPU."""

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
def test_batch_sizes_of_the_profile_are_accepted(batch: int) -> None:
    assert input_mismatch(images(batch, 3, 4, 4), FREE, PROFILE) is None


@pytest.mark.parametrize(("batch", "hint"), [(1, "--batch 1:4:8"), (9, "--batch 2:4:9"), (0, "--batch 1:4:8")])
def test_another_batch_size_is_refused_with_the_export_to_run(batch: int, hint: str) -> None:
    message, suggestion = input_mismatch(images(batch, 3, 4, 4), FREE, PROFILE) or ("", "")
    assert message == f"the batch size of input is {batch}, but the engine takes 2 to 8"
    assert suggestion == f"export again with {hint}"


def test_another_size_than_the_fixed_batch_is_refused_with_the_export_to_run() -> None:
    assert input_mismatch(images(2, 3, 4, 4), FIXED, None) is None
    mismatch = input_mismatch(images(3, 3, 4, 4), FIXED, None)
    assert mismatch == ("input is 3 x 3 x 4 x 4, but the engine takes 2 x 3 x 4 x 4", "export again with --batch 3")


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (2, 3, 4, 4, 1), ()])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    message, hint = input_mismatch(images(*shape), FREE, PROFILE) or ("", "")
    assert "the engine takes N x 3 x 4 x 4" in message
    assert hint == "use arrays of this shape"


def test_another_type_is_refused_and_not_cast() -> None:
    mismatch = input_mismatch({"input": np.zeros((2, 3, 4, 4))}, FREE, PROFILE)
    assert mismatch == ("input is float64, but the engine takes float32", "convert input to float32")


@pytest.mark.parametrize("inputs", [{}, {"image": 0}, {"input": 0, "boxes": 0}])
def test_other_inputs_are_refused_by_name(inputs: dict[str, object]) -> None:
    message, _ = input_mismatch(inputs, FREE, PROFILE) or ("", "")
    assert message.startswith("the engine takes input, not ")


def test_inputs_of_different_batch_sizes_are_refused() -> None:
    two = (*FREE, Tensor("boxes", np.dtype(np.float32), (-1, 4)))
    inputs = {**images(4, 3, 4, 4), "boxes": np.zeros((5, 4), np.float32)}
    message = "the inputs have different batch sizes"
    assert input_mismatch(inputs, two, PROFILE) == (message, "use the same batch size for all inputs")


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_without_a_gpu_an_engine_raises_a_fault() -> None:
    with pytest.raises(Fault) as error:
        Engine(b"no engine")
    assert error.value.kind == "device"


def test_a_closed_engine_raises_a_fault() -> None:
    closed = Engine.__new__(Engine)  # the state after `close`
    with pytest.raises(Fault, match="is closed") as caught:
        closed.run(images(2, 3, 4, 4))
    assert caught.value.kind == "run"
