"""Errors with their exit codes. A message says what is wrong and where; a hint says what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `lmconv --help` answers before the core types are made
    from lmconv.types import Json


class LmconvError(Exception):
    """Base class of all errors for the user; shown in one line, without a traceback unless `-v` is given.

    Attributes:
        kind: Kind of the error in `--json`.
        exit_code: Exit code of a command that ends with this error.
        message: Text that says what is wrong and where.
        hint: Text that says what to do next; empty if there is no advice.
    """

    kind: ClassVar[str] = "bug"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_json(self) -> Json:
        """Returns the `error` document of `--json`."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class GateFailed(LmconvError):
    """An artefact or a pass is outside its tolerance."""

    kind = "gate"
    exit_code = 1


class Refused(GateFailed):
    """The guard refuses a finished artefact.

    Attributes:
        figures: Figures of the guard, with the reason.
    """

    kind = "refused"

    def __init__(self, message: str, *, hint: str = "", figures: Json) -> None:
        super().__init__(message, hint=hint)
        self.figures = figures

    def to_json(self) -> Json:
        """Returns the `error` document with the figures of the guard as `guard`."""
        return super().to_json() | {"guard": self.figures}


class UsageError(LmconvError):
    """Wrong usage or an unknown name; raised before any work."""

    kind = "usage"
    exit_code = 2


class OtherPoints(UsageError):
    """No annotated face has the number of points that the network predicts."""


class MissingRuntime(LmconvError):
    """A package, runtime or device is missing; the hint says what to install."""

    kind = "missing"
    exit_code = 3


class InputError(LmconvError):
    """An input is missing, broken or refused, or an output cannot be written."""

    kind = "input"
    exit_code = 4


class Bug(LmconvError):
    """A bug of lmconv."""


def first_line(error: BaseException) -> str:
    """Returns the first line of the message of another library's error, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def listed(names: Iterable[str], shown: int = 3) -> str:
    """Returns the first `shown` names, and the number of the others, for a message."""
    every = list(names)
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def interrupted(error: BaseException | None) -> bool:
    """True if Ctrl-C is the cause of an error.

    A library that cleans up after a `KeyboardInterrupt` may raise an error of its own; the chain of causes and contexts
    then holds the interrupt.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def worst(codes: list[int]) -> int:
    """Returns the exit code of a command with several outcomes: the first of 70, 4, 3, 2 and 1 in `codes`, else 0."""
    return next((code for code in (70, 4, 3, 2, 1) if code in codes), 0)
