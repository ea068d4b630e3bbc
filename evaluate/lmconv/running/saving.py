"""Writes the output of `lmconv run`: landmarks.jsonl, drawn pictures and videos, and `.pts` files.

Every picture, video and `.pts` file is written beside its final place and renamed: no reader sees half a file.
landmarks.jsonl grows by whole lines.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import numpy as np

from lmconv.errors import InputError
from lmconv.faces.pts import text_of
from lmconv.running.faces import Face
from lmconv.running.inputs import LANDMARKS_FILE, Item
from lmconv.running.stream import Result
from lmconv.running.videos import video_writer
from lmconv.scheme import Scheme
from lmconv.store.files import replace_bytes, writing
from lmconv.types import Json, Uint8
from lmconv.visual.encoding import encode
from lmconv.visual.overlay import draw_box, draw_landmarks

if TYPE_CHECKING:
    import cv2


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of one input.

    Attributes:
        item: The input.
        frames: Number of saved frames.
        faces: Number of faces in all frames.
        empty: Number of frames without a face.
        start: Time when the first frame was finished, seconds of `time.perf_counter`.
        seconds: Time from the first finished frame to the last.
    """

    item: Item
    frames: int = 0
    faces: int = 0
    empty: int = 0
    start: float = 0.0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames per second without the first frame, which waits until the networks are open."""
        return (self.frames - 1) / self.seconds if self.seconds else 0.0


@dataclass(slots=True, kw_only=True)
class Saver:
    """Draws, counts and saves results in their order; a context manager.

    Attributes:
        out: Folder for the output; None to draw and count only.
        scheme: Point scheme, whose groups are drawn as lines; None for points without lines.
        pts: True to write `.pts` files.
        tallies: Counts of every input with a result, in order.
    """

    out: Path | None
    scheme: Scheme | None
    pts: bool = True
    tallies: list[Tally] = field(default_factory=list)
    _files: ExitStack = field(default_factory=ExitStack)
    _lines: TextIO | None = None
    _video: tuple[ExitStack, cv2.VideoWriter] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            self._end_video()

    def save(self, result: Result) -> Uint8:
        """Draws the faces into the picture of a result and saves the result.

        Returns:
            The drawn picture, (H, W, 3) uint8, BGR.

        Raises:
            Exception: The error of the result.
            InputError: A file cannot be written.
        """
        frame = result.frame
        if frame.picture is None:
            raise frame.error or AssertionError("neither a picture nor an error")
        tally = self._tally(frame.item)
        draw_faces(frame.picture, result.faces, self.scheme)
        if self.out:
            with writing(self.out):
                self._save(self.out, result, frame.picture)
        now = time.perf_counter()
        if not tally.frames:
            tally.start = now
        tally.seconds = now - tally.start
        tally.frames += 1
        tally.faces += len(result.faces)
        tally.empty += not result.faces
        return frame.picture

    def _tally(self, item: Item) -> Tally:
        """Returns the counts of an input; the first call for a new input ends the video of the previous input."""
        if not self.tallies or self.tallies[-1].item is not item:
            self._end_video()
            self.tallies.append(Tally(item=item))
        return self.tallies[-1]

    def _save(self, out: Path, result: Result, drawn: Uint8) -> None:
        """Writes the drawn picture, the line of landmarks.jsonl and the `.pts` files of a result."""
        frame = result.frame
        path = out / frame.item.drawn_file
        if self._lines is None:
            out.mkdir(parents=True, exist_ok=True)
            self._lines = self._files.enter_context((out / LANDMARKS_FILE).open("w", encoding="utf-8", buffering=1))
        if frame.index is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(path, _encode(drawn, path), sweep=False)
        else:
            if self._video is None:
                stack = ExitStack()
                self._video = stack, stack.enter_context(video_writer(path, drawn.shape[:2], frame.fps or 0))
            self._video[1].write(drawn)
        self._lines.write(json.dumps(to_json(result), allow_nan=False) + "\n")
        if self.pts:
            self._save_pts(out, result)

    def _save_pts(self, out: Path, result: Result) -> None:
        """Writes a `.pts` file per face.

        A picture has `NAME.pts`, or `NAME_0.pts`, `NAME_1.pts` … for several faces. A frame of a video has
        `NAME/000001.pts` as in 300-VW, or `NAME/000001_T.pts` with track number T for several faces.
        """
        frame = result.frame
        stem = out / (frame.item.name if frame.index is None else f"{frame.item.name}/{frame.index + 1:06d}")
        stem.parent.mkdir(parents=True, exist_ok=True)
        for index, face in enumerate(result.faces):
            number = index if face.track is None else face.track
            suffix = f"_{number}.pts" if len(result.faces) > 1 else ".pts"
            points = text_of(face.landmarks).encode()
            replace_bytes(stem.with_name(stem.name + suffix), points, sweep=False)

    def _end_video(self) -> None:
        """Closes the current video file."""
        if self._video:
            self._video[0].close()
            self._video = None


def draw_faces(picture: Uint8, faces: tuple[Face, ...], scheme: Scheme | None) -> None:
    """Draws landmarks, contours and boxes of faces into a picture, in place: a copy of a large picture costs memory.

    Args:
        picture: (H, W, 3) uint8, BGR.
        faces: Faces of the picture; a face with a track number gets a label.
        scheme: Point scheme, whose groups are drawn as lines; None for points without lines.
    """
    groups = scheme.groups.values() if scheme else ()
    for face in faces:
        label = "" if face.track is None else str(face.track)
        draw_box(picture, np.array(face.region.box), label=label)
        draw_landmarks(picture, face.landmarks, groups=groups)


def to_json(result: Result) -> Json:
    """Returns a line of landmarks.jsonl as a JSON object (docs/run.md)."""
    frame = result.frame
    height, width = frame.picture.shape[:2] if frame.picture is not None else (0, 0)
    return {
        "path": frame.item.label,
        "frame": frame.index,
        "time": None if frame.time is None else round(frame.time, 4),
        "size": [width, height],
        "faces": [_face_to_json(face) for face in result.faces],
    }


def _face_to_json(face: Face) -> Json:
    """Returns an element of `faces` in a line of landmarks.jsonl."""
    score = face.region.score
    return {
        "box": [round(side, 2) for side in face.region.box],
        "score": None if score is None else round(score, 4),
        "square": list(face.region.square),
        "track": face.track,
        "landmarks": face.landmarks.round(3).tolist(),
    }


def _encode(picture: Uint8, path: Path) -> bytes:
    """Returns the bytes of a picture file in the format of the path's suffix.

    Raises:
        InputError: OpenCV cannot encode the picture in this format.
    """
    try:
        return encode(picture, path.suffix)
    except ValueError as error:
        raise InputError(f"cannot write {path}: {error}", hint="convert the input to PNG first") from error
