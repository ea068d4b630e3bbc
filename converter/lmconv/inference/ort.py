"""ONNX Runtime: on the CPU what judges every pass, and what the `onnx` target runs, there or on a GPU."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from numpy.typing import NDArray

from lmconv.types import Arrays

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

Provider: TypeAlias = tuple[str, dict[str, str]]
CPU: Provider = ("CPUExecutionProvider", {})
ASSIGNED = "session.record_ep_graph_assignment_info"
"""Has a session remember which provider computes which node."""


class OrtSession:
    """A `Session` on ONNX Runtime: on the provider that is named, or not at all.

    Attributes:
        session: What runs it.
        providers: The providers it has; the CPU's is always there, for nodes that the one which is named has not.
    """

    execution_mismatch = ""

    def __init__(self, model: bytes | Path, *, threads: int = 0, provider: Provider = CPU) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is raised, too
        if provider != CPU:
            options.add_session_config_entry(ASSIGNED, "1")
        source = model if isinstance(model, bytes) else str(model)
        self.session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            source,
            options,
            providers=[provider],
            enable_fallback=0,  # else it prints that it failed, and goes on on the CPU
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
"""Operators that CUDA has too: ONNX Runtime computes them on the CPU where they compute shapes, as it should."""


def on_the_cpu(session: onnxruntime.InferenceSession) -> list[tuple[str, str]]:
    """Nodes that a session computes on the CPU although another provider was named: (operator, name) of each.

    Shapes are left out. Empty as well where this ONNX Runtime (before 1.24) cannot tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU[0]]
    found = [(node.op_type, node.name) for part in parts for node in part.get_nodes()]
    return [node for node in found if node[0] not in SHAPES]
