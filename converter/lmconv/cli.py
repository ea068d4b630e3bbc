"""The command line. Commands are plug-ins and are loaded by name, and `--help` imports no heavy library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lmconv.console import REPORT, one_line
from lmconv.errors import Bug, LmconvError, UsageError, interrupted
from lmconv.plugins import COMMANDS

if TYPE_CHECKING:
    from lmconv.building.effort import Effort


class Commands(click.Group):
    """Group of all command plug-ins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, sorted."""
        return COMMANDS.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads one command.

        Raises:
            UsageError: No command has this name; the hint names the nearest name.
        """
        return COMMANDS.load(cmd_name)


HELP = """Converts face-landmark networks to ONNX, OpenVINO and TensorRT, and verifies that the landmarks stay the same.

\b
Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 a runtime, package or
device is missing; 4 an input is missing or broken, or an output cannot be
written; 70 a bug of lmconv; 130 interrupted.
"""


@click.group(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lmconv", message="lmconv %(version)s")
def cli() -> None:
    """Root command; click prints `HELP`."""


def run(arguments: list[str], effort: Effort | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: The command line without the program name.
        effort: Effort of the measurements of `export` and `tune`; None for the default.

    Returns:
        The exit code.
    """
    try:
        return int(cli.main(args=arguments, prog_name="lmconv", standalone_mode=False, obj=effort) or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(UsageError(error.format_message(), hint="see --help"), arguments)
    except LmconvError as error:
        if error.__cause__ and {"-v", "--verbose"} & set(arguments):
            import traceback

            traceback.print_exception(error.__cause__)
        return _fail(error, arguments)
    except BrokenPipeError:  # the reader of the output has closed the pipe
        sys.stderr.close()
        return 0
    except Exception as error:  # any other exception is a bug of lmconv
        if interrupted(error):
            click.echo("interrupted", err=True)
            return 130
        if {"-v", "--verbose"} & set(arguments):
            import traceback

            traceback.print_exc()
        return _fail(Bug(f"{type(error).__name__}: {error}".strip(), hint=REPORT), arguments)


def _fail(error: LmconvError, arguments: list[str]) -> int:
    click.echo(one_line(f"error: {error}"), err=True)
    if "--json" in arguments:
        import json

        click.echo(json.dumps({"error": error.to_json()}, indent=1))
    return error.exit_code


def main() -> None:
    """Entry point of the program `lmconv`."""
    sys.exit(run(sys.argv[1:]))
