"""Cuts faces out of their pictures the way the networks were trained to see them, and maps points back.

A square is `(left, top, side)` in whole pixels of the picture; it may reach beyond the border, where a crop is black.
Points go back by the same, *unclipped* square. (The reference scripts of cunjian/pytorch_face_landmark clip it first,
which shifts the points of every face at a border.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv import plugins
from lmconv.errors import InputError, OtherPoints, UsageError
from lmconv.preprocess import network_input
from lmconv.types import Crop, Float32, Float64, ModelSpec, Uint8

if TYPE_CHECKING:
    from lmconv.data import Dataset, Face, Listing

Square: TypeAlias = tuple[int, int, int]

LARGEST = 4
"""How many times the picture's longer side a square may be: a larger one is a broken annotation, and needs memory
without end."""

# How far a calibration crop may differ from the plain one.
SCALE = (0.9, 1.15)
SHIFT = 0.05
ROTATION = 15.0
BRIGHTNESS = (0.8, 1.2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropSet:
    """The faces of a folder, cut out and ready for a network.

    Attributes:
        images: (n, h, w, 3) uint8, BGR.
        squares: (n, 3) int64: left, top, side of each crop, pixels of its picture.
        truth: (n, L, 2) float64, pixels of the picture, x before y, values as the annotation has them.
        names: What each face is called: its source folder and picture.
        subsets: The subsets each face counts in, its source folder last.
        totals: How many faces each published subset has in full.
        problems: What was left out and why, one line each.
    """

    images: Uint8
    squares: NDArray[np.int64]
    truth: Float64
    names: tuple[str, ...]
    subsets: tuple[tuple[str, ...], ...]
    totals: Mapping[str, int]
    problems: tuple[str, ...]


def square(points: Float64, crop: Crop) -> Square:
    """The square cut around a face.

    Args:
        points: (L, 2) float64, pixels of the picture, x before y.
        crop: Which box, which of its sides, and how much larger.

    Returns:
        (left, top, side), whole pixels.
    """
    if crop.box != "landmarks":
        raise UsageError(f"crops around a {crop.box} box are not supported yet", hint='use a spec with box "landmarks"')
    x1, y1 = (math.floor(value) for value in points.min(axis=0))
    x2, y2 = (math.ceil(value) for value in points.max(axis=0))
    width, height = x2 - x1 + 1, y2 - y1 + 1
    longer = crop.side == "max"
    side = int((max(width, height) if longer else min(width, height)) * crop.scale)
    return x1 + width // 2 - side // 2, y1 + height // 2 - side // 2, side


def cut(image: Uint8, square: Square, size: tuple[int, int]) -> Uint8:
    """Cuts a square out of a picture and resizes it bilinearly.

    Args:
        image: (H, W, 3) uint8, BGR.
        square: (left, top, side), pixels; black where it reaches beyond the picture.
        size: (h, w) of the result, pixels.

    Returns:
        (h, w, 3) uint8, BGR.
    """
    import cv2

    left, top, side = square
    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    inside = image[y1:y2, x1:x2] if x1 < x2 and y1 < y2 else image[:0, :0]
    if inside.shape[:2] != (side, side):
        padded = np.zeros((side, side, 3), np.uint8)
        if inside.size:
            padded[y1 - top : y2 - top, x1 - left : x2 - left] = inside
        inside = padded
    return _uint8(cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR))


def to_picture(points: Float32 | Float64, squares: NDArray[np.int64]) -> Float64:
    """Maps a network's points back to the pictures.

    Args:
        points: (n, L, 2) float, fractions of the crop, x before y.
        squares: (n, 3) int64: left, top, side, pixels.

    Returns:
        (n, L, 2) float64, pixels of the picture.
    """
    return points.astype(np.float64) * squares[:, None, 2:] + squares[:, None, :2]


def find_dataset(folder: Path) -> Dataset:
    """The dataset plug-in whose layout a folder holds.

    Raises:
        InputError: There is no such folder, or no plug-in knows its layout, or several do: figures of one data set are
            not to be mixed with those of another.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}", hint="name a folder with annotated faces")
    known: dict[str, Dataset] = plugins.load_all("datasets")
    for test in ("matches", "matches_bare"):
        fitting = [dataset for dataset in known.values() if getattr(dataset, test)(folder)]
        if len(fitting) > 1:
            names = " and ".join(dataset.name for dataset in fitting)
            raise InputError(f"{folder} holds faces of {names}", hint="name a folder that holds one of them")
        if fitting:
            return fitting[0]
    summaries = "; ".join(dataset.summary for dataset in known.values())
    raise InputError(f"{folder} has no annotated faces in a known layout", hint=f"known: {summaries}")


def check(folder: Path, split: str, spec: ModelSpec) -> None:
    """Reads the annotations of a folder; `OtherPoints` where they are not of this network."""
    _listing(folder, spec, split, None)


