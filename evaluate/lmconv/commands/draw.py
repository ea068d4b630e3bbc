"""`lmconv draw`: faces to try everything with, where there are none."""

from __future__ import annotations

from pathlib import Path

import click

from lmconv.console import Console, Outcome, command
from lmconv.errors import UsageError

HELP = """Draws faces with their landmarks into OUT/drawn, laid out as 300-W is.

They are test data that every machine can make: `verify --data OUT`, `export --calibration OUT` and the others take the
folder. Test faces are drawn from wider ranges than training faces. A figure measured on them says nothing about
photographs. The same options give the same files.

\b
Example:
  lmconv draw faces
  lmconv export drawn68 --to openvino --precision int8 --calibration faces
  lmconv verify build/drawn68/* --data faces
"""
MOST = 99_999


@command(name="draw", help=HELP, short_help="Draw faces with landmarks, to try everything with.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--faces", type=click.IntRange(0, MOST), default=100, show_default=True, help="Test faces.")
@click.option("--train", type=click.IntRange(0, MOST), default=300, show_default=True, help="Training faces.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another one draws other faces.")
@click.option(
    "--landmarks", type=click.Choice(["68", "98"]), default="68", show_default=True, help="Points: 68 iBUG, 98 WFLW."
)
@click.option("--force", is_flag=True, help="Replace other drawn faces that are there.")
def plugin(console: Console, *, out: Path, faces: int, train: int, seed: int, landmarks: str, force: bool) -> Outcome:
    if not faces + train:
        raise UsageError("no faces to draw", hint="give --faces or --train")
    from lmconv.drawing.folder import write

    counts = {"testset": faces, "trainset": train}
    with console.progress(faces + train, "drawing") as step:
        digest = write(out, counts, seed=seed, landmarks=int(landmarks), force=force, step=step)
    folder = out / "drawn"
    document = {"folder": str(folder), **counts, "landmarks": int(landmarks), "seed": seed, "sha256": digest}
    return Outcome(document=document, text=f"{folder}: {faces} test faces, {train} training faces, {landmarks} points")
