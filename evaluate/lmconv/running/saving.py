"""What `lmconv run` writes: landmarks.jsonl; drawn pictures, videos and `.pts` files, each whole or not there."""

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
from lmconv.running.inputs import LINES, Item
from lmconv.running.stream import Result
from lmconv.running.videos import writer
from lmconv.scheme import Scheme
from lmconv.store.files import replace_bytes, writing
from lmconv.types import Json, Uint8
from lmconv.visual.marks import draw_box, draw_landmarks

if TYPE_CHECKING:
    import cv2


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of one input; `empty` frames have no face."""

    item: Item
    frames: int = 0
    faces: int = 0
    empty: int = 0
    began: float = 0.0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Frames per second: of those after the first, as that one waits for the networks to be opened."""
        return (self.frames - 1) / self.seconds if self.seconds else 0.0


@dataclass(slots=True, kw_only=True)
class Saver:
    """Writes results in their order; a context manager. Without a folder it only draws and counts.

    Attributes:
        out: The folder.
        scheme: Which points are joined to lines; None for points alone.
        pts: Whether `.pts` files are written.
        tallies: Of every input that something came of.
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
        """Draws into the picture of one result, saves it, and gives it: (H, W, 3) uint8, BGR.

        Raises:
            Exception: That of the result, where there is one.
            InputError: It cannot be written.
        """
        frame = result.frame
        if frame.picture is None:
            raise frame.error or AssertionError("neither a picture nor an error")
        tally = self._tally(frame.item)
        draw(frame.picture, result.faces, self.scheme)
        if self.out:
            with writing(self.out):
                self._save(self.out, result, frame.picture)
        now = time.perf_counter()
        if not tally.frames:
            tally.began = now
        tally.seconds = now - tally.began
        tally.frames += 1
        tally.faces += len(result.faces)
        tally.empty += not result.faces
        return frame.picture

    def _tally(self, item: Item) -> Tally:
        if not self.tallies or self.tallies[-1].item is not item:
            self._end_video()
            self.tallies.append(Tally(item=item))
        return self.tallies[-1]

    def _save(self, out: Path, result: Result, drawn: Uint8) -> None:
        frame = result.frame
        place = out / frame.item.drawn
        if self._lines is None:
            out.mkdir(parents=True, exist_ok=True)
            self._lines = self._files.enter_context((out / LINES).open("w", encoding="utf-8", buffering=1))
        if frame.index is None:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_bytes(place, encoded(drawn, place), sweep=False)
        else:
            if self._video is None:
                stack = ExitStack()
                self._video = stack, stack.enter_context(writer(place, drawn.shape[:2], frame.fps or 0))
            self._video[1].write(drawn)
        self._lines.write(json.dumps(line(result), allow_nan=False) + "\n")
        if self.pts:
            self._save_pts(out, result)

    def _save_pts(self, out: Path, result: Result) -> None:
        """`NAME.pts`, or `NAME_0.pts` and so on; of a video as 300-VW has it, `NAME/000001.pts`, with track numbers."""
        frame = result.frame
        stem = out / (frame.item.name if frame.index is None else f"{frame.item.name}/{frame.index + 1:06d}")
        stem.parent.mkdir(parents=True, exist_ok=True)
        for index, face in enumerate(result.faces):
            number = index if face.track is None else face.track
            suffix = f"_{number}.pts" if len(result.faces) > 1 else ".pts"
            points = text_of(face.landmarks).encode()
            replace_bytes(stem.with_name(stem.name + suffix), points, sweep=False)

    def _end_video(self) -> None:
        if self._video:
            self._video[0].close()
            self._video = None


def draw(picture: Uint8, faces: tuple[Face, ...], scheme: Scheme | None) -> None:
    """Draws landmarks, contours and boxes of faces into a picture: a copy of a large one would be much memory."""
    groups = scheme.groups.values() if scheme else ()
    for face in faces:
        label = "" if face.track is None else str(face.track)
        draw_box(picture, np.array(face.found.box), label=label)
        draw_landmarks(picture, face.landmarks, groups=groups)


def line(result: Result) -> Json:
    """A line of landmarks.jsonl."""
    frame = result.frame
    height, width = frame.picture.shape[:2] if frame.picture is not None else (0, 0)
    return {
        "path": frame.item.label,
        "frame": frame.index,
        "time": None if frame.time is None else round(frame.time, 4),
        "size": [width, height],
        "faces": [_face(face) for face in result.faces],
    }


def _face(face: Face) -> Json:
    score = face.found.score
    return {
        "box": [round(side, 2) for side in face.found.box],
        "score": None if score is None else round(score, 4),
        "square": list(face.found.square),
        "track": face.track,
        "landmarks": face.landmarks.round(3).tolist(),
    }


def encoded(picture: Uint8, path: Path) -> bytes:
    """The bytes of a picture file, in the format of its suffix."""
    import cv2

    done, data = cv2.imencode(path.suffix, picture)
    if not done:
        raise InputError(f"cannot write {path}", hint="convert the picture to PNG first")
    return data.tobytes()
