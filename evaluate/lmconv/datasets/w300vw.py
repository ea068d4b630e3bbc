"""300-VW as iBUG distributes it: folders such as `114` with `vid.avi` and `annot/000001.pts`, 68 points a frame.

The number of a `.pts` file is that of its frame, counted from 1. 64 videos are for testing, in three categories; the
others are for training. Coordinates stay as stored: the first pixel is (1, 1).

Shen et al., "The First Facial Landmark Tracking in-the-Wild Challenge: Benchmark and Results", ICCVW 2015. Which video
is in which category is written down alike in `matlab_runners` of https://github.com/TadasBaltrusaitis/OpenFace and
`cache_data/generate_300VW.py` of https://github.com/facebookresearch/supervision-by-registration.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces import pts
from lmconv.faces.annotations import check_split, listing
from lmconv.faces.layouts import DEPTH, below

CATEGORIES = {
    "category 1": "114 124 125 126 150 158 401 402 505 506 507 508 509 510 511 514 515 518 519 520 521 522 524 525 537 "
    "538 540 541 546 547 548",
    "category 2": "203 208 211 212 213 214 218 224 403 404 405 406 407 408 409 412 550 551 553",
    "category 3": "410 411 516 517 526 528 529 530 531 533 557 558 559 562",
}
"""The test videos: well lit, in an office, and under any conditions."""
TEST = {video: name for name, videos in CATEGORIES.items() for video in videos.split()}
VIDEO, POINTS = "vid.avi", "annot"
LANDMARKS = 68


def _sequences(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        place for place in below(folder.absolute(), DEPTH) if (place / VIDEO).is_file() and (place / POINTS).is_dir()
    ]


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    places = _sequences(folder)
    chosen = [place for place in places if split in ("all", "test" if place.name in TEST else "train")]
    if places and not chosen:
        there = ", ".join(place.name for place in places[:5])
        raise InputError(f"{folder} has no {split} videos of 300-VW, only such as {there}", hint="use another --split")
    return listing(folder, (face for place in chosen for face in _frames(place)))


def _frames(place: Path) -> Iterator[Face]:
    category = (TEST[place.name],) if place.name in TEST else ()
    for path in pts.entries(place / POINTS):
        if path.suffix.lower() != ".pts":
            continue
        if not (path.stem.isdecimal() and path.stem.isascii() and int(path.stem)):
            hint = "name it after its frame, such as 000001.pts"
            raise InputError(f"{path}: its name is not the number of a frame", hint=hint)
        yield Face(
            image=place / VIDEO,
            annotation=path,
            points=pts.read_pts(path, LANDMARKS),
            subsets=(*category, place.name),
            key=f"{VIDEO}#{int(path.stem):06d}",
            frame=int(path.stem) - 1,
        )


plugin = Dataset(
    name="w300vw",
    summary="300-VW: folders with vid.avi and annot/000001.pts",
    matches=lambda folder: bool(_sequences(folder)),
    faces=_faces,
)
