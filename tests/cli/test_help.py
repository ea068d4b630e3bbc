"""Help of every command: short imports, an example, the common options and the exit codes."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from tests.helpers import Cli, python

from lmconv.plugins import COMMANDS

HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "openvino", "cv2", "numpy", "multiprocessing", "pickle", "tomllib")
SHOW = """
import contextlib, io, json, sys
from lmconv.cli import run
def show(command):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = run([*command.split(), "--help"])
    return [code, out.getvalue().split("\\n")[0], sorted(sys.modules)]
print(json.dumps({command: show(command) for command in sys.argv[1:]}))
"""
EVERY = [*COMMANDS.names(), "weights list", "weights add", "weights verify", ""]


def test_help_of_no_command_imports_anything_heavy() -> None:
    """One interpreter prints every help. The first command after which a library is imported is the one at fault."""
    ran = python(SHOW, *EVERY)
    assert ran.code == 0, ran.err
    shown = ran.document
    assert list(shown) == EVERY
    for command, (code, usage, modules) in shown.items():
        assert code == 0
        assert usage.startswith(f"Usage: lmconv {command}".rstrip())
        assert not set(modules) & set(HEAVY), command


@pytest.mark.parametrize("command", COMMANDS.names())
def test_help_of_every_command_has_an_example(cli: Cli, command: str) -> None:
    ran = cli(command, "--help")
    assert ran.code == 0
    assert "Example" in ran.out
    assert f"\n    lmconv {command}" in ran.out or f"\n  lmconv {command}" in ran.out


@pytest.mark.parametrize("command", COMMANDS.names())
def test_every_command_is_in_the_help_with_one_sentence(cli: Cli, command: str) -> None:
    line = next(line for line in cli("--help").out.splitlines() if line.strip().startswith(f"{command} "))
    assert line.strip().endswith(".")
    assert "..." not in line


@pytest.mark.parametrize("command", [name for name in COMMANDS.names() if name != "weights"])
def test_every_command_takes_the_common_options(cli: Cli, command: str) -> None:
    out = cli(command, "--help").out
    for option in ("--json", "--quiet", "-v, --verbose"):
        assert option in out


@pytest.mark.parametrize("command", ["list", "add", "verify"])
def test_the_commands_on_weights_take_the_common_options(cli: Cli, command: str) -> None:
    out = cli("weights", command, "--help").out
    for option in ("--json", "--quiet", "-v, --verbose"):
        assert option in out


def test_exit_codes_are_in_the_help(cli: Cli) -> None:
    out = " ".join(cli("--help").out.split())
    for part in ("0 done", "1 a gate failed", "2 wrong usage", "70 a bug", "130 interrupted"):
        assert part in out


def test_version_equals_the_version_of_the_package(cli: Cli) -> None:
    assert cli("--version").out == f"lmconv {version('lmconv')}\n"


def test_a_call_without_a_command_prints_the_help_and_is_wrong_usage(cli: Cli) -> None:
    ran = cli()
    assert ran.code == 2
    assert ran.out == ""
    assert "Usage: lmconv" in ran.err
