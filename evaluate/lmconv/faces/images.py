"""Decodes the pictures and video frames of annotated faces."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv.errors import InputError
from lmconv.faces import footage
from lmconv.networks.squares import as_uint8
from lmconv.types import Uint8

if TYPE_CHECKING:
    from lmconv.data import Face

DECODERS = 2
"""Number of threads that decode pictures, and largest number of pictures that are decoded ahead."""


def read_images(faces: Sequence[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Yields each face with its picture or video frame, (H, W, 3) uint8, BGR.

    A picture is decoded once if its faces follow each other in `faces`.
    """
    for is_video, run in itertools.groupby(faces, key=lambda face: face.frame is not None):
        run_faces = list(run)
        yield from footage.frames(run_faces) if is_video else _read_pictures(run_faces)


def _read_pictures(faces: Sequence[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Yields each face with its picture; threads decode ahead, because OpenCV releases the interpreter lock."""
    runs = [(path, list(run)) for path, run in itertools.groupby(faces, key=lambda face: face.image)]
    with ThreadPoolExecutor(DECODERS) as pool:
        pending: collections.deque[Future[Uint8]] = collections.deque()
        try:
            for index, (_, run) in enumerate(runs):
                for path, _ in runs[index + len(pending) : index + DECODERS + 1]:
                    pending.append(pool.submit(read_image, path))
                picture = pending.popleft().result()
                for face in run:
                    yield face, picture
        finally:
            for future in pending:
                future.cancel()


def read_image(path: Path) -> Uint8:
    """Decodes a picture file as stored, because annotations ignore the EXIF rotation.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        InputError: The file cannot be read or decoded.
    """
    import cv2

    hint = "restore the file, or remove the file and its annotation"
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
