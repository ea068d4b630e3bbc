"""The networks of a request, checked before any work."""

from __future__ import annotations

from pathlib import Path

from lmconv.errors import UsageError
from lmconv.plugins import BACKBONES
from lmconv.sources import checkpoints
from lmconv.sources import resolve as source
from lmconv.types import Json


def all_networks(models: tuple[str, ...], options: Json) -> tuple[tuple[str, ...], list[Json]]:
    """Returns the networks for `--all`: every network with trained weights, or also with random weights if allowed.

    Args:
        models: Networks that the user named; must be empty.
        options: Arguments of `lmconv.sources.resolve.resolve`.

    Returns:
        The names of the networks, and one row for each network without weights.

    Raises:
        UsageError: The user named a network, or gave `--name`.
    """
    if models or options["name"]:
        raise UsageError("--all converts every network under its own name", hint="omit --all, or omit MODEL and --name")
    names = BACKBONES.names()
    available = [model for model in names if checkpoints.find(model, options["weights"])]
    buildable = [m for m in names if m not in available and not checkpoints.is_published_as_onnx(m)]
    if options["seed"] is not None:
        available, buildable = sorted([*available, *buildable]), []
    reason = "no trained weights here"
    reasons = dict.fromkeys(buildable, f"{reason} (--random-weights allows seeded random weights)")
    missing = [model for model in names if model not in available]
    return tuple(available), [{"model": model, "reason": reasons.get(model, reason)} for model in missing]


def check_networks(models: tuple[str, ...], options: Json) -> None:
    """Refuses networks that cannot be resolved or would share a folder.

    Raises:
        UsageError: No network is named, an option does not fit a network, or two networks have one name.
    """
    if not models:
        raise UsageError("there is nothing to convert", hint="name a network of `lmconv models`, or use --all")
    for model in models:
        source.check_options(model, **options)
    names = [source.name_of(model, options["name"]) for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"two models have the name {name}, and would share a folder", hint="convert one model at a time"
            )
    weights: Path | None = options["weights"]
    if len(models) > 1 and weights and weights.is_file():
        raise UsageError(
            f"{weights} cannot be the checkpoint of {len(models)} models", hint="give a folder of checkpoints"
        )
