"""The only exception of `lmconv/trt`.

Every module in `lmconv/trt` runs on Python 3.9+ with only numpy, tensorrt and pycuda, so the folder can be copied to a
GPU host that has nothing else. The modules do not use lmconv's own errors; `lmconv.targets.tensorrt` converts Faults
to lmconv's errors.
"""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("device", "memory", "build", "load", "run", "shape", "locked")
"""Kinds of Faults.

- device: a package or the device is missing.
- memory: the device memory is full.
- build, load, run: an engine cannot be built, loaded or run.
- shape: the arrays do not match the engine's inputs.
- locked: the locked timing cache would change.
"""


class Fault(Exception):
    """A failure that the user can fix.

    Attributes:
        kind: One of KINDS.
        message: The problem and its place, in one line.
        hint: The next step for the user.
        nodes: Names of the ONNX nodes that cause the failure.
    """

    def __init__(self, kind: str, message: str, hint: str = "", nodes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
        self.nodes = tuple(nodes)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
