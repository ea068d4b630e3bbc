"""Setting of a search or a race: the faces, the measurements on each target, and the times of all entrants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv import machine
from lmconv.building.effort import Effort
from lmconv.building.request import Conversion
from lmconv.building.trial import timed_together
from lmconv.console import phase
from lmconv.errors import UsageError
from lmconv.faces.training import TrainingFaces
from lmconv.graph.denormals import flushed
from lmconv.passes.int8 import settings_of
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, digest
from lmconv.tuning.faces import FoldedFaces, load_faces
from lmconv.tuning.memo import Memo
from lmconv.tuning.race import Entrant, Times
from lmconv.tuning.trials import Trials, key
from lmconv.types import Json, Precision

if TYPE_CHECKING:
    pass

RACE = "race"
"""End of the name of the folder with the times of races, where the name of a target stands otherwise."""


def search_folder(conversion: Conversion, target: str) -> Path:
    """Returns the folder for the measurements, the document and the pictures of a search."""
    return conversion.out / conversion.base.artifact.spec.name / f"{artifacts.SEARCH}{target}"


def folded_faces(conversion: Conversion, faces: TrainingFaces) -> FoldedFaces:
    """Returns the faces for a network, see `load_faces`.

    Raises:
        UsageError: The weights are random, or ION is not defined for the network's number of points.
        InputError: The data set has too few faces.
    """
    base, crops = conversion.base, conversion.crops
    if not artifacts.trained(base.artifact):
        message = f"{base.artifact.spec.name} has random weights, and tuning measures ION, which needs trained weights"
        raise UsageError(message, hint="give --weights FILE")
    assert crops
    return load_faces(faces.folder, faces.split, base, crops)


def trials_on(conversion: Conversion, target: str, faces: FoldedFaces, *, fresh: bool, effort: Effort) -> Trials:
    """Returns the measurements of a network on a target, with those that are on disk.

    Args:
        conversion: The network and its options.
        target: Name of the target.
        faces: The annotated faces.
        fresh: True to discard stored measurements.
        effort: Effort of the measurements.

    Raises:
        InputError: The folder of the measurements cannot be written.
    """
    choices, plugin = conversion.choices, TARGETS.load(target)
    settings = settings_of(plugin.scheme(choices.quantised_for))
    conditions: Json = {
        **_machine_and_network(conversion),
        "faces": faces.digest,
        "folds": int(faces.folds.max()) + 1,
        "without": sorted(choices.without),
        "compact_px": choices.compact_px,
        "settings": canonical({**asdict(settings), "float_layers": []}),
        "rewrites": {str(precision): list(passes) for precision, passes in plugin.rewrites.items()},
    }
    memo = Memo.load(search_folder(conversion, target), conditions, fresh=fresh)
    return Trials(conversion=conversion, target=plugin, faces=faces, settings=settings, memo=memo, effort=effort)


def race_times(
    conversion: Conversion,
    entrants: Sequence[Entrant],
    *,
    fresh: bool,
    effort: Effort,
    note: Callable[[str], object] = lambda text: None,
) -> Times:
    """Times the plain graph without denormal numbers, in ONNX Runtime fp32, and all entrants in the same rounds.

    Args:
        conversion: The network and its options.
        entrants: The entrants, of any targets.
        fresh: True to repeat a race that is on disk.
        effort: Effort of the measurements.
        note: Receives a message about the progress.
    """

    def measure() -> Json:
        note(f"timing {len(entrants)} candidates and the plain graph in turn, up to {effort.race_seconds:.0f} s")
        artifact = conversion.base.artifact
        plain = (TARGETS.load(artifact.target), flushed(conversion.base.model)[0], Precision.FP32)
        graphs = [plain, *(entrant.trials.contestant(entrant.mix) for entrant in entrants)]
        with phase(f"timing {len(graphs)} graphs in turn"):
            times = timed_together(
                artifact, graphs, effort.race_seconds, rounds=effort.race_rounds, clock=_clock(entrants)
            )
        return {"ms": [np.median(each, axis=1).tolist() for each in times]}

    memo = Memo.load(search_folder(conversion, RACE), _machine_and_network(conversion), fresh=fresh)
    runners = [[entrant.trials.memo.conditions, key(entrant.mix)] for entrant in entrants]
    return [np.array(each) for each in memo.get(digest(runners), measure)["ms"]]


def _clock(entrants: Sequence[Entrant]) -> Callable[[], int]:
    """Returns one clock for all targets: wall time if any target needs wall time."""
    clocks = [entrant.trials.target.clock for entrant in entrants]
    return time.process_time_ns if all(clock is time.process_time_ns for clock in clocks) else time.perf_counter_ns


def _machine_and_network(conversion: Conversion) -> Json:
    here, artifact = machine.describe(), conversion.base.artifact
    return {
        "source": artifact.parents["source"]["sha256"],
        "plain": artifact.files["model.onnx"],
        "versions": here["versions"],
        "cpu": [here["cpu"], here["cores"], here["features"]],
    }
