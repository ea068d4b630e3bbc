"""Sessions of ONNX Runtime: the target `onnx`, on CPU or GPU, and the judge of every pass, on the CPU."""

from __future__ import annotations

import re
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from numpy.typing import NDArray

from lmconv.errors import first_line
from lmconv.types import Arrays

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

Provider: TypeAlias = tuple[str, dict[str, str]]
CPU: Provider = ("CPUExecutionProvider", {})
PLACE = re.compile(
    r"Exception during initialization: |\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|"
    r"\w+\.cc:\d+ \w+ |"
    r"\S+/onnxruntime/core/\S+:\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? "
)
"""Parts of a message of ONNX Runtime that name the code of ONNX Runtime, or repeat the path of the file."""
ASSIGNED = "session.record_ep_graph_assignment_info"
"""Setting that makes a session record the provider of each node."""


def reason(error: BaseException) -> str:
    """Returns the message of an error of ONNX Runtime in one line, without the place in the code of ONNX Runtime."""
    return PLACE.sub("", first_line(error)) or first_line(error)


class OrtSession:
    """A `Session` on ONNX Runtime. A provider that cannot be used is an error, not a fallback to the CPU.

    Attributes:
        session: The session of ONNX Runtime.
        providers: Names of the session's providers. The CPU provider is always present: it computes the nodes that the
            named provider does not support.
    """

    execution_mismatch = ""

    def __init__(self, model: bytes | Path, *, threads: int = 0, provider: Provider = CPU) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # every error is also raised
        if provider != CPU:
            options.add_session_config_entry(ASSIGNED, "1")
        source = model if isinstance(model, bytes) else str(model)
        self.session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            source,
            options,
            providers=[provider],
            enable_fallback=0,  # otherwise a failed provider is replaced by the CPU, with a printed message only
        )
        self.providers: list[str] = self.session.get_providers()
        self._outputs = [value.name for value in self.session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        return dict(zip(self._outputs, self.session.run(None, dict(inputs)), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.session


SHAPES = {
    "Shape",
    "Size",
    "Gather",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Expand",
    "ConstantOfShape",
    "Range",
    "Cast",
    "Identity",
    "Where",
    "Equal",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "ReduceProd",
}
"""Operators that CUDA supports, and that ONNX Runtime rightly computes on the CPU if their values are shapes."""


def on_the_cpu(session: onnxruntime.InferenceSession) -> list[tuple[str, str]]:
    """Returns (operator, name) of each node that a session computes on the CPU although another provider was named.

    Operators on shapes are left out. The list is also empty for ONNX Runtime before 1.24, which does not report them.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU[0]]
    nodes = [(node.op_type, node.name) for part in parts for node in part.get_nodes()]
    return [node for node in nodes if node[0] not in SHAPES]
