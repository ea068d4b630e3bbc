"""Opens a face detector: on its published networks, or on artefacts made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lmconv.data import Face
from lmconv.detecting.boxes import overlap
from lmconv.detection import DETECTORS, Detections, Detector, Run
from lmconv.errors import UsageError
from lmconv.inference.loading import usable
from lmconv.plugins import unknown
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.types import Float32, OpenOptions, Session, Uint8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finder:
    """A detector that is ready to run; call it with a picture.

    Attributes:
        detector: Which one; its `crop` is the square that suits its boxes.
        find: Takes a picture, (H, W, 3) uint8.
    """

    detector: Detector
    find: Callable[[Uint8], Detections]

    def __call__(self, picture: Uint8) -> Detections:
        """The faces of a picture, (H, W, 3) uint8, BGR, or grey, (H, W) or (H, W, 1); of any size but 0.

        Raises:
            ValueError: It is something else.
        """
        return self.find(_bgr(picture))


@contextmanager
def open_finder(named: str, *, weights: Path | None = None, threads: int = 0, trust: bool = False) -> Iterator[Finder]:
    """Opens a detector.

    Args:
        named: Its name: its published networks are run. Or the folders of artefacts of its networks, with commas
            between them.
        weights: A checkpoint, or a folder to look in first.
        threads: Intra-op threads; 0 leaves the number to the runtime.
        trust: See `OpenOptions`.

    Raises:
        UsageError: There is no such detector, or the artefacts are not all its networks.
        InputError: Weights or an artefact are missing or broken.
        MissingRuntime: What runs them is not here.
    """
    with ExitStack() as stack:
        if named in DETECTORS.names():
            detector = DETECTORS.load(named)
            if detector.open is not None:
                yield Finder(detector=detector, find=detector.open(weights, threads))
                return
            sources = [resolve(network, weights=weights) for network in detector.networks]
            openers: list[Callable[[], Session]] = [partial(open_source, source, threads=threads) for source in sources]
        else:
            detector, openers = _artefacts(named, OpenOptions(threads=threads, trust=trust))
        runs: list[Run] = [stack.enter_context(opened()).run for opened in openers]
        yield Finder(detector=detector, find=lambda picture: detector.find(runs, picture))


@contextmanager
def chosen(boxes: str, *, weights: Path | None = None, trust: bool = False) -> Iterator[Finder | None]:
    """Opens what `--boxes` names: None for "landmarks", and of "detector:NAME" what `open_finder` takes as that."""
    kind, _, named = boxes.partition(":")
    if boxes == "landmarks":
        yield None
    elif kind == "detector" and named:
        folder = weights if weights and weights.is_dir() else None  # a file is the checkpoint of another network
        with open_finder(named, weights=folder, trust=trust) as finder:
            yield finder
    else:
        raise UsageError(f"--boxes {boxes!r} cannot be read", hint="landmarks, detector:NAME or detector:ARTIFACT,...")


LEAST = 0.3
"""How far the box of an annotated face overlaps with that of its points, at least."""


def located(find: Callable[[Uint8], Detections]) -> Callable[[Face, Uint8], Float32 | None]:
    """Gives each annotated face the box that overlaps most with the tight one of its points.

    A picture is searched once, and what was found there kept.

    Returns:
        A function for the parameter `boxes` of `load_face_crops`.
    """
    known: dict[tuple[Path, int | None], Float32] = {}

    def box(face: Face, picture: Uint8) -> Float32 | None:
        place = face.image, face.frame
        if place not in known:
            known[place] = find(picture).boxes
        tight = np.concatenate([face.points.min(axis=0), face.points.max(axis=0)])
        shares = overlap(tight, known[place])
        return known[place][shares.argmax()] if (shares > LEAST).any() else None

    return box


def _artefacts(named: str, options: OpenOptions) -> tuple[Detector, list[Callable[[], Session]]]:
    """The detector whose networks these are, and what opens each, in its order."""
    paths = [Path(part) for part in named.split(",")]
    if not any(path.exists() for path in paths):
        raise unknown("detector", named, DETECTORS.names())
    found = {artifact.spec.backbone: artifact for artifact in map(artifacts.read, paths)}
    known = DETECTORS.load_all()
    detector = next((one for one in known.values() if one.networks and set(one.networks) == found.keys()), None)
    if detector is None or len(paths) != len(found):
        sets = "; ".join(", ".join(one.networks) for one in known.values() if one.networks)
        raise UsageError(f"{named} are not the networks of a detector", hint=f"artefacts, with commas, of: {sets}")
    ordered = [found[network] for network in detector.networks]
    return detector, [partial(usable(artifact, options).open, artifact, options) for artifact in ordered]


def _bgr(picture: Uint8) -> Uint8:
    grey = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    if grey:
        picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"a picture of {picture.dtype} {picture.shape}, not of uint8 (H, W, 3)")
    return picture
