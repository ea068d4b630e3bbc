"""Tuning of one network for one target: the work of `lmconv tune`, and of `lmconv export --precision mixed`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lmconv import machine
from lmconv.building.plain import Plain
from lmconv.building.request import Conversion
from lmconv.errors import UsageError
from lmconv.faces.training import TrainingFaces
from lmconv.judging.loss import Budget
from lmconv.passes.int8 import settings_of
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, writing
from lmconv.tuning import picture
from lmconv.tuning.faces import FOLDS, load
from lmconv.tuning.memo import Memo
from lmconv.tuning.search import Found, Point, Search
from lmconv.tuning.trials import Trials
from lmconv.types import Json, Mix

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
    """

    faces: TrainingFaces
    budget: Budget = field(default_factory=Budget)
    seconds: float = 300.0
    fresh: bool = False

    def tune(self, conversion: Conversion, target: str, note: Callable[[str], object]) -> tuple[Mix, Json]:
        """Searches for the fastest mix within the budget; writes `tuned.json` and two pictures to `folder(…)`.

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


def folder(out: Path, model: str, target: str) -> Path:
    """Returns the folder for the measurements, the document and the pictures of a search."""
    return out / model / f"tune-{target}"


def _tune(tuner: FaceTuner, conversion: Conversion, target: str, note: Callable[[str], object]) -> tuple[Mix, Json]:
    start = time.perf_counter()
    base, choices = conversion.base, conversion.choices
    spec = base.artifact.spec
    if not artifacts.trained(base.artifact):
        raise UsageError(f"{spec.name} has random weights, and no ION to tune by", hint="give trained weights")
    plugin = TARGETS.load(target)
    settings = settings_of(plugin.scheme(choices.quantised_for))
    judged = load(tuner.faces.folder, tuner.faces.split, spec, base.model.SerializeToString(), settings.crops)
    kept = folder(conversion.out, spec.name, target)
    here = machine.describe()
    about: Json = {
        "source": base.artifact.parents["source"]["sha256"],
        "plain": base.artifact.files["model.onnx"],
        "faces": judged.digest,
        "versions": here["versions"],
        "cpu": [here["cpu"], here["cores"], here["features"]],
        "without": sorted(choices.without),
        "compact_px": choices.compact_px,
        "settings": canonical({**asdict(settings), "float_layers": []}),
        "rewrites": {str(precision): list(passes) for precision, passes in plugin.rewrites.items()},
    }
    memo = Memo.open(kept, about, fresh=tuner.fresh)
    if memo.known:
        note(f"{len(memo.known)} measurements of an earlier search are taken over (--fresh makes them anew)")
    trials = Trials(conversion=conversion, target=plugin, faces=judged, settings=settings, memo=memo)
    found = Search(trials=trials, budget=tuner.budget, seconds=tuner.seconds, note=note).run()
    document = _document(found, base, tuner.budget, len(judged.crops.truth))
    document |= {"model": spec.name, "target": target, "folder": str(kept), "reused": memo.reused}
    document["pictures"] = list(judged.crops.pictures())
    document["seconds"] = round(time.perf_counter() - start, 1)
    title = f"{spec.name}, {target}"
    with writing(kept):
        (kept / TUNED).write_text(canonical(document), encoding="utf-8")
        (kept / "front.svg").write_text(picture.front(title, document["points"], tuner.budget), encoding="utf-8")
        (kept / "layers.svg").write_text(picture.layers(title, document["layers"]), encoding="utf-8")
    return found.chosen.mix, document


def _document(found: Found, base: Plain, budget: Budget, faces: int) -> Json:
    modules = artifacts.modules(base.artifact)
    return {
        "budget": asdict(budget),
        "faces": faces,
        "folds": FOLDS,
        "points": [
            {
                "name": point.name,
                "mix": asdict(point.mix),
                "ms": point.ms,
                "faster": point.faster.to_json(),
                "loss": point.loss.to_json(),
                "verdict": point.verdict,
                "why": point.why,
                "front": _on_front(point, found.points),
                "chosen": point is found.chosen,
            }
            for point in found.points
        ],
        "why": found.why,
        "layers": [
            {
                "layer": modules.get(layer.name, layer.name),
                "output": layer.name,
                "drift": layer.drift,
                "cost_ms": layer.cost_ms,
                "int8": layer.int8,
            }
            for layer in found.layers
        ],
    }


def _on_front(point: Point, points: tuple[Point, ...]) -> bool:
    """True if no other candidate has both a smaller time and a smaller mean drift."""
    return not any(other.ms < point.ms and other.loss.drift.mean < point.loss.drift.mean for other in points)
