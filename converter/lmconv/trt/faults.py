"""What can go wrong with an engine: the one exception of this tree.

Everything in `lmconv/trt` runs on Python 3.9+ with numpy, tensorrt and pycuda alone, so that the folder can be copied
to a GPU host that has no more. It knows nothing of lmconv's own errors; `lmconv.targets.tensorrt` makes those of these.
"""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("device", "memory", "build", "load", "run", "shape", "locked")
"""No package or device; no room on it; an engine that cannot be built, loaded or run; wrong arrays; a cache that would
change."""


class Fault(Exception):
    """Something that a user can act on.

    Attributes:
        kind: One of KINDS.
        message: What, and where; one line.
        hint: What to do next.
        nodes: Names of the ONNX nodes that it concerns.
    """

    def __init__(self, kind: str, message: str, hint: str = "", nodes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.nodes = tuple(nodes)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
