"""Further inputs of an ONNX file, which become constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmconv.errors import UsageError
from lmconv.sources.onnx_files.image import declared
from lmconv.sources.onnx_files.reading import graph_inputs

if TYPE_CHECKING:
    import onnx

NONE: Mapping[str, Any] = MappingProxyType({})
"""No constants."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """The value of an input that is no image.

    Attributes:
        value: The value, in the type and the shape that the file declares; a free axis has length 1.
        batched: True if the first axis is free.
    """

    value: NDArray[Any]
    batched: bool

    def repeated(self, count: int) -> NDArray[Any]:
        """Returns the value for a run on `count` images."""
        return np.repeat(self.value, count, 0) if self.batched else self.value


def typed(path: Path, model: onnx.ModelProto, constants: Mapping[str, Any]) -> dict[str, Constant]:
    """Returns the values of inputs that are no image.

    Args:
        path: The file.
        model: The content of the file.
        constants: Numbers, texts or nested lists by the name of the input, as in `--constant`.

    Raises:
        UsageError: The file has no such input, or the input takes other values.
    """
    inputs = {value.name: value for value in model.graph.input}
    if unknown := ", ".join(sorted(constants.keys() - inputs.keys())):
        listed = ", ".join(value.name for value in graph_inputs(model))
        hint = f"its inputs are {listed}" if listed else "it has no inputs"
        raise UsageError(f"{path} has no input {unknown}", hint=hint)
    return {name: _typed(path, inputs[name], given) for name, given in constants.items()}


def bake(path: Path, model: onnx.ModelProto, constants: Mapping[str, Any]) -> onnx.ModelProto:
    """Returns a model with initializers in place of the inputs `constants`; the argument is changed. See `typed`."""
    from onnx import numpy_helper

    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in constants]:
        model.graph.initializer.remove(tensor)  # a default that the user replaces
    for name, constant in typed(path, model, constants).items():
        model.graph.initializer.append(numpy_helper.from_array(constant.value, name))
    return model


def _typed(path: Path, value: onnx.ValueInfoProto, given: Any) -> Constant:
    """Returns the value of one input; one number fills the whole input."""
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    sides = declared(value)
    try:
        array = np.asarray(given).astype(kind)
        shape = array.shape if sides is None else tuple(side or 1 for side in sides)
        filled = np.full(shape, array) if array.size == 1 else array.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        message = f"--constant {value.name}={given!r} does not fit {value.name} of {path}, {kind} {sides or []}"
        raise UsageError(message, hint="give one number, or a list of that shape") from error
    return Constant(value=filled, batched=sides is not None and sides[:1] == [None])
