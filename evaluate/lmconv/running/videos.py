"""Videos, cameras and streams, frame by frame, and the video that is written."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.errors import InputError, MissingRuntime
from lmconv.networks.squares import as_uint8
from lmconv.running.inputs import Item
from lmconv.store.files import named_in_text, writing
from lmconv.types import Uint8

if TYPE_CHECKING:
    import cv2

RATE = 25.0
"""Frames per second where a video does not say."""
PATIENCE = 10_000
"""How long a stream is waited for, milliseconds."""
BREAK = 0.02
"""Share of the announced frames that may be missing, as some containers only tell how long they are."""


@contextmanager
def opened(item: Item) -> Iterator[cv2.VideoCapture]:
    """Opens what is not a picture.

    Raises:
        InputError: It is not a video, or the stream does not answer.
        MissingRuntime: There is no such camera.
    """
    import cv2

    if isinstance(item.source, int):
        capture = cv2.VideoCapture(item.source)
        if not capture.isOpened():
            raise MissingRuntime(f"no camera {item.source} can be opened", hint="connect it, or name another number")
    elif isinstance(item.source, str):
        wait = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
        capture = cv2.VideoCapture(item.source, cv2.CAP_FFMPEG, wait)
        if not capture.isOpened():
            raise InputError(f"{item.label} does not answer with a video", hint="check the address and the network")
    else:
        capture = cv2.VideoCapture(str(Path(named_in_text(item.source)).absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            what = "is broken, or not a video that OpenCV can decode" if item.source.stat().st_size else "is empty"
            raise InputError(f"{item.label} {what}", hint="restore the file, or convert it to MP4")
    try:
        yield capture
    finally:
        capture.release()


def rate(capture: cv2.VideoCapture) -> float:
    """Frames per second, as a video says; `RATE` where that cannot be."""
    import cv2

    told = float(capture.get(cv2.CAP_PROP_FPS))
    return told if math.isfinite(told) and 1 <= told <= 1000 else RATE


def announced(capture: cv2.VideoCapture) -> int | None:
    """How many frames there should be; None where that is not known."""
    import cv2

    told = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(told) if 0 < told < 1e9 else None


def pictures(item: Item, capture: cv2.VideoCapture) -> Generator[Uint8]:
    """All frames, (H, W, 3) uint8, BGR, upright and of one size.

    Raises:
        InputError: After the last frame, where there should have been more, as of a camera always.
    """
    expected = announced(capture)
    count, size = 0, None
    while True:
        there, frame = capture.read()
        if not there or (size is not None and frame.shape != size):
            break
        count, size = count + 1, frame.shape
        yield as_uint8(frame)
    if there:
        raise InputError(f"{item.label}: the size of its frames changes at frame {count}", hint="cut it there")
    if item.kind == "camera":
        raise InputError(f"{item.label} stops after {count} frames", hint="connect it again; what was read is saved")
    if not count or (expected and count < (1 - BREAK) * expected - 1):
        what = f"breaks off: {count} of {expected or 'no'} frames can be read"
        raise InputError(f"{item.label} {what}", hint="restore the file; what was read is saved")


@contextmanager
def writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[cv2.VideoWriter]:
    """Writes an MP4 file (MPEG-4 part 2) of frames of this height and width; it has its name when it is whole.

    An odd width or height loses its last pixel: the format has none.

    Raises:
        InputError: It cannot be written.
    """
    import cv2

    beside = path.with_name(f".{path.name}")
    height, width = size
    if min(size) < 2:
        raise InputError(f"cannot write {path}: a video is at least 2 x 2 pixels", hint="name a larger video")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    made = cv2.VideoWriter(str(beside), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not made.isOpened():
        raise InputError(f"cannot write {path}", hint="free space there, or name another folder")
    try:
        yield made
    finally:
        made.release()
        with writing(path):
            beside.replace(path)
