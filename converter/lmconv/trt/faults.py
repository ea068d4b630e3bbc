"""What goes wrong with an engine or a GPU."""

from __future__ import annotations


class Fault(Exception):
    """Something that whoever builds or runs an engine can act on.

    Attributes:
        kind: "device", "memory", "build", "load", "run", "shape" or "locked".
        message: What was wrong, and where.
        hint: What to do next.
        nodes: Names of the ONNX nodes concerned.
    """

    def __init__(self, kind: str, message: str, hint: str = "", nodes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.nodes = nodes

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
