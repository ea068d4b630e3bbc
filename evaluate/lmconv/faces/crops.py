"""Annotated faces, cut out of their pictures the way the networks were trained to see them."""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv import plugins
from lmconv.errors import InputError, OtherPoints, UsageError
from lmconv.faces import footage
from lmconv.inference.scenes import Scene
from lmconv.networks.preprocess import network_input
from lmconv.networks.squares import Square, around, as_uint8, cut
from lmconv.store.files import sha256
from lmconv.types import Crop, Float32, Float64, ModelSpec, Uint8

if TYPE_CHECKING:
    from lmconv.data import Dataset, Face, Listing

Boxes: TypeAlias = "Callable[[Face, Uint8], Float32 | None]"
"""Gives the box of an annotated face in its picture: (4,) float32, x1, y1, x2, y2, pixels; None where it has none."""

LARGEST = 4
"""How many times the picture's longer side a square may be: a larger one is a broken annotation, and needs memory
without end."""

CALIBRATION = 300
"""How many crops int8 is calibrated on."""
JUDGED = 600
"""On how many faces an export is judged, at most."""
ENOUGH = 100
"""How many faces that calibration has not seen have to be there, for them to be judged on alone."""
DECODERS = 2
"""Threads that decode pictures, and how many pictures they are ahead at most."""

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
        scenes: Reads the pictures again: each face with its picture and its box, in this order; or those at some
            places, such as `scenes([3, 7])`.
        pictures: Reads their files again: the first 16 hex digits of the sha256 of each, sorted, none twice.
        missed: Names of the annotated faces that are not in it, as a detector has no box for them.
        normaliser: What their errors are divided by, by name; None for what is usual with their points.
    """

    images: Uint8
    squares: NDArray[np.int64]
    truth: Float64
    names: tuple[str, ...]
    subsets: tuple[tuple[str, ...], ...]
    totals: Mapping[str, int]
    problems: tuple[str, ...]
    scenes: Callable[..., Iterator[Scene]]
    pictures: Callable[[], tuple[str, ...]]
    missed: tuple[str, ...] = ()
    normaliser: str | None = None


def square(points: Float64, crop: Crop) -> Square:
    """The square cut around a face.

    Args:
        points: (L, 2) float64, pixels of the picture, x before y.
        crop: Which box, which of its sides, and how much larger.

    Returns:
        (left, top, side), whole pixels.
    """
    if crop.box != "landmarks":
        raise UsageError(f"crops around a {crop.box}'s box need one", hint="name it: --boxes detector:rfb320")
    return around((*points.min(axis=0), *points.max(axis=0)), crop)


def find_dataset(folder: Path, name: str | None = None) -> Dataset:
    """The dataset plug-in whose layout a folder holds, or a file with annotations; that of a name, where one is given.

    Raises:
        InputError: There is no such folder, or no plug-in knows its layout, or several do: figures of one data set are
            not to be mixed with those of another.
        UsageError: No plug-in has that name.
    """
    known: dict[str, Dataset] = {name: plugins.load("datasets", name)} if name else plugins.load_all("datasets")
    if not folder.exists():
        raise InputError(f"{folder} does not exist", hint="name a folder with annotated faces")
    if name:
        return known[name]
    fitting = matching(folder)
    if len(fitting) > 1:
        names = " and ".join(dataset.name for dataset in fitting)
        hint = "name a folder that holds one of them, or choose one by --dataset where the command has it"
        raise InputError(f"{folder} holds faces of {names}", hint=hint)
    if fitting:
        return fitting[0]
    if not folder.is_dir():
        hint = "name a folder with annotated faces, or a file of them: CSV, JSON, dlib's XML, a list (docs/datasets.md)"
        raise InputError(f"{folder} is not a folder, nor a file of annotations that is known", hint=hint)
    summaries = "; ".join(dataset.summary for dataset in known.values())
    raise InputError(f"{folder} has no annotated faces in a known layout", hint=f"known: {summaries}")


def matching(folder: Path) -> list[Dataset]:
    """The dataset plug-ins whose layout a folder or file holds; where there is none, those that can read it bare."""
    known: dict[str, Dataset] = plugins.load_all("datasets")
    held = [dataset for dataset in known.values() if dataset.matches(folder)]
    return held or [dataset for dataset in known.values() if dataset.matches_bare(folder)]


def check(folder: Path, split: str, spec: ModelSpec) -> None:
    """Reads the annotations of a folder; `OtherPoints` where they are not of this network."""
    _listing(folder, spec, split, None)


def load(
    folder: Path,
    spec: ModelSpec,
    split: str = "test",
    *,
    dataset: Dataset | None = None,
    most: int | None = None,
    boxes: Boxes | None = None,
) -> CropSet:
    """Cuts all faces of a folder out for a network. A few pictures are in memory at a time, and the crops.

    Args:
        folder: Holds annotated faces.
        spec: Says the size of the crops and how to cut them.
        split: `"test"`, `"train"` or `"all"`.
        dataset: The layout; by default the one that the folder matches.
        most: A sample of so many faces is enough, evenly spread over their names.
        boxes: What says where faces are; by default their points.

    Raises:
        InputError: No faces, or a broken one; names the file.
    """
    listing = _listing(folder, spec, split, dataset)
    if most is not None and most < len(listing.faces):
        places = np.linspace(0, len(listing.faces) - 1, most).round().astype(int)
        listing = replace(listing, faces=tuple(listing.faces[place] for place in places))
    return _cut_out(listing, spec, boxes)


def _cut_out(listing: Listing, spec: ModelSpec, boxes: Boxes | None = None) -> CropSet:
    images = np.empty((len(listing.faces), *spec.input_size, 3), np.uint8)
    squares = np.empty((len(listing.faces), 3), np.int64)
    faces: list[Face] = []
    found, missed = [], []
    for face, picture in _pictures(listing.faces):
        box = boxes(face, picture) if boxes else None
        if boxes and box is None:
            missed.append(face.name)
            continue
        squares[len(faces)] = around = _square_of(face, picture, spec.crop, box)
        images[len(faces)] = cut(picture, around, spec.input_size)
        faces.append(face)
        found.append(_whole(face, box))
    if not faces:
        raise InputError(f"none of {len(missed)} annotated faces is found", hint="name another detector, or none")
    return CropSet(
        images=images[: len(faces)],
        squares=squares[: len(faces)],
        truth=np.stack([face.points for face in faces]),
        names=tuple(face.name for face in faces),
        subsets=tuple(face.subsets for face in faces),
        totals={**collections.Counter(subset for face in listing.faces for subset in face.subsets), **listing.totals},
        problems=listing.problems,
        scenes=functools.partial(_scenes, faces, found),
        pictures=functools.cache(functools.partial(_digests, listing.faces)),
        missed=tuple(missed),
    )


def _digests(faces: Sequence[Face]) -> tuple[str, ...]:
    return tuple(sorted({sha256(path)[:16] for path in {face.image for face in faces}}))


def _scenes(faces: Sequence[Face], boxes: Sequence[Float32], places: Sequence[int] | None = None) -> Iterator[Scene]:
    chosen = range(len(faces)) if places is None else places
    for (_, picture), place in zip(_pictures([faces[place] for place in chosen]), chosen, strict=True):
        yield Scene(frame=picture, boxes=boxes[place][None])


def _whole(face: Face, box: Float32 | None) -> Float32:
    """(4,) float32: its box in whole pixels: a coordinate that float32 rounds up to one would have another square."""
    if box is not None:
        return np.trunc(box)
    return np.concatenate([np.floor(face.points.min(axis=0)), np.ceil(face.points.max(axis=0))]).astype(np.float32)


def calibration(
    folder: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
    without: Collection[str] = (),
) -> Float32:
    """Network inputs to calibrate int8 on: the same faces, count and seed give the same bytes.

    The faces come in an order drawn from `seed`, so that fewer than all are a fair sample of every part. When there are
    fewer faces than `count` they come again, from the second time on scaled, shifted, rotated and lit a little
    differently. Those `without` are left out, by `Face.name`.

    Returns:
        (count, 3, h, w) float32, as `network_input` makes it.
    """
    if count < 1:
        raise UsageError(f"{count} calibration crops", hint="ask for at least one")
    faces = [face for face in _listing(folder, spec, split, dataset).faces if face.name not in without]
    drawn, random = _drawn(len(faces), seed)
    order = np.resize(drawn, count)
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


def calibrated(
    folder: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> tuple[str, ...]:
    """The pictures that `calibration` cuts its crops from: `CropSet.pictures` of them."""
    faces = _listing(folder, spec, split, dataset).faces
    return _digests([faces[index] for index in _drawn(len(faces), seed)[0][:count]])


def judged(
    folder: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> CropSet:
    """Faces to judge on what was calibrated with the same arguments: at most 600, drawn from `seed`.

    They are faces that calibration has not seen, where there are a hundred of them; else any.
    """
    listing = _listing(folder, spec, split, dataset)
    order, _ = _drawn(len(listing.faces), seed)
    chosen = order[count:] if len(order) - count >= ENOUGH else order
    faces = tuple(listing.faces[index] for index in np.sort(chosen[:JUDGED]))
    return _cut_out(replace(listing, faces=faces), spec)


def _drawn(faces: int, seed: int) -> tuple[NDArray[np.intp], np.random.Generator]:
    """The order in which so many faces are taken, and what goes on drawing."""
    # Generator.random is the plainest stream there is; shuffle and integers may change between releases of numpy.
    random = np.random.default_rng(seed)
    return np.argsort(random.random(faces), kind="stable"), random


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
    return as_uint8(np.clip(np.rint(crop * light), 0, 255))


def _listing(folder: Path, spec: ModelSpec, split: str, dataset: Dataset | None) -> Listing:
    """The faces that have the network's points; how many others there are is said in `problems`."""
    listing = (dataset or find_dataset(folder)).faces(folder, split)
    others = collections.Counter(len(face.points) for face in listing.faces)
    fitting = others.pop(spec.landmarks, 0)
    if not fitting:
        points = f"{spec.name} finds {spec.landmarks} points, the faces in {folder} have {min(others)}"
        raise OtherPoints(points, hint=f"name a folder of faces with {spec.landmarks} points")
    if not others:
        return listing
    left = tuple(f"{folder}: {count} faces with {points} points left out" for points, count in sorted(others.items()))
    chosen = tuple(face for face in listing.faces if len(face.points) == spec.landmarks)
    return replace(listing, faces=chosen, problems=(*listing.problems, *left))


