"""From inputs to faces with landmarks, in order: one thread decodes, another runs the networks.

A detector that looks at every picture does not wait for the landmarks of the last one: it has a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lmconv.detecting.opening import open_finder
from lmconv.errors import InputError, UsageError
from lmconv.inference.loading import usable
from lmconv.plugins import TARGETS
from lmconv.running import boxfile, videos
from lmconv.running.faces import Face, Found, from_boxes, locate
from lmconv.running.inputs import Item
from lmconv.running.overlap import ahead
from lmconv.running.pictures import read
from lmconv.running.smoothing import Smoothed, smooth
from lmconv.running.tracking import Tracks, step
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, OpenOptions, Session, Uint8

WAITING = 4
"""How many frames of a video may wait for the next thread; one of pictures, which may be large, and of what is live."""
SHORTEST = 1e-3
"""Seconds between two frames, at least, for the filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How faces are found and followed.

    Attributes:
        detector: See `lmconv.detecting.opening.open_finder`.
        weights: Of the detector.
        boxes: A file that stands for it; see `lmconv.running.boxfile`.
        track: Whether faces of a video are followed from their last landmarks.
        every: After how many frames the detector looks again.
        smooth: Whether landmarks of a video pass the one-euro filter.
        options: What the networks are opened with.
    """

    detector: str
    weights: Path | None = None
    boxes: Path | None = None
    track: bool = True
    every: int = 15
    smooth: bool = False
    options: OpenOptions = field(default_factory=OpenOptions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A picture, or a frame of a video; or what went wrong with an input, then without a picture.

    Attributes:
        picture: (H, W, 3) uint8, BGR, upright.
        index: Of a video, from 0.
        fps: Of a video, frames per second, as it says itself.
        found: Where its faces are, as far as the detector has looked.
        time: Of a video, seconds since its first frame; of what is live, by the clock, as frames may be left out.
    """

    item: Item
    picture: Uint8 | None = None
    index: int | None = None
    fps: float | None = None
    time: float | None = None
    found: tuple[Found, ...] | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A frame with its faces, in a fixed order: as the detector has them, in a video by their numbers."""

    frame: Frame
    faces: tuple[Face, ...] = ()


FindIn: TypeAlias = Callable[[Frame, Uint8], list[Found] | None]


def checked(path: Path, options: OpenOptions) -> Artifact:
    """Reads an artefact and checks that it finds landmarks and can be run here.

    Raises:
        UsageError: It finds faces.
        InputError: It is missing or broken.
        MissingRuntime: What runs it is not here.
    """
    artifact = artifacts.read(path)
    if artifact.spec.task != "landmarks":
        raise UsageError(
            f"{path} finds faces, not landmarks", hint=f"name an artefact of landmarks, and --detector {path}"
        )
    usable(artifact, options)
    return artifact


def steps(items: Sequence[Item]) -> int | None:
    """How many results there will be, as far as that is known."""
    counts = [1 if item.kind == "picture" else _length(item) for item in items]
    return None if None in counts else sum(filter(None, counts))


def _length(item: Item) -> int | None:
    if item.kind != "video":
        return None
    try:
        with videos.opened(item) as capture:
            return videos.announced(capture)
    except InputError:  # said when its turn comes
        return 1


@contextmanager
def results(items: Sequence[Item], artifact: Artifact, settings: Settings) -> Iterator[Iterator[Result]]:
    """Everything that is found, in order; leaving the context ends the threads."""
    depth = WAITING if all(item.kind == "video" for item in items) else 1
    apart = not settings.boxes and (not settings.track or all(item.kind == "picture" for item in items))
    with ExitStack() as stack:
        frames = stack.enter_context(ahead(_decoded(items), depth))
        if apart:
            frames = stack.enter_context(ahead(_detected(frames, settings), depth))
        yield stack.enter_context(ahead(_found(frames, artifact, settings, apart=apart), depth))


def _decoded(items: Iterable[Item]) -> Generator[Frame]:
    for item in items:
        try:
            yield from _frames(item)
        except Exception as error:  # of this input: the others go on
            yield Frame(item=item, error=error)


def _frames(item: Item) -> Generator[Frame]:
    if item.kind == "picture" and isinstance(item.source, Path):
        yield Frame(item=item, picture=read(item.source))
        return
    with videos.opened(item) as capture:
        fps, live = videos.rate(capture), item.kind != "video" and videos.announced(capture) is None
        began = None
        for index, picture in enumerate(videos.pictures(item, capture)):
            began = began or time.monotonic()
            seconds = time.monotonic() - began if live else index / fps
            yield Frame(item=item, picture=picture, index=index, fps=fps, time=seconds)


def _detected(frames: Iterator[Frame], settings: Settings) -> Generator[Frame]:
    with _detector(settings) as find:
        for frame in frames:
            try:
                found = None if frame.picture is None else tuple(find(frame.picture))
            except Exception as error:  # of this input: the others go on
                yield replace(frame, picture=None, error=error)
            else:
                yield replace(frame, found=found)


def _found(
    frames: Iterator[Frame], artifact: Artifact, settings: Settings, *, apart: bool = False
) -> Generator[Result]:
    """The networks are opened here, as some may only be used in the thread that did."""
    target = TARGETS.load(artifact.target)
    finder = nullcontext(_looked) if apart else _finder(artifact, settings)
    with finder as find, target.open(artifact, settings.options) as session:
        item, video = None, _Video(session, artifact, settings)
        for frame in frames:
            if frame.item is not item:
                item, video = frame.item, _Video(session, artifact, settings)
            if frame.picture is None or video.failed:
                if frame.error and not video.failed:
                    yield Result(frame=frame)
                video.failed = True
                continue
            try:
                yield Result(frame=frame, faces=video.faces(frame, frame.picture, find))
            except Exception as error:  # of this input: the others go on
                video.failed = True
                yield Result(frame=replace(frame, picture=None, error=error))


def _looked(frame: Frame, picture: Uint8) -> list[Found]:
    return list(frame.found or ())


@contextmanager
def _finder(artifact: Artifact, settings: Settings) -> Iterator[FindIn]:
    if settings.boxes:
        boxes = boxfile.read(settings.boxes, artifact.spec.crop)
        yield lambda frame, picture: boxes.find(frame.item, frame.index, picture)
        return
    with _detector(settings) as find:
        yield lambda frame, picture: find(picture)


@contextmanager
def _detector(settings: Settings) -> Iterator[Callable[[Uint8], list[Found]]]:
    options = settings.options
    with ExitStack() as stack:
        try:
            opening = open_finder(
                settings.detector, weights=settings.weights, threads=options.threads, trust=options.trust
            )
            finder = stack.enter_context(opening)
        except InputError as error:
            raise InputError(error.message, hint=f"{error.hint}; or say where faces are by --boxes FILE") from error

        def find(picture: Uint8) -> list[Found]:
            found = finder(picture)
            return from_boxes(found.boxes, found.scores, finder.detector.crop, picture)

        yield find


class _Video:
    """What is remembered from frame to frame of one input."""

    def __init__(self, session: Session, artifact: Artifact, settings: Settings) -> None:
        self.failed = False
        self._session, self._spec, self._settings = session, artifact.spec, settings
        self._tracks, self._smoothed, self._time = Tracks(), dict[int | None, Smoothed](), 0.0

    def faces(self, frame: Frame, picture: Uint8, find: FindIn) -> tuple[Face, ...]:
        """The faces of the next frame."""
        if frame.index is None:
            found = find(frame, picture) or []
            points = locate(self._session, self._spec, picture, [row.square for row in found])
            return tuple(Face(found=row, landmarks=each) for row, each in zip(found, points, strict=True))
        self._tracks = step(
            self._tracks,
            lambda: find(frame, picture),
            lambda squares: locate(self._session, self._spec, picture, squares),
            size=picture.shape[:2],
            crop=self._spec.crop,
            every=self._settings.every if self._settings.track else 1,
            follow=self._settings.track,
        )
        since, self._time = (frame.time or 0.0) - self._time, frame.time or 0.0
        return self._steady(max(since, SHORTEST)) if self._settings.smooth else self._tracks.faces

    def _steady(self, seconds: float) -> tuple[Face, ...]:
        """The faces with their landmarks after the filter; what follows them sees those before it."""
        last = self._smoothed
        self._smoothed = {
            face.track: smooth(
                last.get(face.track),
                face.landmarks,
                seconds=seconds,
                size=max(1.0, float(np.ptp(face.landmarks, axis=0).max())),
            )
            for face in self._tracks.faces
        }
        return tuple(replace(face, landmarks=self._smoothed[face.track].points) for face in self._tracks.faces)
