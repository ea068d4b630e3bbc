"""Real crops for the calibration of int8, and the faces for the evaluation of a calibrated artefact."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmconv.console import phase
from lmconv.errors import UsageError
from lmconv.faces.crops import FaceCrops, crop_faces, crop_rule, digests_of, face_square, kept, picture_digests
from lmconv.faces.images import read_images
from lmconv.faces.lookup import calibration_faces
from lmconv.networks.preprocess import network_input
from lmconv.networks.squares import Square, as_uint8, cut
from lmconv.store.cache import array_digest
from lmconv.types import Arrays, Float32, Float64, ModelSpec, Uint8

if TYPE_CHECKING:
    from lmconv.data import Dataset, Face

CALIBRATION_CROPS = 300
"""Default number of crops for the calibration of int8."""
MAX_EVALUATION_FACES = 600
"""Largest number of faces for the evaluation of an export."""
MIN_HELD_OUT_FACES = 100
"""Smallest number of held-out faces (not used by calibration) that are evaluated on alone."""

# Largest differences between an augmented calibration crop and the plain crop.
SCALE = (0.9, 1.15)
SHIFT = 0.05  # fraction of the square's side
ROTATION = 15.0  # degrees
BRIGHTNESS = (0.8, 1.2)


def calibration_inputs(
    path: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION_CROPS,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> Float32:
    """Returns network inputs for the calibration of int8; the same faces, count and seed give the same bytes.

    The order of the faces is drawn from `seed`, and the first `count` faces are a fair sample of all parts of the data
    set. If the data set has fewer faces than `count`, the faces repeat; every repetition is augmented by a small
    scaling, shift, rotation and change of brightness.

    Args:
        path: Folder with annotated faces, or annotation file.
        spec: Spec of the network.
        split: `"test"`, `"train"` or `"all"`.
        count: Number of crops, at least 1.
        seed: Seed of the order and of the augmentation.
        dataset: Plug-in that reads the path; by default the plug-in that matches the path.

    Returns:
        (count, 3, h, w) float32, normalised by `network_input`.

    Raises:
        UsageError: `count` is smaller than 1.
    """
    if count < 1:
        raise UsageError(f"{count} calibration crops are too few", hint="use at least 1")
    faces = calibration_faces(path, spec, split, dataset).faces
    shuffled, random = _shuffled(len(faces), seed)
    order = np.resize(shuffled, count)
    draws = random.random((count, 5))
    used, places = np.unique(order, return_inverse=True)
    pictured = [faces[index] for index in used]
    what = {"calibration crops for": crop_rule(spec), "order": array_digest(order), "draws": array_digest(draws)}
    compute = functools.partial(_calibration_crops, pictured, spec, places, draws)
    crops = kept(pictured, what, compute, functools.partial(digests_of, pictured))["crops"]
    return network_input(as_uint8(crops), spec.preprocess)


def _calibration_crops(faces: list[Face], spec: ModelSpec, places: NDArray[np.intp], draws: Float64) -> Arrays:
    """Crops faces; augments every repetition of a face.

    Args:
        faces: The faces.
        spec: Spec of the network.
        places: (n,) int, index of the face of each crop.
        draws: (n, 5) float64 from [0, 1), the augmentation of each crop.

    Returns:
        `crops`: (n, h, w, 3) uint8, BGR.
    """
    crops = np.empty((len(places), *spec.input_size, 3), np.uint8)
    with phase("cutting calibration faces", len(faces)) as part:
        for index, (face, picture) in enumerate(read_images(faces)):
            part()
            square = face_square(face, picture, spec.crop)
            first, *repetitions = np.flatnonzero(places == index)
            crops[first] = cut(picture, square, spec.input_size)
            for place in repetitions:
                crops[place] = _augmented(picture, square, spec.input_size, draws[place])
    return {"crops": crops}


def calibration_pictures(
    path: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION_CROPS,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> tuple[str, ...]:
    """Returns the digests of the pictures that `calibration_inputs` crops, in the form of `FaceCrops.pictures`."""
    faces = calibration_faces(path, spec, split, dataset).faces
    return picture_digests([faces[index] for index in _shuffled(len(faces), seed)[0][:count]])


def calibration_names(
    path: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION_CROPS,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> tuple[str, ...]:
    """Returns the name (`Face.name`) of the face of each crop that `calibration_inputs` returns."""
    faces = calibration_faces(path, spec, split, dataset).faces
    return tuple(faces[index].name for index in np.resize(_shuffled(len(faces), seed)[0], count))


def evaluation_crops(
    path: Path,
    spec: ModelSpec,
    split: str = "train",
    count: int = CALIBRATION_CROPS,
    seed: int = 0,
    *,
    dataset: Dataset | None = None,
) -> FaceCrops:
    """Returns the faces for the evaluation of an artefact that was calibrated with the same arguments.

    The result has at most `MAX_EVALUATION_FACES` faces, drawn from `seed`. If at least `MIN_HELD_OUT_FACES` faces are
    held out (not used by calibration), the result has held-out faces only; otherwise any face may be in the result.
    The faces may have another number of points than the network, see `calibration_faces`.
    """
    listing = calibration_faces(path, spec, split, dataset)
    order, _ = _shuffled(len(listing.faces), seed)
    candidates = order[count:] if len(order) - count >= MIN_HELD_OUT_FACES else order
    faces = tuple(listing.faces[index] for index in np.sort(candidates[:MAX_EVALUATION_FACES]))
    return crop_faces(replace(listing, faces=faces), spec)


def _shuffled(count: int, seed: int) -> tuple[NDArray[np.intp], np.random.Generator]:
    """Returns `count` indices in random order, and the generator for further draws."""
    # The stream of Generator.random is the most stable; shuffle and integers may change between releases of NumPy.
    random = np.random.default_rng(seed)
    return np.argsort(random.random(count), kind="stable"), random


def _augmented(picture: Uint8, square: Square, size: tuple[int, int], draws: Float64) -> Uint8:
    """Returns a crop that is scaled, shifted, rotated and brightened by (5,) float64 draws from [0, 1)."""
    import cv2

    left, top, side = square
    scale = SCALE[0] + draws[0] * (SCALE[1] - SCALE[0])
    shift = (2 * draws[1:3] - 1) * SHIFT * side
    angle = math.radians((2 * draws[3] - 1) * ROTATION)
    brightness = BRIGHTNESS[0] + draws[4] * (BRIGHTNESS[1] - BRIGHTNESS[0])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    # From pixels of the crop to pixels of the picture. As in cv2.resize, a pixel's centre is 0.5 from the pixel's edge.
    linear = rotation * (scale * side / np.array(size[::-1]))
    offset = np.array([left, top]) + side / 2 + shift - 0.5 - linear @ (np.array(size[::-1]) / 2 - 0.5)
    matrix = np.column_stack([linear, offset])
    crop = cv2.warpAffine(picture, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return as_uint8(np.clip(np.rint(crop * brightness), 0, 255))
