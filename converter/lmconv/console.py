"""What every command shares: its common options, where its output goes, how several attempts end."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lmconv.errors import Bug, LmconvError, interrupted, worst

if TYPE_CHECKING:
    from lmconv.types import Json

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """How much is said. Notes, progress and errors go to standard error; only the result goes to standard output."""

    quiet: bool = False
    verbose: bool = False

    def note(self, text: str) -> None:
        """Says something in passing."""
        if not self.quiet:
            click.echo(text, err=True)

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Shows what a runtime logs (TensorRT says much), where `verbose`."""
        if not self.verbose:
            yield
            return
        import logging

        ours, handler = logging.getLogger("lmconv"), logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        before = ours.level
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        try:
            yield
        finally:
            ours.setLevel(before)
            ours.removeHandler(handler)

    @contextmanager
    def progress(
        self, steps: int | None, label: str, beside: Callable[[], str] | None = None
    ) -> Iterator[Callable[..., None]]:
        """Shows a progress bar, on a terminal; gives what to call after each step, or after so many.

        `steps` is None where nobody knows how many there will be; `beside` gives what else stands there.
        """
        hidden = self.quiet or not sys.stderr.isatty()
        show = None if beside is None else lambda _: beside()
        unknown = itertools.count() if steps is None else None
        with click.progressbar(
            unknown, length=steps, label=label, file=sys.stderr, hidden=hidden, item_show_func=show
        ) as bar:
            yield lambda done=1: bar.update(done)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a command has to say.

    Attributes:
        document: The `--json` document, without `errors`.
        text: The same for a person.
        failed: Whether a gate failed.
        errors: What went wrong with single items, while the others went on.
    """

    document: Json
    text: str = ""
    failed: bool = False
    errors: list[Json] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The highest-ranking of all that happened."""
        return worst([error["exit_code"] for error in self.errors] + ([1] if self.failed else []))


def attempt(console: Console, action: Callable[[], T], errors: list[Json], **label: Any) -> T | None:
    """Runs one of several actions; a failure is noted in `errors` under its label, and the others go on."""
    try:
        return action()
    except LmconvError as error:
        known = error
        if console.verbose and error.__cause__:
            import traceback

            traceback.print_exception(error.__cause__)
    except Exception as error:  # ours, reported as such; the other items must not suffer
        if interrupted(error):
            raise KeyboardInterrupt from error
        if console.verbose:
            import traceback

            traceback.print_exc()
        known = Bug(f"{type(error).__name__}: {error}".strip(), hint=REPORT)
    errors.append(known.to_json() | {key: str(value) for key, value in label.items()})
    unsaid = " ".join(str(value) for value in label.values() if str(value) not in known.message)
    click.echo(one_line(f"error: {unsaid}{': ' if unsaid else ''}{known}"), err=True)
    return None


def one_line(text: str) -> str:
    """A message without what would end its line or command a terminal: some of it may be from a file of another's."""
    line = " ".join(part.strip() for part in text.splitlines())
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


class Finite(click.FloatRange):
    """Takes numbers that are neither infinite nor NaN, within a range if one is given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads one, or fails as click does."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


REPORT = "this is a bug of lmconv: please report it with the output of the same command and -v"


def command(**settings: Any) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Makes a click command of a function that takes a `Console` and gives an `Outcome`."""

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document, everything else on stderr.")
        @click.option("--quiet", is_flag=True, help="Say nothing but the result.")
        @click.option(
            "-v", "--verbose", is_flag=True, help="Say more; show runtimes' logs, the traceback behind an error."
        )
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

        made: click.Command = click.command(**settings)(run)
        return made

    return decorate


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns as text, the first `left` flush left, the others flush right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
