"""Annotated frames of videos. Each video is decoded once from its beginning, with one frame in memory at a time."""

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

HINT = "restore the video, or remove the video and its annotations"


def frames(faces: Iterable[Face]) -> Iterator[tuple[Face, Uint8]]:
    """Yields each face with its frame, (H, W, 3) uint8, BGR.

    Args:
        faces: Annotated frames. The faces of a video must follow each other, in the order of the frames.

    Raises:
        InputError: A video cannot be read, or has too few frames; the message names the video and the annotation.
    """
    for video, run in itertools.groupby(faces, key=lambda face: face.image):
        yield from _frames_of_video(video, run)


def _frames_of_video(video: Path, faces: Iterable[Face]) -> Iterator[tuple[Face, Uint8]]:
    import cv2

    capture = cv2.VideoCapture(named_in_text(video))
    try:
        if not capture.isOpened():
            raise InputError(f"{video}: not a video that OpenCV can decode", hint=HINT)
        current, picture = -1, np.empty((0, 0, 3), np.uint8)
        for face in faces:
            frame = face.frame or 0
            if frame < current:
                raise ValueError(f"frame {frame} of {video} is requested after frame {current}")
            if frame > current:
                picture = _advance(capture, frame - current, face)
                current = frame
            yield face, picture
    finally:
        capture.release()


def _advance(capture: cv2.VideoCapture, count: int, face: Face) -> Uint8:
    """Moves the capture by `count` frames and returns the last frame; frames between are not converted to pictures."""
    grabbed = all(capture.grab() for _ in range(count))
    retrieved, picture = capture.retrieve() if grabbed else (False, None)
    if not retrieved or picture is None:
        number = (face.frame or 0) + 1
        raise InputError(f"{face.image}: has no frame {number}, which {face.place} annotates", hint=HINT)
    return np.asarray(picture, np.uint8)
