"""What TensorRT says: all of it to `logging`, errors and warnings kept for whoever asks.

TensorRT takes the first logger that it is given for the whole process, so that there is one.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt as trt

LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "VERBOSE": logging.DEBUG,
}
"""TensorRT's severities."""
OUT = logging.getLogger("lmconv.tensorrt")
OUT.addHandler(logging.NullHandler())  # nobody who has not asked for it is told


@dataclass(eq=False)
class Said:
    """Errors and warnings, in order."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """The first error, which the others follow from, or else the last warning; one line."""
        found = self.errors[:1] or self.warnings[-1:]
        return " ".join(found[0].split()) if found else "it does not say why (-v shows its log)"


_listening: list[Said] = []


def hear(severity: str, message: str) -> None:
    """Passes a message on; `severity` is a key of LEVELS."""
    level = LEVELS.get(severity, logging.WARNING)
    OUT.log(level, "%s", message)
    for said in _listening:
        if level >= logging.ERROR:
            said.errors.append(message)
        elif level == logging.WARNING:
            said.warnings.append(message)


@contextlib.contextmanager
def heard() -> Iterator[Said]:
    """Keeps what TensorRT says while the block runs."""
    said = Said()
    _listening.append(said)
    try:
        yield said
    finally:
        _listening.remove(said)


@functools.cache
def logger() -> trt.ILogger:
    """The process's `tensorrt.ILogger`; the first call makes TensorRT's own plug-ins known too."""
    import tensorrt as trt

    class Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            with contextlib.suppress(Exception):  # it would end the process: TensorRT calls this from C++
                hear(severity.name, msg)

    made: Any = Log()
    trt.init_libnvinfer_plugins(made, "")
    return made  # type: ignore[no-any-return, unused-ignore]
