"""Batch sizes and the options for building engines, parsed from `lmconv export`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from lmconv.errors import UsageError
from lmconv.plugins import TARGETS
from lmconv.types import Artifact, Json

if TYPE_CHECKING:
    from lmconv.building.request import Choices
    from lmconv.exporting.request import ExportRequest

OPTIONS = {
    "profile": "--batch MIN:BEST:MAX",
    "workspace": "--workspace",
    "builder_level": "--builder-level",
    "cache": "--timing-cache",
    "locked": "--locked",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
}
"""Fields of `BuildOptions`, each with the command-line option that sets the field."""


def parse_batch(text: str) -> tuple[int | None, tuple[int, int, int] | None]:
    """Parses `--batch`.

    Returns:
        The fixed batch size, and the profile of an engine (smallest, best and largest batch size). Each is None if not
        given.

    Raises:
        UsageError: The text is neither a size, nor a profile, nor `dynamic`.
    """
    if text == "dynamic":
        return None, None
    if re.fullmatch("[1-9][0-9]{0,3}", text):
        return int(text), None
    if re.fullmatch("[1-9][0-9]{0,3}(:[1-9][0-9]{0,3}){2}", text):
        smallest, best, largest = map(int, text.split(":"))
        if smallest <= best <= largest:
            return None, (smallest, best, largest)
        raise UsageError(f"--batch {text} is not in ascending order", hint="give MIN:BEST:MAX, such as 1:8:64")
    hint = "give --batch 1, or --batch 1:8:64 for an engine"
    message = f"--batch {text!r} is neither a number below 10000, nor MIN:BEST:MAX, nor dynamic"
    raise UsageError(message, hint=hint)


def _bytes(text: str | None) -> int | None:
    """Parses `--workspace`, a number of MiB or GiB; returns bytes."""
    if text is None:
        return None
    if match := re.fullmatch("([1-9][0-9]{0,5})(MiB|GiB)", text):
        return int(match[1]) << {"MiB": 20, "GiB": 30}[match[2]]
    raise UsageError(f"--workspace {text!r} is not a size", hint="give a size such as 512MiB or 2GiB")


def engine_options(request: ExportRequest, profile: tuple[int, int, int] | None) -> Json:
    """Returns the engine options that the user typed, as fields of `BuildOptions`.

    Raises:
        UsageError: An option for engines is given, and no target builds engines.
    """
    options = {
        "profile": profile,
        "workspace": _bytes(request.workspace),
        "builder_level": request.builder_level,
        "cache": request.timing_cache,
        "locked": request.locked or None,
        "version_compatible": request.version_compatible or None,
        "hardware_compatible": request.hardware_compatible or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if given and not any(TARGETS.load(name).engines for name in request.targets):
        option = OPTIONS[next(iter(given))]
        hint = f"add --to tensorrt, or omit {option}"
        raise UsageError(f"{option} is for engines, and no requested target builds engines", hint=hint)
    return given


def with_engine(choices: Choices, given: Json, recipes: tuple[Artifact, ...]) -> Choices:
    """Adds the engine options to the choices; a recipe decides all options except the timing cache and its lock.

    Raises:
        UsageError: An option contradicts the recipe.
    """
    contradicting = [OPTIONS[name] for name in given if name not in ("cache", "locked")]
    if recipes and contradicting:
        message = f"--recipe and {contradicting[0]} both determine how the engine is built"
        raise UsageError(message, hint="omit one of the two")
    return replace(choices, engine=replace(choices.engine, **given))
