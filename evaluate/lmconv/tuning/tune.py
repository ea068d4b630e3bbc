"""Tuning of one network for one target: the work of `lmconv tune`, and of `lmconv export --precision mixed`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lmconv import machine
from lmconv.building import effort
from lmconv.building.effort import Effort
from lmconv.building.plain import Plain
from lmconv.building.request import Conversion
from lmconv.errors import UsageError
from lmconv.faces.training import TrainingFaces
from lmconv.judging.loss import Budget
from lmconv.passes.int8 import settings_of
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, writing
from lmconv.tuning.faces import FOLDS, load_faces
from lmconv.tuning.memo import Memo
from lmconv.tuning.search import Candidate, Search, SearchResult
from lmconv.tuning.trials import Trials
from lmconv.types import Json, MixedPrecision
from lmconv.visual import tuning as pictures

TUNED = "tuned.json"
"""File of the search's document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceTuner:
    """Chooses the content of "mixed" by a search that measures time on the target and losses on faces.

    Attributes:
        faces: The annotated faces.
        budget: Largest loss allowed.
        seconds: Time for the search, seconds.
        fresh: True if measurements of earlier searches are to be repeated.
        effort: Effort of the measurements.
    """

    faces: TrainingFaces
    budget: Budget = field(default_factory=Budget)
    seconds: float = 300.0
    fresh: bool = False
    effort: Effort = effort.DEFAULT

    def tune(self, conversion: Conversion, target: str, note: Callable[[str], object]) -> tuple[MixedPrecision, Json]:
        """Searches for the fastest mix within the budget; writes `tuned.json` and two pictures to `search_folder`.

        Args:
            conversion: The network and its options.
            target: Name of the target.
            note: Receives messages about the progress.

        Returns:
            The chosen mix, and the document of the search; `pictures` holds the identities of the faces' pictures.

        Raises:
            UsageError: The weights are random, or ION is not defined for the network's number of points.
            InputError: The data set has too few faces, or the folder cannot be written.
        """
        return _tune(self, conversion, target, note)


def search_folder(out: Path, model: str, target: str) -> Path:
    """Returns the folder for the measurements, the document and the pictures of a search."""
    return out / model / f"{artifacts.SEARCH}{target}"


def _tune(
    tuner: FaceTuner, conversion: Conversion, target: str, note: Callable[[str], object]
) -> tuple[MixedPrecision, Json]:
    start = time.perf_counter()
    base, choices = conversion.base, conversion.choices
    spec = base.artifact.spec
    if not artifacts.trained(base.artifact):
        message = f"{spec.name} has random weights, and tuning measures ION, which needs trained weights"
        raise UsageError(message, hint="give --weights FILE")
    plugin = TARGETS.load(target)
    settings = settings_of(plugin.scheme(choices.quantised_for))
    faces = load_faces(tuner.faces.folder, tuner.faces.split, spec, base.model.SerializeToString(), settings.crops)
    folder = search_folder(conversion.out, spec.name, target)
    this_machine = machine.describe()
    conditions: Json = {
        "source": base.artifact.parents["source"]["sha256"],
        "plain": base.artifact.files["model.onnx"],
        "faces": faces.digest,
        "versions": this_machine["versions"],
        "cpu": [this_machine["cpu"], this_machine["cores"], this_machine["features"]],
        "without": sorted(choices.without),
        "compact_px": choices.compact_px,
        "settings": canonical({**asdict(settings), "float_layers": []}),
        "rewrites": {str(precision): list(passes) for precision, passes in plugin.rewrites.items()},
    }
    memo = Memo.load(folder, conditions, fresh=tuner.fresh)
    if memo.measurements:
        note(f"{len(memo.measurements)} measurements of an earlier search can be reused (--fresh measures again)")
    trials = Trials(
        conversion=conversion, target=plugin, faces=faces, settings=settings, memo=memo, effort=tuner.effort
    )
    result = Search(trials=trials, budget=tuner.budget, seconds=tuner.seconds, note=note).run()
    document = _document(result, base, tuner.budget, len(faces.crops.truth))
    document |= {"model": spec.name, "target": target, "folder": str(folder), "reused": memo.reused}
    document["pictures"] = list(faces.crops.pictures())
    document["seconds"] = round(time.perf_counter() - start, 1)
    title = f"{spec.name}, {target}"
    with writing(folder):
        (folder / TUNED).write_text(canonical(document), encoding="utf-8")
        front = pictures.front(title, document["points"], tuner.budget.drift)
        (folder / "front.svg").write_text(front, encoding="utf-8")
        (folder / "layers.svg").write_text(pictures.layers(title, document["layers"]), encoding="utf-8")
    return result.chosen.mix, document


def _document(result: SearchResult, base: Plain, budget: Budget, faces: int) -> Json:
    """Returns the document of a search; `faces` is the number of faces."""
    modules = artifacts.modules(base.artifact)
    return {
        "budget": asdict(budget),
        "faces": faces,
        "folds": FOLDS,
        "points": [
            {
                "name": candidate.name,
                "mix": asdict(candidate.mix),
                "ms": candidate.ms,
                "faster": candidate.faster.to_json(),
                "loss": candidate.loss.to_json(),
                "verdict": candidate.verdict,
                "why": candidate.why,
                "front": _is_pareto_optimal(candidate, result.candidates),
                "chosen": candidate is result.chosen,
            }
            for candidate in result.candidates
        ],
        "why": result.why,
        "layers": [
            {
                "layer": modules.get(layer.name, layer.name),
                "output": layer.name,
                "drift": layer.drift,
                "cost_ms": layer.cost_ms,
                "int8": layer.int8,
            }
            for layer in result.layers
        ],
    }


def _is_pareto_optimal(candidate: Candidate, candidates: tuple[Candidate, ...]) -> bool:
    """True if no other candidate has both a smaller time and a smaller mean drift."""
    drift = candidate.loss.drift.mean
    return not any(other.ms < candidate.ms and other.loss.drift.mean < drift for other in candidates)
