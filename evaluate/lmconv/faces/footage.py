"""Annotated frames of videos: each video is decoded once, from its beginning, one frame in memory at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv.data import Face
from lmconv.errors import InputError
from lmconv.store.files import named_in_text
from lmconv.types import Uint8

if TYPE_CHECKING:
    import cv2

HINT = "restore the video, or remove it together with its annotations"


def frames(faces: Iterable[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Each face with its frame, (H, W, 3) uint8 BGR.

    Args:
        faces: Those of one video follow each other, in the order of its frames.

    Raises:
        InputError: A video cannot be read, or has no such frame; names both files.
    """
    for video, run in itertools.groupby(faces, key=lambda face: face.image):
        yield from _of_one(video, run)


def _of_one(video: Path, faces: Iterable[Face]) -> Iterator[tuple[Face, Uint8]]:
    import cv2

    capture = cv2.VideoCapture(named_in_text(video))
    try:
        if not capture.isOpened():
            raise InputError(f"{video}: not a video that OpenCV can decode", hint=HINT)
        at, picture = -1, np.empty((0, 0, 3), np.uint8)
        for face in faces:
            wanted = face.frame or 0
            if wanted < at:
                raise ValueError(f"frame {wanted} of {video} is asked for after frame {at}")
            if wanted > at:
                picture = _forward(capture, wanted - at, face)
                at = wanted
            yield face, picture
    finally:
        capture.release()


def _forward(capture: cv2.VideoCapture, count: int, face: Face) -> Uint8:
    """The frame so many further on; those between are not converted to pictures."""
    moved = all(capture.grab() for _ in range(count))
    found, picture = capture.retrieve() if moved else (False, None)
    if not found or picture is None:
        number = (face.frame or 0) + 1
        raise InputError(f"{face.image}: has no frame {number}, of which {face.place} is the annotation", hint=HINT)
    return np.asarray(picture, np.uint8)
