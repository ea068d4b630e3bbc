"""ONNX Runtime on the CPU: what judges every pass, and what the `onnx` target runs."""

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


class OrtSession:
    """A `Session` on ONNX Runtime."""

    caveat = ""

    def __init__(self, model: bytes | Path, *, threads: int = 0, provider: Provider = CPU) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is raised, too
        source = model if isinstance(model, bytes) else str(model)
        self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
            source, options, providers=[provider]
        )
        self.providers: list[str] = self._session.get_providers()
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session
