"""Computes the landmarks of all faces of all inputs, in order: one thread decodes, another runs the networks.

A third thread runs the detector if every picture needs the detector: detection of a picture then overlaps with the
landmarks of the previous picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lmconv.detecting.loading import load_detector
from lmconv.errors import InputError, UsageError
from lmconv.inference.loading import usable
from lmconv.networks.squares import Square
from lmconv.plugins import TARGETS
from lmconv.running import boxfile
from lmconv.running.faces import Face, Region, predict_landmarks, regions_of
from lmconv.running.frames import Frame, decode
from lmconv.running.inputs import Item
from lmconv.running.prefetch import prefetch
from lmconv.running.smoothing import Smoothed, smooth
from lmconv.running.tracking import Tracks, track
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Float64, OpenOptions, Session, Uint8

VIDEO_DEPTH = 4
"""Number of frames that may wait between two threads when all inputs are video files. Otherwise the number is 1:
pictures may be large, and frames of live sources would be late."""
MIN_INTERVAL = 1e-3
"""Smallest interval between two frames for the one-euro filter, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options for detecting and tracking faces.

    Attributes:
        detector: Name of a detector, or folders of artefacts; see `lmconv.detecting.loading.load_detector`.
        weights: Checkpoint of the detector, or the first folder to search for checkpoints.
        boxes: File of boxes that replaces the detector; see `lmconv.running.boxfile`.
        track: True to cut out the faces of a video around their last landmarks.
        every: Number of frames between two runs of the detector.
        smooth: True to apply the one-euro filter to the landmarks of a video.
        options: Options for opening the networks.
    """

    detector: str
    weights: Path | None = None
    boxes: Path | None = None
    track: bool = True
    every: int = 15
    smooth: bool = False
    options: OpenOptions = field(default_factory=OpenOptions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A frame with its faces.

    Attributes:
        frame: The frame.
        faces: Faces of a picture in the order of the detector, faces of a video in the order of their numbers.
    """

    frame: Frame
    faces: tuple[Face, ...] = ()


FrameDetector: TypeAlias = Callable[[Frame, Uint8], list[Region] | None]
"""Returns the regions of a frame, given the frame and its picture, (H, W, 3) uint8, BGR; None if unknown."""


def read_landmark_artifact(path: Path, options: OpenOptions) -> Artifact:
    """Reads an artefact of a landmark network and checks that this machine can run the artefact.

    Raises:
        UsageError: The artefact is of a detection network.
        InputError: The artefact is missing or broken.
        MissingRuntime: The runtime of the artefact is not installed.
    """
    artifact = artifacts.read(path)
    if artifact.spec.task != "landmarks":
        raise UsageError(
            f"{path} detects faces, not landmarks",
            hint=f"name an artefact of a landmark network, and this one by --detector {path}",
        )
    usable(artifact, options)
    return artifact


@contextmanager
def results(items: Sequence[Item], artifact: Artifact, settings: Settings) -> Iterator[Iterator[Result]]:
    """Computes the results of all items, in order; the threads end when the context ends."""
    depth = VIDEO_DEPTH if all(item.kind == "video" for item in items) else 1
    detects_every_frame = not settings.track or all(item.kind == "picture" for item in items)
    with ExitStack() as stack:
        frames = stack.enter_context(prefetch(decode(items), depth))
        detector: AbstractContextManager[FrameDetector] = _frame_detector(artifact, settings)
        if detects_every_frame and not settings.boxes:
            frames = stack.enter_context(prefetch(_detect(frames, settings), depth))
            detector = nullcontext(_known_regions)
        yield stack.enter_context(prefetch(_predict(frames, artifact, settings, detector), depth))


def _detect(frames: Iterator[Frame], settings: Settings) -> Generator[Frame]:
    """Yields the frames with the regions that the detector finds; an error becomes a frame with this error."""
    with _region_detector(settings) as detect:
        for frame in frames:
            try:
                regions = None if frame.picture is None else tuple(detect(frame.picture))
            except Exception as error:  # ends this input only
                yield replace(frame, picture=None, error=error)
            else:
                yield replace(frame, regions=regions)


