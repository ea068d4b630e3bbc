"""Annotated faces, cropped from their pictures in the same way as for the training of the networks."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmconv.console import phase
from lmconv.errors import InputError, UsageError
from lmconv.faces.images import DECODERS, read_images
from lmconv.faces.lookup import find_faces
from lmconv.networks.seeded import Scene
from lmconv.networks.squares import Square, around, cut
from lmconv.store import cache
from lmconv.store.cache import array_digest
from lmconv.store.files import sha256
from lmconv.types import Arrays, Crop, Float32, Float64, Json, ModelSpec, Uint8

if TYPE_CHECKING:
    from lmconv.data import Dataset, Face, Listing

BoxLookup: TypeAlias = "Callable[[Face, Uint8], Float32 | None]"
"""Function from an annotated face and its picture to the face's bounding box.

The picture is (H, W, 3) uint8, BGR; the box is (4,) float32: x1, y1, x2, y2, pixels of the picture. None if the face
has no box.
"""

MAX_SIDE = 4
"""Largest side of a square, as a multiple of the picture's longer side.

A larger square comes from a broken annotation, and its crop needs unbounded memory.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceCrops:
    """The n faces of a data set, cropped and resized for a network.

    Attributes:
        images: (n, h, w, 3) uint8, BGR; the crops.
        squares: (n, 3) int64: left, top, side of each crop, pixels of its picture.
        truth: (n, L, 2) float64, pixels of the picture, x before y; the annotated landmarks as stored.
        names: Name of each face: source folder and picture.
        subsets: Subsets of each face, the source folder last.
        totals: Number of faces in the full version of each published subset.
        problems: One line for each group of faces that is left out, with the reason.
        scenes: Reads the pictures again and yields one scene (picture and bounding box) per face, in the order of
            `names`; `scenes([3, 7])` yields the faces at these indices only.
        pictures: Returns the first 16 hex digits of the sha256 of every picture file, sorted and without duplicates;
            the first call reads the files.
        missed: Names of the annotated faces that are left out because the detector finds no box for the face.
        normaliser: Name of the normaliser of the errors; None for the default of the landmark scheme.
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


def load_face_crops(
    path: Path,
    spec: ModelSpec,
    split: str = "test",
    *,
    dataset: Dataset | None = None,
    most: int | None = None,
    boxes: BoxLookup | None = None,
) -> FaceCrops:
    """Crops all faces of a data set for a network. Memory holds the crops and a few pictures at a time.

    Args:
        path: Folder with annotated faces, or annotation file.
        spec: Spec of the network: size of the crops and crop rule.
        split: `"test"`, `"train"` or `"all"`.
        dataset: Plug-in that reads the path; by default the plug-in that matches the path.
        most: Largest number of faces; a larger data set is sampled at equal steps in the order of the names.
        boxes: Returns the bounding box of each face; by default the box around its landmarks.

    Raises:
        InputError: There are no faces, or a face is broken; the message names the file.
        OtherPoints: No face has the number of points that the network predicts.
    """
    listing = find_faces(path, spec, split, dataset)
    if most is not None and most < len(listing.faces):
        indices = np.linspace(0, len(listing.faces) - 1, most).round().astype(int)
        listing = replace(listing, faces=tuple(listing.faces[index] for index in indices))
    return crop_faces(listing, spec, boxes)


def crop_faces(listing: Listing, spec: ModelSpec, boxes: BoxLookup | None = None) -> FaceCrops:
    """Crops the faces of a listing for a network; see `load_face_crops`."""
    digests = functools.cache(functools.partial(digests_of, listing.faces))
    compute = functools.partial(_cut_out, listing.faces, spec, boxes)
    # A detector is no part of the key: its boxes are computed each time.
    cut_out = compute() if boxes else kept(listing.faces, {"cut out for": crop_rule(spec)}, compute, digests)
    found = cut_out["found"]
    faces = [face for face, has_box in zip(listing.faces, found, strict=True) if has_box]
    missed = [face.name for face, has_box in zip(listing.faces, found, strict=True) if not has_box]
    if not faces:
        message = f"the detector finds none of the {len(missed)} annotated faces"
        raise InputError(message, hint="name another detector, or omit --boxes")
    return FaceCrops(
        images=cut_out["images"],
        squares=cut_out["squares"],
        truth=np.stack([face.points for face in faces]),
        names=tuple(face.name for face in faces),
        subsets=tuple(face.subsets for face in faces),
        totals={**collections.Counter(subset for face in listing.faces for subset in face.subsets), **listing.totals},
        problems=listing.problems,
        scenes=functools.partial(_scenes, faces, cut_out["boxes"]),
        pictures=lambda: short_digests(digests()),
        missed=tuple(missed),
    )


def _cut_out(faces: Sequence[Face], spec: ModelSpec, boxes: BoxLookup | None) -> Arrays:
    """Decodes all pictures and crops the faces.

    Returns:
        `found`: (N,) bool, True for the n faces that have a box; `images`, `squares` and `boxes`: crop, square and
        bounding box in whole pixels of these faces, see `FaceCrops` and `_whole_pixel_box`.
    """
    images = np.empty((len(faces), *spec.input_size, 3), np.uint8)
    squares = np.empty((len(faces), 3), np.int64)
    face_boxes = np.empty((len(faces), 4), np.float32)
    found = np.zeros(len(faces), bool)
    with phase("cutting faces", len(faces)) as part:
        for index, (face, picture) in enumerate(read_images(faces)):
            part()
            box = boxes(face, picture) if boxes else None
            if boxes and box is None:
                continue
            squares[index] = square = face_square(face, picture, spec.crop, box)
            images[index] = cut(picture, square, spec.input_size)
            face_boxes[index] = _whole_pixel_box(face, box)
            found[index] = True
    if found.all():  # without a copy
        return {"found": found, "images": images, "squares": squares, "boxes": face_boxes}
    return {"found": found, "images": images[found], "squares": squares[found], "boxes": face_boxes[found]}


def crop_rule(spec: ModelSpec) -> Json:
    """Returns the part of a spec that decides about crops."""
    return {"crop": asdict(spec.crop), "size": list(spec.input_size)}


def kept(
    faces: Sequence[Face], what: Json, compute: Callable[[], Arrays], digests: Callable[[], Mapping[Path, str]]
) -> Arrays:
    """Returns arrays that are computed from the pictures and points of faces; reads them if the user's cache has them.

    Args:
        faces: The faces; their order matters.
        what: Description of all that decides about the arrays beside the faces.
        compute: Computes the arrays.
        digests: Returns `digests_of(faces)`.
    """
    try:
        pictures = digests()
    except OSError:  # the decoder names the picture
        return compute()
    rows = [[pictures[face.image], face.frame, array_digest(face.points)] for face in faces]
    return cache.of_user().arrays({**what, "faces": rows, **cache.circumstances()}, compute)


def digests_of(faces: Sequence[Face]) -> dict[Path, str]:
    """Returns the sha256 of every picture file; threads read several files at a time."""
    paths = sorted({face.image for face in faces})
    with ThreadPoolExecutor(DECODERS) as pool:
        return dict(zip(paths, pool.map(sha256, paths), strict=True))


def landmark_square(points: Float64, crop: Crop) -> Square:
    """Returns the square that is cropped around the landmarks of a face.

    Args:
        points: (L, 2) float64, pixels of the picture, x before y.
        crop: Crop rule: kind of box, side of the box, scale.

    Returns:
        (left, top, side), whole pixels.

    Raises:
        UsageError: The rule needs a detector's box.
    """
    if crop.box != "landmarks":
        message = f"the network needs crops around a {crop.box}'s box, and no {crop.box} is named"
        raise UsageError(message, hint="name a detector, for example --boxes detector:rfb320")
    return around((*points.min(axis=0), *points.max(axis=0)), crop)


def face_square(face: Face, picture: Uint8, crop: Crop, box: Float32 | None = None) -> Square:
    """Returns the square of a face, after checking that the annotation fits the picture.

    Args:
        face: The annotated face.
        picture: (H, W, 3) uint8, BGR.
        crop: Crop rule.
        box: (4,) float32: x1, y1, x2, y2, pixels of the picture; by default the box around the landmarks.

    Returns:
        (left, top, side), whole pixels.

    Raises:
        InputError: The landmarks span no area, all landmarks are outside the picture, or the square is too large.
    """
    height, width = picture.shape[:2]
    hint = f"is this the annotation of {face.image.name}, {width} x {height} pixels?"
    if not np.ptp(face.points, axis=0).all():
        raise InputError(f"{face.place}: the points span no area", hint=hint)
    # Stored coordinates begin at 0 or at 1, depending on the data set: both 0 and the width are inside the picture.
    if not ((face.points >= 0) & (face.points <= (width, height))).all(axis=1).any():
        raise InputError(f"{face.place}: every point is outside the picture", hint=hint)
    left, top, side = landmark_square(face.points, crop) if box is None else around(box.tolist(), crop)
    if not 1 <= side <= MAX_SIDE * max(width, height):
        raise InputError(f"{face.place}: the points need a crop of {side} pixels", hint=hint)
    return left, top, side


def picture_digests(faces: Sequence[Face]) -> tuple[str, ...]:
    """Returns the digests of `FaceCrops.pictures`."""
    return short_digests(digests_of(faces))


def short_digests(digests: Mapping[Path, str]) -> tuple[str, ...]:
    """Returns the first 16 hex digits of the sha256 of picture files, sorted and without duplicates."""
    return tuple(sorted({digest[:16] for digest in digests.values()}))


def _scenes(faces: Sequence[Face], boxes: Float32, indices: Sequence[int] | None = None) -> Iterator[Scene]:
    chosen = range(len(faces)) if indices is None else indices
    for (_, picture), index in zip(read_images([faces[index] for index in chosen]), chosen, strict=True):
        yield Scene(frame=picture, boxes=boxes[index][None])


def _whole_pixel_box(face: Face, box: Float32 | None) -> Float32:
    """Returns the bounding box of a face in whole pixels, (4,) float32: x1, y1, x2, y2.

    Whole pixels keep the square: a fractional coordinate that float32 rounds up to a whole pixel gives another square.
    """
    if box is not None:
        return np.trunc(box)
    return np.concatenate([np.floor(face.points.min(axis=0)), np.ceil(face.points.max(axis=0))]).astype(np.float32)
