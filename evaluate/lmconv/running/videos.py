"""Reads the frames of videos, cameras and streams, and writes video files."""

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

DEFAULT_FPS = 25.0
"""Frames per second of a video that declares no usable rate."""
TIMEOUT_MS = 10_000
"""Time limit for opening a stream and for reading a frame of a stream, milliseconds."""
MAX_MISSING = 0.02
"""Largest fraction of the declared frames that may be missing: some containers declare only a duration, from which the
number of frames is estimated."""


@contextmanager
def open_capture(item: Item) -> Iterator[cv2.VideoCapture]:
    """Opens a video, camera or stream; the capture is released when the context ends.

    Raises:
        InputError: The file is not a video, or the stream does not answer.
        MissingRuntime: The camera does not exist.
    """
    import cv2

    if isinstance(item.source, int):
        capture = cv2.VideoCapture(item.source)
        if not capture.isOpened():
            raise MissingRuntime(
                f"no camera {item.source} can be opened", hint="connect the camera, or name another number"
            )
    elif isinstance(item.source, str):
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
        capture = cv2.VideoCapture(item.source, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise InputError(f"{item.label} does not answer with a video", hint="check the address and the network")
    else:
        capture = cv2.VideoCapture(str(Path(named_in_text(item.source)).absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            is_empty = not item.source.stat().st_size
            problem = "is empty" if is_empty else "is broken, or not a video that OpenCV can decode"
            raise InputError(f"{item.label} {problem}", hint="restore the file, or convert it to MP4")
    try:
        yield capture
    finally:
        capture.release()


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Returns the declared frames per second; `DEFAULT_FPS` if the declared rate is not from 1 to 1000."""
    import cv2

    declared = float(capture.get(cv2.CAP_PROP_FPS))
    return declared if math.isfinite(declared) and 1 <= declared <= 1000 else DEFAULT_FPS


def declared_frames(capture: cv2.VideoCapture) -> int | None:
    """Returns the declared number of frames; None if the source declares no usable number."""
    import cv2

    declared = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(declared) if 0 < declared < 1e9 else None


def read_frames(item: Item, capture: cv2.VideoCapture) -> Generator[Uint8]:
    """Yields all frames, (H, W, 3) uint8, BGR, upright and all of one size.

    Raises:
        InputError: After the last frame that can be read: the size of the frames changes, a video has no frames or
            fewer than declared, or a camera stops.
    """
    declared = declared_frames(capture)
    count, shape = 0, None
    while True:
        has_frame, frame = capture.read()
        if not has_frame or (shape is not None and frame.shape != shape):
            break
        count, shape = count + 1, frame.shape
        yield as_uint8(frame)
    if has_frame:
        raise InputError(
            f"{item.label}: the size of the frames changes at frame {count}", hint="cut the video at this frame"
        )
    if item.kind == "camera":
        raise InputError(
            f"{item.label} stops after {count} frames", hint="connect the camera again; the frames until then are saved"
        )
    if not count or (declared and count < (1 - MAX_MISSING) * declared - 1):
        raise InputError(
            f"{item.label} is truncated: {count} of {declared or 'no'} frames can be read",
            hint="restore the file; the frames that can be read are saved",
        )


@contextmanager
def video_writer(path: Path, size: tuple[int, int], fps: float) -> Iterator[cv2.VideoWriter]:
    """Writes an MP4 file (MPEG-4 part 2); the file gets its final name when the context ends.

    MPEG-4 has no odd width or height: the last column or row of pixels is lost.

    Args:
        path: Path of the file.
        size: Height and width of all frames, pixels.
        fps: Frames per second.

    Raises:
        InputError: The file cannot be written.
    """
    import cv2

    temporary = path.with_name(f".{path.name}")
    height, width = size
    if min(size) < 2:
        raise InputError(f"cannot write {path}: a video has at least 2 x 2 pixels", hint="name a larger video")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise InputError(f"cannot write {path}", hint="free disk space there, or name another folder by --out")
    try:
        yield writer
    finally:
        writer.release()
        with writing(path):
            temporary.replace(path)