def _predict(
    frames: Iterator[Frame], artifact: Artifact, settings: Settings, detector: AbstractContextManager[FrameDetector]
) -> Generator[Result]:
    """Yields the results of the frames; after an error, the remaining frames of the same input are skipped.

    The networks are opened in this thread: some runtimes allow calls only in the thread that opened the session.
    """
    target = TARGETS.load(artifact.target)
    with detector as detect, target.open(artifact, settings.options) as session:
        item, state = None, _ItemState(session, artifact, settings)
        for frame in frames:
            if frame.item is not item:
                item, state = frame.item, _ItemState(session, artifact, settings)
            if frame.picture is None or state.failed:
                if frame.error and not state.failed:
                    yield Result(frame=frame)
                state.failed = True
                continue
            try:
                yield Result(frame=frame, faces=state.faces(frame, frame.picture, detect))
            except Exception as error:  # ends this input only
                state.failed = True
                yield Result(frame=replace(frame, picture=None, error=error))


def _known_regions(frame: Frame, picture: Uint8) -> list[Region]:
    """Returns the regions that the detector's thread has found."""
    return list(frame.regions or ())


@contextmanager
def _frame_detector(artifact: Artifact, settings: Settings) -> Iterator[FrameDetector]:
    """Opens the source of regions: the file of boxes, or the detector."""
    if settings.boxes:
        boxes = boxfile.read(settings.boxes, artifact.spec.crop)
        yield lambda frame, picture: boxes.regions(frame.item, frame.index, picture)
        return
    with _region_detector(settings) as detect:
        yield lambda frame, picture: detect(picture)


@contextmanager
def _region_detector(settings: Settings) -> Iterator[Callable[[Uint8], list[Region]]]:
    """Opens the detector; yields a function from a picture, (H, W, 3) uint8, BGR, to its regions."""
    options = settings.options
    with ExitStack() as stack:
        try:
            loading = load_detector(
                settings.detector, weights=settings.weights, threads=options.threads, trust=options.trust
            )
            detect = stack.enter_context(loading)
        except InputError as error:
            raise InputError(error.message, hint=f"{error.hint}; or name a file of boxes by --boxes FILE") from error
        yield lambda picture: regions_of(detect(picture), detect.detector.crop, picture)


class _ItemState:
    """State of one input from frame to frame.

    Attributes:
        failed: True after an error of the input.
    """

    def __init__(self, session: Session, artifact: Artifact, settings: Settings) -> None:
        self.failed = False
        self._session, self._spec, self._settings = session, artifact.spec, settings
        self._tracks, self._smoothed, self._time = Tracks(), dict[int | None, Smoothed](), 0.0

    def faces(self, frame: Frame, picture: Uint8, detect: FrameDetector) -> tuple[Face, ...]:
        """Computes the faces of the next frame of this input.

        Args:
            frame: The frame.
            picture: Picture of the frame, (H, W, 3) uint8, BGR.
            detect: Source of regions.
        """
        if frame.index is None:
            regions = detect(frame, picture) or []
            landmarks = self._predict(picture, [region.square for region in regions])
            return tuple(
                Face(region=region, landmarks=points) for region, points in zip(regions, landmarks, strict=True)
            )
        self._tracks = track(
            self._tracks,
            lambda: detect(frame, picture),
            lambda squares: self._predict(picture, squares),
            size=picture.shape[:2],
            crop=self._spec.crop,
            every=self._settings.every if self._settings.track else 1,
            follow=self._settings.track,
        )
        seconds, self._time = (frame.time or 0.0) - self._time, frame.time or 0.0
        return self._smooth(max(seconds, MIN_INTERVAL)) if self._settings.smooth else self._tracks.faces

    def _predict(self, picture: Uint8, squares: Sequence[Square]) -> Float64:
        """Runs the landmark network; see `predict_landmarks`."""
        return predict_landmarks(self._session, self._spec, picture, squares)

    def _smooth(self, seconds: float) -> tuple[Face, ...]:
        """Filters the landmarks of all faces; the tracker keeps the landmarks before the filter."""
        previous = self._smoothed
        self._smoothed = {
            face.track: smooth(
                previous.get(face.track),
                face.landmarks,
                seconds=seconds,
                size=max(1.0, float(np.ptp(face.landmarks, axis=0).max())),
            )
            for face in self._tracks.faces
        }
        return tuple(replace(face, landmarks=self._smoothed[face.track].points) for face in self._tracks.faces)
