"""Loads a face detector: from the published weights of its networks, or from artefacts of these networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lmconv.detection import DETECTORS, Detections, Detector, Run
from lmconv.errors import UsageError
from lmconv.inference.loading import usable
from lmconv.plugins import unknown
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.types import OpenOptions, Session, Uint8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedDetector:
    """A detector that is ready to run; call it with a picture.

    Attributes:
        detector: The plug-in. Its `crop` is the square that suits its boxes.
        detect: Detects the faces of a picture, (H, W, 3) uint8, BGR.
    """

    detector: Detector
    detect: Callable[[Uint8], Detections]

    def __call__(self, picture: Uint8) -> Detections:
        """Detects the faces of a picture.

        Args:
            picture: (H, W, 3) uint8, BGR; or grey, (H, W) or (H, W, 1) uint8. H and W are at least 1.

        Raises:
            ValueError: The array has another dtype or shape.
        """
        return self.detect(_bgr(picture))


@contextmanager
def load_detector(
    name: str, *, weights: Path | None = None, threads: int = 0, trust: bool = False
) -> Iterator[LoadedDetector]:
    """Loads a detector; the networks are freed when the context ends.

    Args:
        name: Name of the detector, which then runs its published networks. Or the folders of the artefacts of all its
            networks, in any order, separated by commas.
        weights: A checkpoint, or the first folder to search for checkpoints.
        threads: Intra-op threads of each network; 0 leaves the number to the runtime.
        trust: See `OpenOptions`.

    Raises:
        UsageError: No detector has this name, or the artefacts are not exactly the networks of one detector.
        InputError: Weights or an artefact are missing or broken.
        MissingRuntime: The runtime of a network is not installed.
    """
    with ExitStack() as stack:
        if name in DETECTORS.names():
            detector = DETECTORS.load(name)
            if detector.open is not None:
                yield LoadedDetector(detector=detector, detect=detector.open(weights, threads))
                return
            sources = [resolve(network, weights=weights) for network in detector.networks]
            openers: list[Callable[[], Session]] = [partial(open_source, source, threads=threads) for source in sources]
        else:
            detector, openers = _from_artifacts(name, OpenOptions(threads=threads, trust=trust))
        runs: list[Run] = [stack.enter_context(open_session()).run for open_session in openers]
        yield LoadedDetector(detector=detector, detect=lambda picture: detector.find(runs, picture))


@contextmanager
def load_boxes_option(
    option: str, *, weights: Path | None = None, trust: bool = False
) -> Iterator[LoadedDetector | None]:
    """Loads the detector that `--boxes` names.

    Args:
        option: "landmarks", or "detector:" followed by the `name` of `load_detector`.
        weights: The first folder to search for checkpoints. A file is ignored: it is the checkpoint of the landmark
            network.
        trust: See `OpenOptions`.

    Yields:
        The detector; None for "landmarks".

    Raises:
        UsageError: The option has another form, or see `load_detector`.
        InputError: See `load_detector`.
        MissingRuntime: See `load_detector`.
    """
    kind, _, name = option.partition(":")
    if option == "landmarks":
        yield None
    elif kind == "detector" and name:
        folder = weights if weights and weights.is_dir() else None
        with load_detector(name, weights=folder, trust=trust) as detector:
            yield detector
    else:
        raise UsageError(
            f"--boxes {option!r} is not a source of boxes", hint="use landmarks, detector:NAME or detector:ARTIFACT,..."
        )


def _from_artifacts(paths: str, options: OpenOptions) -> tuple[Detector, list[Callable[[], Session]]]:
    """Returns the detector whose networks the artefacts are, and a function that opens each, in the detector's order.

    Args:
        paths: Folders of the artefacts, separated by commas.
        options: Options for opening the artefacts.
    """
    folders = [Path(part) for part in paths.split(",")]
    if not any(folder.exists() for folder in folders):
        raise unknown("detector", paths, DETECTORS.names())
    by_network = {artifact.spec.backbone: artifact for artifact in map(artifacts.read, folders)}
    plugin_detectors = DETECTORS.load_all()
    candidates = [detector for detector in plugin_detectors.values() if detector.networks]
    matches = [detector for detector in candidates if set(detector.networks) == by_network.keys()]
    if not matches or len(folders) != len(by_network):
        sets = "; ".join(", ".join(detector.networks) for detector in candidates)
        raise UsageError(
            f"{paths}: not the networks of a detector", hint=f"name artefacts, separated by commas, of one of: {sets}"
        )
    ordered = [by_network[network] for network in matches[0].networks]
    return matches[0], [partial(usable(artifact, options).open, artifact, options) for artifact in ordered]


def _bgr(picture: Uint8) -> Uint8:
    """Returns a picture as (H, W, 3) uint8; repeats the channel of a grey picture."""
    is_grey = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    if is_grey:
        picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"the picture is {picture.dtype} {picture.shape}, not uint8 (H, W, 3)")
    return picture
