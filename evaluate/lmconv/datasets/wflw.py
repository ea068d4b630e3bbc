"""WFLW in the layout of its authors: `WFLW_annotations` and `WFLW_images`; 98 points, six attributes, 10 000 faces.

A line of `list_98pt_rect_attr_{train,test}.txt` has 98 pairs x y, a box, six attribute flags and the path of the
picture below `WFLW_images`. A test face with a flag belongs to the subset of this attribute, as in `list_98pt_test`.
The boxes are ignored, because the networks take crops around the landmarks. Coordinates stay as stored.

Wu et al., "Look at Boundary: A Boundary-Aware Face Alignment Algorithm", CVPR 2018,
https://wywu.github.io/projects/LAB/WFLW.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmconv.data import Dataset, Face, Listing
from lmconv.errors import InputError
from lmconv.faces.annotations import build_listing, check_split, finite_numbers, line_error, numbered_lines
from lmconv.faces.layouts import DEPTH, walk_folders

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
    """Returns the folder with the annotation lists: the named folder, or a folder up to two levels below."""
    if not folder.is_dir():
        return None
    return next((root for root in walk_folders(folder.absolute(), DEPTH) if (root / LISTS).is_dir()), None)


def _faces(folder: Path, split: str) -> Listing:
    check_split(split)
    root = _root(folder)
    if root is None:
        raise InputError(f"{folder} has no faces", hint=f"expected {LISTS} and {PICTURES} in the folder")
    splits = ("test", "train") if split == "all" else (split,)
    paths = [(part, root / LISTS / f"list_98pt_rect_attr_{part}.txt") for part in splits]
    return build_listing(folder, (face for part, path in paths for face in _read(path, part, root)), totals=TOTALS)


def _read(path: Path, split: str, root: Path) -> Iterator[Face]:
    for number, line in numbered_lines(path):
        fields = line.split(maxsplit=NUMBERS)
        if len(fields) != NUMBERS + 1:
            message = f"{len(fields)} fields, expected {NUMBERS} numbers and the name of a picture"
            raise line_error(path, number, message)
        values = finite_numbers(path, number, fields[:NUMBERS])
        flags = values[-len(ATTRIBUTES) :]
        if not set(flags.tolist()) <= {0.0, 1.0}:
            raise line_error(path, number, f"the six attributes are {flags.tolist()}, expected 0 or 1 for each")
        attributes = tuple(name for name, flag in zip(ATTRIBUTES, flags, strict=True) if flag)
        yield Face(
            image=root / PICTURES / fields[-1],
            annotation=path,
            points=values[: 2 * LANDMARKS].reshape(LANDMARKS, 2),
            subsets=("full", *attributes, "wflw/test") if split == "test" else ("wflw/train",),
            key=fields[-1],
            line=number,
        )


plugin = Dataset(
    name="wflw",
    summary="WFLW: WFLW_annotations and WFLW_images",
    matches=lambda folder: _root(folder) is not None,
    faces=_faces,
)
