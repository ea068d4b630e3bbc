"""Forwards TensorRT's log to `logging`, and collects errors and warnings.

The whole process uses one logger, because TensorRT keeps the first logger that it gets.
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
"""TensorRT's severities as levels of `logging`."""
LOGGER = logging.getLogger("lmconv.tensorrt")
LOGGER.addHandler(logging.NullHandler())  # prints nothing unless the user asks for the log


@dataclass(eq=False)
class Messages:
    """Collected errors and warnings, in order."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """The first error, because later errors follow from it, or else the last warning; one line."""
        decisive = self.errors[:1] or self.warnings[-1:]
        return " ".join(decisive[0].split()) if decisive else "TensorRT gives no reason (-v shows its log)"


_collectors: list[Messages] = []


def forward(severity: str, message: str) -> None:
    """Forwards a message of TensorRT.

    Args:
        severity: A key of LEVELS.
        message: The text.
    """
    level = LEVELS.get(severity, logging.WARNING)
    LOGGER.log(level, "%s", message)
    for messages in _collectors:
        if level >= logging.ERROR:
            messages.errors.append(message)
        elif level == logging.WARNING:
            messages.warnings.append(message)


@contextlib.contextmanager
def collect() -> Iterator[Messages]:
    """Collects the messages that TensorRT logs while the block runs."""
    messages = Messages()
    _collectors.append(messages)
    try:
        yield messages
    finally:
        _collectors.remove(messages)


@functools.cache
def logger() -> trt.ILogger:
    """Returns the process's `tensorrt.ILogger`. The first call also registers TensorRT's own plug-ins."""
    import tensorrt as trt

    class Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            with contextlib.suppress(Exception):  # an exception would end the process: the caller is C++
                forward(severity.name, msg)

    instance: Any = Log()
    trt.init_libnvinfer_plugins(instance, "")
    return instance  # type: ignore[no-any-return, unused-ignore]
