"""Tuning of one network: the work of `lmconv tune`, and of `lmconv export --precision mixed`.

Every target is searched alone. The finalists of all targets then run in one race.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lmconv.building import effort
from lmconv.building.effort import Effort
from lmconv.building.plain import Plain
from lmconv.building.request import Conversion
from lmconv.console import phase
from lmconv.errors import GateFailed, LmconvError
from lmconv.faces.training import TrainingFaces
from lmconv.judging.loss import Budget
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, digest, replace_text, writing
from lmconv.tuning.documents import answer_of, chosen_of, point_of, speed_of
from lmconv.tuning.faces import FOLDS, FoldedFaces
from lmconv.tuning.race import Choice, choose, judged
from lmconv.tuning.search import Found, Search
from lmconv.tuning.setting import folded_faces, race_times, search_folder, trials_on
from lmconv.tuning.trials import Trials, int8_layers
from lmconv.types import Artifact, Json, MixedPrecision, Precision
from lmconv.visual import tuning as pictures

TUNED = "tuned.json"
"""File of the search's document."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceTuner:
    """Chooses the content of "mixed" by a search that measures time on the target and losses on faces.

    Attributes:
        faces: The annotated faces.
        targets: Targets of the race; empty for the target of each call alone.
        budget: Largest loss allowed.
        seconds: Time for the search of a target, seconds.
        fresh: True if measurements of earlier searches are to be repeated.
        sensitivity: True to measure the drift of every layer even if the search does not need it.
        effort: Effort of the measurements.
    """

    faces: TrainingFaces
    targets: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    seconds: float = 180.0
    fresh: bool = False
    sensitivity: bool = False
    effort: Effort = effort.DEFAULT
    _tuned: dict[tuple[str, str], Json | LmconvError] = field(default_factory=dict)

    def tune(self, conversion: Conversion, target: str, note: Callable[[str], object]) -> tuple[MixedPrecision, Json]:
        """Searches for the fastest mix within the budget; writes `tuned.json` and two pictures to `search_folder`.

        A search with the same network, faces, budget, machine and versions is not repeated: the second call returns the
        document of the first.

        Args:
            conversion: The network and its options.
            target: Name of the target.
            note: Receives messages about the progress.

        Returns:
            The chosen mix, and the document of the search; `pictures` holds the identities of the faces' pictures.

        Raises:
            UsageError: The weights are random, or ION is not defined for the network's number of points.
            InputError: The data set has too few faces, or the folder cannot be written.
            GateFailed: No mix is within the budget.
        """
        network = conversion.base.artifact.digest
        if (network, target) not in self._tuned:
            targets = self.targets or (target,)
            documents = Tuning(tuner=self, conversion=conversion, targets=targets, note=note).documents()
            self._tuned.update({(network, name): document for name, document in documents.items()})
        document = self._tuned[network, target]
        if isinstance(document, LmconvError):
            raise document
        return MixedPrecision.of(chosen_of(document)["mix"]), dict(document)

    def raced(self, artifact: Artifact) -> Json | None:
        """Returns the speed of a tuned artefact from its race, in the form of `lmconv.judging.guard`; else None.

        The race has timed crops as tensors: an artefact that takes other inputs is not known.
        """
        if artifact.precision != Precision.MIXED or artifact.spec.io != "tensor":
            return None
        made_of = (artifact.parents["source"]["sha256"], artifact.target)
        for document in self._tuned.values():
            if not isinstance(document, LmconvError) and (document["source"], document["target"]) == made_of:
                return speed_of(chosen_of(document), self.effort)
        return None


