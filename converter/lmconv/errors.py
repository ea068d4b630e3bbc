"""What can go wrong: one class, one exit code. A message says what and where; a hint says what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `lmconv --help` answers before the core types are made
    from lmconv.types import Json


class LmconvError(Exception):
    """An error that a user can act on; never shown with a traceback."""

    kind: ClassVar[str] = "bug"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_json(self) -> Json:
        """The `error` document of the command line's `--json`."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class GateFailed(LmconvError):
    """An artefact is outside its tolerance."""

    kind = "gate"
    exit_code = 1


class Refused(GateFailed):
    """A finished artefact that its guard does not let through; `figures` says why."""

    kind = "refused"

    def __init__(self, message: str, *, hint: str = "", figures: Json) -> None:
        super().__init__(message, hint=hint)
        self.figures = figures

    def to_json(self) -> Json:
        """The `error` document, with the guard's figures."""
        return super().to_json() | {"guard": self.figures}


class UsageError(LmconvError):
    """Wrong usage or an unknown name, found before any work."""

    kind = "usage"
    exit_code = 2


class OtherPoints(UsageError):
    """Faces have another number of points than the network finds."""


class MissingRuntime(LmconvError):
    """A package, runtime or device is not here; the hint says what to install."""

    kind = "missing"
    exit_code = 3


class InputError(LmconvError):
    """An input is missing, broken or refused, or an output cannot be written."""

    kind = "input"
    exit_code = 4


class Bug(LmconvError):
    """Our own mistake."""


def first_line(error: BaseException) -> str:
    """What another library says went wrong, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def interrupted(error: BaseException | None) -> bool:
    """Whether an error came of Ctrl-C: a library that cleans up after it may raise one of its own instead."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def worst(codes: list[int]) -> int:
    """The exit code of a command with several outcomes: the highest-ranking of 70 > 4 > 3 > 2 > 1, else 0."""
    return next((code for code in (70, 4, 3, 2, 1) if code in codes), 0)
