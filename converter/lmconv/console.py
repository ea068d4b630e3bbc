"""Shared parts of all commands: common options, output, progress, and the outcome of several attempts."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lmconv.errors import Bug, LmconvError, interrupted, worst

if TYPE_CHECKING:
    from lmconv.types import Json

T = TypeVar("T")
LOG = logging.getLogger(__name__)

_names: list[str] = []
_listeners: list[Callable[[str], object]] = []


@contextmanager
def phase(name: str, parts: int | None = None) -> Iterator[Callable[[], None]]:
    """Names the work inside, for the terminal. Phases nest: "pfld onnx int8: rounding 12 of 45".

    A progress bar shows the open phases beside it. `-v` logs the seconds of each phase when the phase ends, and the
    processor time of all threads.

    Args:
        name: The work in a few words, for example "timing widths".
        parts: Number of parts of the work; None if unknown.

    Yields:
        A function to call at the start of each part.
    """
    start, processor = time.perf_counter(), time.process_time()
    place, count = len(_names), itertools.count(1)

    def show(text: str) -> None:
        _names[place:] = [text]
        announce(": ".join(_names))

    show(name)
    try:
        yield lambda: show(f"{name} {next(count)}{f' of {parts}' if parts else ''}")
    finally:
        del _names[place:]
        seconds, busy = time.perf_counter() - start, time.process_time() - processor
        LOG.info("%s: %.1f s, processor %.1f s", ": ".join([*_names, name]), seconds, busy)
        announce(": ".join(_names))


@contextmanager
def announced(listener: Callable[[str], object]) -> Iterator[None]:
    """Passes the names of the open phases to `listener` at every change."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce(phases: str) -> None:
    """Passes the names of open phases, also those of another process, to every listener."""
    for listener in _listeners:
        listener(phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Writer of notes, progress and logs to standard error; only the result is written to standard output.

    Attributes:
        quiet: True to write no notes and no progress.
        verbose: True to show logs of runtimes, and the traceback behind an error.
    """

    quiet: bool = False
    verbose: bool = False

    def note(self, text: str) -> None:
        """Writes a note to standard error, unless `quiet`."""
        if not self.quiet:
            _write_line(text)

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Shows the log of lmconv and its runtimes (TensorRT logs much) on standard error if `verbose`."""
        if not self.verbose:
            yield
            return
        logger, handler = logging.getLogger("lmconv"), logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        previous_level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(previous_level)
            logger.removeHandler(handler)

    @contextmanager
    def progress(
        self, steps: int | None, label: str, beside: Callable[[], str] | None = None
    ) -> Iterator[Callable[..., None]]:
        """Shows a progress bar and the open phases on standard error if that is a terminal, unless `quiet`.

        Args:
            steps: Number of steps; None if unknown.
            label: Text before the bar.
            beside: Returns the text after the bar, before the phases; called at every update.

        Yields:
            A function to call after each step; its optional argument is the number of finished steps.
        """
        hidden = self.quiet or not sys.stderr.isatty()
        phases = ""

        def text_after(_: object) -> str:
            columns = shutil.get_terminal_size().columns - len(label) - 36  # 36 for the bar, percent and time left
            text = "  ".join(filter(None, [beside() if beside else "", phases]))
            return f"…{text[1 - columns :]}" if len(text) > columns > 1 else text

        endless = itertools.count() if steps is None else None
        with click.progressbar(
            endless, length=steps, label=label, file=sys.stderr, hidden=hidden, item_show_func=text_after, width=12
        ) as bar:

            def show(text: str) -> None:
                nonlocal phases
                phases = text
                bar.render_progress()

            with announced(show):
                yield lambda finished=1: bar.update(finished)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Outcome of a command.

    Attributes:
        document: The `--json` document, without `errors`.
        text: The same content as text for a person.
        failed: True if a gate failed.
        errors: Error documents of single items; the command continues after such an error.
    """

    document: Json
    text: str = ""
    failed: bool = False
    errors: list[Json] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The highest-ranking exit code of all errors and gates, see `worst`."""
        return worst([error["exit_code"] for error in self.errors] + ([1] if self.failed else []))


def attempt(console: Console, action: Callable[[], T], errors: list[Json], **label: Any) -> T | None:
    """Runs one of several actions; the command continues after a failure.

    Args:
        console: Decides whether the traceback is shown.
        action: The action.
        errors: Receives the error document of a failure.
        label: Keys and values that identify the item; added to the error document, and to the message.

    Returns:
        The result of the action; None after a failure.
    """
    try:
        return action()
    except LmconvError as error:
        failure = error
        if console.verbose and error.__cause__:
            import traceback

            traceback.print_exception(error.__cause__)
    except Exception as error:  # a bug of lmconv; the other items are still tried
        if interrupted(error):
            raise KeyboardInterrupt from error
        if console.verbose:
            import traceback

            traceback.print_exc()
        failure = Bug(f"{type(error).__name__}: {error}".strip(), hint=REPORT)
    errors.append(failure.to_json() | {key: str(value) for key, value in label.items()})
    prefix = " ".join(str(value) for value in label.values() if str(value) not in failure.message)
    _write_line(one_line(f"error: {prefix}{': ' if prefix else ''}{failure}"))
    return None


def _write_line(text: str) -> None:
    """Writes a line to standard error; on a terminal the line replaces an open progress bar, which is drawn again."""
    if _listeners and sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    click.echo(text, err=True)


def one_line(text: str) -> str:
    """Returns a message on one line with escaped control characters: parts of a message may come from foreign files."""
    line = " ".join(part.strip() for part in text.splitlines())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


class Finite(click.FloatRange):
    """Type of an option: a finite number, optionally within a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parses the number; fails with click's usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


REPORT = "this is a bug in lmconv: please report the output of the same command with -v"
"""Hint of every bug."""


def command(**settings: Any) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Makes a click command with the common options from a function that takes a `Console` and returns an `Outcome`.

    Args:
        settings: Arguments of `click.command`.
    """

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document to stdout; notes and errors go to stderr."
        )
        @click.option("--quiet", is_flag=True, help="Print only the result and errors; no notes, no progress.")
        @click.option("-v", "--verbose", is_flag=True, help="Print more detail, the logs of runtimes, and tracebacks.")
        @functools.wraps(function)
        def run(*, as_json: bool, quiet: bool, verbose: bool, **arguments: Any) -> int:
            console = Console(quiet=quiet, verbose=verbose)
            with console.logs():
                outcome = function(console, **arguments)
            if as_json:
                import json

                click.echo(json.dumps({**outcome.document, "errors": outcome.errors}, indent=1, allow_nan=False))
            elif outcome.text:
                click.echo(outcome.text)
            return outcome.exit_code

        wrapped: click.Command = click.command(**settings)(run)
        return wrapped

    return decorate


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Returns a text table; the first `left` columns are aligned to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