def load(folder: Path, spec: ModelSpec, split: str = "test", *, dataset: Dataset | None = None) -> CropSet:
    """Cuts all faces of a folder out for a network. One picture is in memory at a time, and the crops.

    Args:
        folder: Holds annotated faces.
        spec: Says the size of the crops and how to cut them.
        split: `"test"`, `"train"` or `"all"`.
        dataset: The layout; by default the one that the folder matches.

    Raises:
        InputError: No faces, or a broken one; names the file.
    """
    listing = _listing(folder, spec, split, dataset)
    n = len(listing.faces)
    images = np.empty((n, *spec.input_size, 3), np.uint8)
    squares = np.empty((n, 3), np.int64)
    for index, (face, picture) in enumerate(_pictures(listing.faces)):
        squares[index] = around = _square_of(face, picture, spec.crop)
        images[index] = cut(picture, around, spec.input_size)
    return CropSet(
        images=images,
        squares=squares,
        truth=np.stack([face.points for face in listing.faces]),
        names=tuple(face.name for face in listing.faces),
        subsets=tuple(face.subsets for face in listing.faces),
        totals=listing.totals,
        problems=listing.problems,
    )


def calibration(
    folder: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = 300,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> Float32:
    """Network inputs to calibrate int8 on: the same faces, count and seed give the same bytes.

    The faces come in an order drawn from `seed`, so that fewer than all are a fair sample of every part. When there are
    fewer faces than `count` they come again, from the second time on scaled, shifted, rotated and lit a little
    differently.

    Returns:
        (count, 3, h, w) float32, as `network_input` makes it.
    """
    if count < 1:
        raise UsageError(f"{count} calibration crops", hint="ask for at least one")
    faces = _listing(folder, spec, split, dataset).faces
    # Generator.random is the plainest stream there is; shuffle and integers may change between releases of numpy.
    random = np.random.default_rng(seed)
    order = np.resize(np.argsort(random.random(len(faces)), kind="stable"), count)
    draws = random.random((count, 5))
    crops = np.empty((count, *spec.input_size, 3), np.uint8)
    wanted = np.unique(order)
    for index, (face, picture) in zip(wanted, _pictures([faces[index] for index in wanted]), strict=True):
        around = _square_of(face, picture, spec.crop)
        first, *again = np.flatnonzero(order == index)
        crops[first] = cut(picture, around, spec.input_size)
        for place in again:
            crops[place] = _varied(picture, around, spec.input_size, draws[place])
    return network_input(crops, spec.preprocess)


def _varied(image: Uint8, square: Square, size: tuple[int, int], draws: Float64) -> Uint8:
    """A crop that is scaled, shifted, rotated and lit by five draws from [0, 1)."""
    import cv2

    left, top, side = square
    scale = SCALE[0] + draws[0] * (SCALE[1] - SCALE[0])
    shift = (2 * draws[1:3] - 1) * SHIFT * side
    angle = math.radians((2 * draws[3] - 1) * ROTATION)
    light = BRIGHTNESS[0] + draws[4] * (BRIGHTNESS[1] - BRIGHTNESS[0])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # From pixels of the crop to pixels of the picture; a pixel's centre is half a pixel from its edge, as in resize.
    linear = turn * (scale * side / np.array(size[::-1]))
    offset = np.array([left, top]) + side / 2 + shift - 0.5 - linear @ (np.array(size[::-1]) / 2 - 0.5)
    matrix = np.column_stack([linear, offset])
    crop = cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return _uint8(np.clip(np.rint(crop * light), 0, 255))


def _listing(folder: Path, spec: ModelSpec, split: str, dataset: Dataset | None) -> Listing:
    listing = (dataset or find_dataset(folder)).faces(folder, split)
    others = sorted({len(face.points) for face in listing.faces} - {spec.landmarks})
    if others:
        points = f"{spec.name} finds {spec.landmarks} points, the faces in {folder} have {others[0]}"
        raise OtherPoints(points, hint=f"name a folder of faces with {spec.landmarks} points")
    return listing


def _pictures(faces: Sequence[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Each face with its decoded picture; faces of one picture follow each other, so one is enough to keep."""
    last, picture = None, np.empty((0, 0, 3), np.uint8)
    for face in faces:
        if face.image != last:
            last, picture = face.image, _decode(face.image)
        yield face, picture


def _decode(path: Path) -> Uint8:
    """(H, W, 3) uint8, BGR, as stored: annotations do not know of the EXIF rotation."""
    import cv2

    hint = "restore the file, or remove it together with its annotation"
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=hint) from error
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded: {error.err}", hint=hint) from error
    if picture is None:
        raise InputError(f"{path}: not a picture that OpenCV can decode", hint=hint)
    return _uint8(picture)


def _square_of(face: Face, picture: Uint8, crop: Crop) -> Square:
    """The square of a face that can be cut out of its picture."""
    height, width = picture.shape[:2]
    hint = f"is this the annotation of {face.image.name}, {width} x {height} pixels?"
    if not np.ptp(face.points, axis=0).all():
        raise InputError(f"{face.annotation}: the points span no area", hint=hint)
    # As stored, coordinates may begin at 0 or at 1: both ends belong to the picture.
    if not ((face.points >= 0) & (face.points <= (width, height))).all(axis=1).any():
        raise InputError(f"{face.annotation}: every point is outside the picture", hint=hint)
    left, top, side = square(face.points, crop)
    if not 1 <= side <= LARGEST * max(width, height):
        raise InputError(f"{face.annotation}: the points need a crop of {side} pixels", hint=hint)
    return left, top, side


def _uint8(array: NDArray[Any]) -> Uint8:
    # OpenCV's stubs promise no dtype.
    return np.asarray(array, np.uint8)