@dataclass(slots=True, kw_only=True)
class Tuning:
    """Tuning of one network for some targets.

    Attributes:
        tuner: The options.
        conversion: The network and its options.
        targets: Names of the targets.
        note: Receives messages about the progress.
    """

    tuner: FaceTuner
    conversion: Conversion
    targets: Sequence[str]
    note: Callable[[str], object]
    _start: float = field(default_factory=time.perf_counter)

    def documents(self) -> dict[str, Json | LmconvError]:
        """Returns the document of each target, or the error that ended its search."""
        tuner = self.tuner
        with phase("cropping faces"):
            faces = folded_faces(self.conversion, tuner.faces)
        trials = {
            name: trials_on(self.conversion, name, faces, fresh=tuner.fresh, effort=tuner.effort)
            for name in self.targets
        }
        wanted = [digest([each.memo.conditions, asdict(tuner.budget)]) for each in trials.values()]
        if not tuner.fresh and (stored := self._stored(wanted)):
            self.note("the result of an earlier search is reused (--fresh searches again)")
            return stored
        documents: dict[str, Json | LmconvError] = {}
        found: dict[str, Found] = {}
        for name, each in trials.items():
            try:
                found[name] = self._searched(each)
            except LmconvError as error:
                documents[name] = error
        return documents | (self._raced({name: trials[name] for name in found}, found, faces) if found else {})

    def _stored(self, wanted: Sequence[str]) -> dict[str, Json | LmconvError] | None:
        """Returns the documents on disk if they belong to these conditions and to one race."""
        documents: dict[str, Json | LmconvError] = {}
        races = set()
        for name, conditions in zip(self.targets, wanted, strict=True):
            try:
                text = (self._folder(name) / TUNED).read_text(encoding="utf-8")
                document: Json = json.loads(text)
                enough = document["complete"] or document["seconds_allowed"] >= self.tuner.seconds
                enough &= bool(document["layers"]) or not self.tuner.sensitivity
                if document["conditions"] != conditions or not enough:
                    return None
                races.add(document["race"])
            except (OSError, ValueError, KeyError, TypeError):
                return None
            documents[name] = document | {"repeated": True}
        return documents if len(races) == 1 else None

    def _folder(self, target: str) -> Path:
        return search_folder(self.conversion, target)

    def _searched(self, trials: Trials) -> Found:
        if trials.memo.measurements:
            count = len(trials.memo.measurements)
            self.note(f"{count} measurements of an earlier search can be reused (--fresh measures again)")
        with phase(f"searching for {trials.target.name}"):
            return Search(
                trials=trials,
                budget=self.tuner.budget,
                seconds=self.tuner.seconds,
                sensitivity=self.tuner.sensitivity,
                note=self.note,
            ).run()

    def _raced(
        self, trials: dict[str, Trials], found: dict[str, Found], faces: FoldedFaces
    ) -> dict[str, Json | LmconvError]:
        """Races the finalists of all targets; writes and returns a document for each target."""
        tuner, start = self.tuner, self._start
        entrants = [entrant for each in found.values() for entrant in each.finalists]
        times = race_times(self.conversion, entrants, fresh=tuner.fresh, effort=tuner.effort, note=self.note)
        candidates = judged(entrants, times, tuner.budget, self.note)
        chosen = {name: choose([each for each in candidates if each.target == name]) for name in found}
        best = choose([each.winner for each in chosen.values() if each] if len(found) > 1 else candidates)
        shared: Json = {
            "model": self.conversion.base.artifact.spec.name,
            "source": self.conversion.base.artifact.parents["source"]["sha256"],
            "budget": asdict(tuner.budget),
            "faces": len(faces.crops.truth),
            "folds": FOLDS,
            "pictures": list(faces.crops.pictures()),
            "race": digest([entrant.trials.memo.conditions for entrant in entrants]),
            "answer": answer_of(best) if best else None,
            "plain_ms": float(np.median(times[0])),
            "seconds": round(time.perf_counter() - start, 1),
            "seconds_allowed": tuner.seconds,
        }
        documents: dict[str, Json | LmconvError] = {}
        for name, each in trials.items():
            own = tuple(candidate for candidate in candidates if candidate.target == name)
            choice = chosen[name]
            if choice is None:
                message = f"no form of {shared['model']} for {name} is within the budget"
                documents[name] = GateFailed(message, hint=f"{own[0].name}: {own[0].why}")
                continue
            target: Json = {
                "target": name,
                "folder": str(self._folder(name)),
                "reused": each.memo.reused,
                "complete": found[name].complete,
                "conditions": digest([each.memo.conditions, asdict(tuner.budget)]),
                "points": [point_of(candidate, own, choice.winner) for candidate in own],
                "why": choice.why,
                "layers": _layers(found[name], choice, self.conversion.base, each),
            }
            documents[name] = shared | target
            _write(self._folder(name), shared | target)
        return documents


def _layers(found: Found, choice: Choice, base: Plain, trials: Trials) -> list[Json]:
    modules = artifacts.modules(base.artifact)
    int8 = set(int8_layers(trials, choice.winner.mix)) if found.layers else set()
    return [
        {
            "layer": modules.get(layer.name, layer.name),
            "output": layer.name,
            "drift": layer.drift,
            "cost_ms": layer.cost_ms,
            "int8": layer.name in int8,
        }
        for layer in found.layers
    ]


def _write(folder: Path, document: Json) -> None:
    """Writes the document of a search and its pictures.

    Raises:
        InputError: The folder cannot be written.
    """
    title = f"{document['model']}, {document['target']}"
    front = pictures.front(title, document["points"], document["budget"]["drift"])
    with writing(folder):
        (folder / "front.svg").write_text(front, encoding="utf-8")
        if document["layers"]:
            (folder / "layers.svg").write_text(pictures.layers(title, document["layers"]), encoding="utf-8")
        replace_text(folder / TUNED, canonical(document))
