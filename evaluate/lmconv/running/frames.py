"""Decodes the inputs to frames, in order; an error of one input does not stop the other inputs."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmconv.errors import InputError
from lmconv.running import videos
from lmconv.running.faces import Region
from lmconv.running.inputs import Item
from lmconv.running.pictures import read_picture
from lmconv.types import Uint8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A picture, a frame of a video, or an error of an input.

    Attributes:
        item: The input.
        picture: (H, W, 3) uint8, BGR, upright; None if there is an error.
        index: Index in the video, from 0; None for a picture.
        fps: Declared frames per second of the video; None for a picture.
        time: Seconds since the first frame of the video; None for a picture. The time of a camera or live stream is
            measured by the clock, because frames may be dropped.
        regions: Regions with faces; None before the detector has run.
        error: Error of the input; None if there is a picture.
    """

    item: Item
    picture: Uint8 | None = None
    index: int | None = None
    fps: float | None = None
    time: float | None = None
    regions: tuple[Region, ...] | None = None
    error: Exception | None = None


def count_frames(items: Sequence[Item]) -> int | None:
    """Returns the number of frames of all items; None if the number of any item is unknown."""
    counts = [1 if item.kind == "picture" else _video_length(item) for item in items]
    return None if None in counts else sum(filter(None, counts))


def _video_length(item: Item) -> int | None:
    """Returns the declared number of frames of a video; 1 for a broken video, whose error counts as a frame."""
    if item.kind != "video":
        return None
    try:
        with videos.open_capture(item) as capture:
            return videos.declared_frames(capture)
    except InputError:  # reported when the video is decoded
        return 1


def decode(items: Iterable[Item]) -> Generator[Frame]:
    """Yields the frames of all items in order; a frame with an error ends the frames of an item that fails."""
    for item in items:
        try:
            yield from _decode_item(item)
        except Exception as error:  # ends this input only
            yield Frame(item=item, error=error)


def _decode_item(item: Item) -> Generator[Frame]:
    """Yields the frames of one item."""
    if item.kind == "picture" and isinstance(item.source, Path):
        yield Frame(item=item, picture=read_picture(item.source))
        return
    with videos.open_capture(item) as capture:
        fps, is_live = videos.frame_rate(capture), item.kind != "video" and videos.declared_frames(capture) is None
        start = None
        for index, picture in enumerate(videos.read_frames(item, capture)):
            start = start or time.monotonic()
            seconds = time.monotonic() - start if is_live else index / fps
            yield Frame(item=item, picture=picture, index=index, fps=fps, time=seconds)
