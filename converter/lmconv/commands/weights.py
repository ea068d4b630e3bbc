"""`lmconv weights list|add|verify`: published checkpoints, and checkpoints on this machine."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmconv.console import Console, Outcome, attempt, command, table
from lmconv.errors import InputError
from lmconv.plugins import BACKBONES, unknown

if TYPE_CHECKING:
    from lmconv.sources import checkpoints
    from lmconv.types import Json

HELP = """Lists, adds and verifies checkpoints.

lmconv searches for a checkpoint by its published file name in the folders of LMCONV_WEIGHTS (two levels deep), in
weights/, in the user cache, and in the checkpoints that ship with lmconv. `add` copies a checkpoint to the user cache.

\b
Examples:
  lmconv weights list
  lmconv weights add downloads/pfld_model_best.pth.tar
  lmconv weights verify
"""


@click.group(name="weights", help=HELP, short_help="List, add and verify checkpoints.")
def plugin() -> None:
    """Group of the commands below; click prints `HELP`."""


@command(
    name="list",
    help="Lists the published checkpoints with source, licence, published ION and path on this machine.",
    short_help="List the published checkpoints.",
)
def list_(console: Console) -> Outcome:
    from lmconv.sources import checkpoints

    rows = [_listed(name, known) for name, known in checkpoints.known().items()]
    cells = [
        [row["model"], row["file"], _ion(row["ion"]), row["path"] or "not found", row["source"], row["licence"]]
        for row in rows
    ]
    header = ["model", "file", "ION common/challenge/full", "path", "source", "licence"]
    return Outcome(document={"weights": rows}, text=table(header, cells, left=6))


def _listed(name: str, known: checkpoints.Known) -> Json:
    from lmconv.sources import checkpoints

    path = checkpoints.find(name)
    return {
        "model": name,
        "file": known.file,
        "sha256": list(known.sha256),
        "ion": dict(known.ion),
        "ion_note": known.ion_note,
        "source": known.source,
        "licence": known.licence,
        "path": str(path) if path else None,
    }


def _ion(ion: dict[str, float]) -> str:
    return " / ".join(f"{ion[subset]:.2f}" for subset in ("common", "challenge", "full") if subset in ion) or "-"


@command(
    name="add",
    help="Checks a checkpoint and copies the file to the user cache, under the file name that lmconv searches for.",
    short_help="Copy a checkpoint to the user cache.",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", help="Network of the checkpoint.  [default: the network with the same tensors]")
def add(console: Console, *, file: Path, model: str | None) -> Outcome:
    import shutil

    from lmconv.sources import checkpoints
    from lmconv.store.files import replacing, writing

    row = _verified(file, model)
    name = file.name if file.name in checkpoints.file_names(row["model"]) else _plain_name(row["model"], file)
    target = checkpoints.cache_folder() / name
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as copy:
            shutil.copyfile(file, copy)
    row["path"] = str(target)
    return Outcome(document={"weights": [row]}, text=f"{row['model']}: {target} ({row['known']})")


def _plain_name(model: str, file: Path) -> str:
    return f"{model}{file.suffix}" if file.suffix in (".npz", ".onnx", ".safetensors") else f"{model}.pth"


@command(
    name="verify",
    help="Loads checkpoints and compares their sha256 with the published list. Without FILES, checks every checkpoint "
    "that lmconv finds.",
    short_help="Compare checkpoints with the published list.",
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def verify(console: Console, *, files: tuple[Path, ...]) -> Outcome:
    from lmconv.sources import checkpoints

    outcome = Outcome(document={"weights": []})
    candidates: list[tuple[Path, str | None]] = [(file, None) for file in files]
    if not files:
        paths = ((checkpoints.find(name), name) for name in BACKBONES.names())
        candidates = [(path, name) for path, name in paths if path]
    for file, model in candidates:
        row = attempt(console, functools.partial(_verified, file, model), outcome.errors, path=file)
        outcome.document["weights"] += [row] if row else []
    cells = [[row["path"], row["model"], row["known"]] for row in outcome.document["weights"]]
    outcome.text = table(["checkpoint", "model", "sha256"], cells, left=3) if cells else ""
    return outcome


def _verified(file: Path, model: str | None) -> Json:
    """Loads a checkpoint into its network, and returns the row of `lmconv weights --json`.

    Args:
        file: File of the checkpoint.
        model: Name of the network; None to find the network by its tensors, or by name or sha256 for an ONNX file.

    Raises:
        InputError: The checkpoint does not fit the network, or fits no network.
        UsageError: The network is unknown.
    """
    from lmconv.sources import checkpoints
    from lmconv.sources.checkpoint_file import read
    from lmconv.sources.pytorch import identify
    from lmconv.sources.resolve import is_onnx, open_source, resolve
    from lmconv.sources.states import Contents
    from lmconv.store.files import sha256

    landmarks = None
    if model is None:
        matches = _published(file) if is_onnx(file.name) else identify(Contents.of(read(file)))
        if not matches:
            hint = "name a network with --model to see the differences"
            raise InputError(f"{file} fits no network of `lmconv models`", hint=hint)
        model, landmarks = matches[0]
    elif model not in BACKBONES.names():
        raise unknown("model", model, BACKBONES.names())
    with open_source(resolve(model, weights=file, landmarks=landmarks)):
        pass
    digest, known = sha256(file), checkpoints.known().get(model)
    meaning = known.sha256.get(digest) if known else None
    return {"path": str(file), "model": model, "sha256": digest, "known": meaning or "not a known file, but it fits"}


def _published(file: Path) -> list[tuple[str, None]]:
    """Returns the networks that were published as a file with this name or this sha256."""
    from lmconv.sources import checkpoints
    from lmconv.store.files import sha256

    published = checkpoints.known().items()
    return [(name, None) for name, known in published if file.name == known.file or sha256(file) in known.sha256]


for _command in (list_, add, verify):
    plugin.add_command(_command)