def _pictures(faces: Sequence[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Each face with its decoded picture; faces of one picture follow each other, so that it is decoded once."""
    for is_video, run in itertools.groupby(faces, key=lambda face: face.frame is not None):
        some = list(run)
        yield from footage.frames(some) if is_video else _decoded(some)


def _decoded(faces: Sequence[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Pictures, some decoded ahead by threads: OpenCV lets go of the interpreter meanwhile."""
    runs = [(image, list(run)) for image, run in itertools.groupby(faces, key=lambda face: face.image)]
    with ThreadPoolExecutor(DECODERS) as pool:
        waiting: collections.deque[Future[Uint8]] = collections.deque()
        try:
            for place, (_, run) in enumerate(runs):
                for image, _ in runs[place + len(waiting) : place + DECODERS + 1]:
                    waiting.append(pool.submit(_decode, image))
                picture = waiting.popleft().result()
                for face in run:
                    yield face, picture
        finally:
            for one in waiting:
                one.cancel()


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
    return as_uint8(picture)


def _square_of(face: Face, picture: Uint8, crop: Crop, box: Float32 | None = None) -> Square:
    """The square of a face that can be cut out of its picture; around its points, where no other box is given."""
    height, width = picture.shape[:2]
    hint = f"is this the annotation of {face.image.name}, {width} x {height} pixels?"
    if not np.ptp(face.points, axis=0).all():
        raise InputError(f"{face.place}: the points span no area", hint=hint)
    # As stored, coordinates may begin at 0 or at 1: both ends belong to the picture.
    if not ((face.points >= 0) & (face.points <= (width, height))).all(axis=1).any():
        raise InputError(f"{face.place}: every point is outside the picture", hint=hint)
    left, top, side = square(face.points, crop) if box is None else around(box.tolist(), crop)
    if not 1 <= side <= LARGEST * max(width, height):
        raise InputError(f"{face.place}: the points need a crop of {side} pixels", hint=hint)
    return left, top, side
