"""WFLW as its authors distribute it: `WFLW_annotations` and `WFLW_images`; 98 points, six attributes, 10 000 faces.

A line of `list_98pt_rect_attr_{train,test}.txt` has 98 pairs x y, a box, six flags and the picture's name below
`WFLW_images`. A flagged test face counts in the subset of that flag, as in `list_98pt_test`. Boxes are not used: the
networks' crops are around the points. Coordinates stay as stored.

Wu et al., "Look at Boundary: A Boundary-Aware Face Alignment Algorithm", CVPR 2018,
https://wywu.github.io/projects/LAB/WFLW.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces.annotations import broken, check_split, lines, listing, numbers
from lmconv.faces.layouts import DEPTH, below

LISTS, PICTURES = Path("WFLW_annotations", "list_98pt_rect_attr_train_test"), "WFLW_images"
LANDMARKS = 98
ATTRIBUTES = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
TOTALS = {
    "full": 2500,
    "largepose": 326,
    "expression": 314,
    "illumination": 698,
    "makeup": 206,
    "occlusion": 736,
    "blur": 773,
    "wflw/test": 2500,
    "wflw/train": 7500,
}
NUMBERS = 2 * LANDMARKS + 4 + len(ATTRIBUTES)


def _root(folder: Path) -> Path | None:
    """The folder of both parts: the one given, or up to two levels below it."""
    if not folder.is_dir():
        return None
    return next((root for root in below(folder.absolute(), DEPTH) if (root / LISTS).is_dir()), None)


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    root = _root(folder)
    if root is None:
        raise InputError(f"{folder} has no faces", hint=f"expected {LISTS} in it, and {PICTURES}")
    splits = ("test", "train") if split == "all" else (split,)
    paths = [(part, root / LISTS / f"list_98pt_rect_attr_{part}.txt") for part in splits]
    return listing(folder, (face for part, path in paths for face in _read(path, part, root)), totals=TOTALS)


def _read(path: Path, split: str, root: Path) -> Iterator[Face]:
    for number, line in lines(path):
        fields = line.split(maxsplit=NUMBERS)
        if len(fields) != NUMBERS + 1:
            what = f"{len(fields)} fields where {NUMBERS} numbers and the name of a picture are needed"
            raise broken(path, number, what)
        values = numbers(path, number, fields[:NUMBERS])
        flags = values[-len(ATTRIBUTES) :]
        if not set(flags.tolist()) <= {0.0, 1.0}:
            raise broken(path, number, f"the six attributes are {flags.tolist()}, where each is 0 or 1")
        marked = tuple(name for name, flag in zip(ATTRIBUTES, flags, strict=True) if flag)
        yield Face(
            image=root / PICTURES / fields[-1],
            annotation=path,
            points=values[: 2 * LANDMARKS].reshape(LANDMARKS, 2),
            subsets=("full", *marked, "wflw/test") if split == "test" else ("wflw/train",),
            key=fields[-1],
            line=number,
        )


plugin = Dataset(
    name="wflw",
    summary="WFLW: WFLW_annotations and WFLW_images",
    matches=lambda folder: _root(folder) is not None,
    faces=_faces,
)
