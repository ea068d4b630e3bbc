"""300-VW in the layout of iBUG: folders, for example `114`, with `vid.avi` and `annot/000001.pts`, 68 points per frame.

The number of a `.pts` file is the number of its frame, counted from 1. 64 videos are test videos, in three categories;
the other videos are for training. Coordinates stay as stored: the first pixel is (1, 1).

Shen et al., "The First Facial Landmark Tracking in-the-Wild Challenge: Benchmark and Results", ICCVW 2015. Two sources
list the same videos for each category: `matlab_runners` of https://github.com/TadasBaltrusaitis/OpenFace and
`cache_data/generate_300VW.py` of https://github.com/facebookresearch/supervision-by-registration.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import build_listing, check_split
from lmconv.faces.layouts import DEPTH, walk_folders

CATEGORIES = {
    "category 1": "114 124 125 126 150 158 401 402 505 506 507 508 509 510 511 514 515 518 519 520 521 522 524 525 537 "
    "538 540 541 546 547 548",
    "category 2": "203 208 211 212 213 214 218 224 403 404 405 406 407 408 409 412 550 551 553",
    "category 3": "410 411 516 517 526 528 529 530 531 533 557 558 559 562",
}
"""Test videos of each category: 1 is well lit, 2 is in an office, 3 is under any conditions."""
TEST = {video: name for name, videos in CATEGORIES.items() for video in videos.split()}
VIDEO, POINTS = "vid.avi", "annot"
LANDMARKS = 68


def _sequences(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path for path in walk_folders(folder.absolute(), DEPTH) if (path / VIDEO).is_file() and (path / POINTS).is_dir()
    ]


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    sequences = _sequences(folder)
    chosen = [path for path in sequences if split in ("all", "test" if path.name in TEST else "train")]
    if sequences and not chosen:
        names = ", ".join(path.name for path in sequences[:5])
        message = f"{folder} has no {split} videos of 300-VW, but others, for example {names}"
        raise InputError(message, hint="use another --split")
    return build_listing(folder, (face for sequence in chosen for face in _frames(sequence)))


def _frames(sequence: Path) -> Iterator[Face]:
    category = (TEST[sequence.name],) if sequence.name in TEST else ()
    for path in pts.entries(sequence / POINTS):
        if path.suffix.lower() != ".pts":
            continue
        if not (path.stem.isdecimal() and path.stem.isascii() and int(path.stem)):
            hint = "rename the file to the number of its frame, for example 000001.pts"
            raise InputError(f"{path}: the file name is not a frame number", hint=hint)
        yield Face(
            image=sequence / VIDEO,
            annotation=path,
            points=pts.read_pts(path, LANDMARKS),
            subsets=(*category, sequence.name),
            key=f"{VIDEO}#{int(path.stem):06d}",
            frame=int(path.stem) - 1,
        )


plugin = Dataset(
    name="w300vw",
    summary="300-VW: folders with vid.avi and annot/000001.pts",
    matches=lambda folder: bool(_sequences(folder)),
    faces=_faces,
)
