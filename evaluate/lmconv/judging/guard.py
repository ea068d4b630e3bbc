"""The guard of export: a new artefact must be no slower than its parent, and within a budget on faces.

The parent is the fp32 artefact of the same options and target; the parent of an fp32 artefact is the plain graph on
that target. fp16 exists for size and for GPUs: an fp16 artefact on a CPU must be smaller than its parent instead.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv.building import effort
from lmconv.building.assembling import build
from lmconv.building.effort import Effort
from lmconv.building.limits import beside
from lmconv.building.request import Conversion
from lmconv.building.trial import key
from lmconv.console import phase
from lmconv.errors import InputError, Refused
from lmconv.faces.calibration import evaluation_crops
from lmconv.faces.crops import FaceCrops
from lmconv.faces.training import TrainingFaces
from lmconv.inference.latency import Gain, faster, paced
from lmconv.judging import parity
from lmconv.judging.accuracy import bootstrap
from lmconv.judging.loss import Budget, loss, losses
from lmconv.machine import this_cpu
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import folder_name, interface_of
from lmconv.networks.outputs import Outputs
from lmconv.plugins import PASSES, TARGETS
from lmconv.scheme import scheme
from lmconv.store import artifact as artifacts
from lmconv.store import reference
from lmconv.store.files import digest, finite
from lmconv.types import Arrays, Artifact, Json, OpenOptions, Precision, Session, Target, Variant

if TYPE_CHECKING:
    import onnx

ALONE = OpenOptions(threads=1)


def _not_raced(artifact: Artifact) -> Json | None:
    """Returns None: no race has timed the artefact. A function, because the guard is sent to other processes."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Rules for refusing artefacts.

    Attributes:
        budget: Largest loss allowed on faces.
        faces: Faces on which the loss is measured; None if none are given.
        force: True if a refused artefact is written all the same, and marked.
        effort: Effort of the measurements.
        raced: Returns the speed of an artefact that a race has timed and chosen; None for every other artefact.
    """

    budget: Budget
    faces: TrainingFaces | None = None
    force: bool = False
    effort: Effort = effort.DEFAULT
    raced: Callable[[Artifact], Json | None] = _not_raced

    def judge(self, conversion: Conversion, place: Path) -> Callable[[Artifact], Json]:
        """Returns the judge of one network's artefacts.

        Args:
            conversion: The network and its options.
            place: A temporary folder for the parents of the artefacts.
        """
        return Judge(conversion=conversion, guard=self, place=place)


@dataclass(slots=True, kw_only=True)
class Judge:
    """Judges the artefacts of one network.

    Attributes:
        conversion: The network and its options.
        guard: The rules.
        place: A temporary folder for the parents of the artefacts.
    """

    conversion: Conversion
    guard: Guard
    place: Path
    _judged: set[str] = field(default_factory=set)
    _faces: tuple[FaceCrops, Outputs] | None = None

    def __call__(self, artifact: Artifact) -> Json:
        """Judges a finished artefact; returns the figures.

        Raises:
            Refused: The artefact is slower, or not smaller, or outside its budget.
        """
        target = TARGETS.load(artifact.target)
        with target.open(artifact, ALONE) as session:
            budget = self._budget(artifact, session)
            cost = self._cost(artifact, target, session)
        self._judged.add(artifact.digest)
        figures = {"budget": budget, **cost}
        reasons = [part.pop("refused") for part in figures.values() if "refused" in part]
        if not reasons:
            return figures
        if self.guard.force:
            return figures | {"forced": True, "reason": "; ".join(reasons)}
        what = f"{artifact.spec.name} as {artifact.target} {artifact.precision}"
        raise Refused(
            f"{what} {'; '.join(reasons)}",
            hint=f"it was not written{self._parent_hint(artifact)}; --force writes it all the same",
            figures=figures,
        )

    def _cost(self, artifact: Artifact, target: Target, session: Session) -> Json:
        """Judges the speed, or the size where the size counts."""
        if raced := self.guard.raced(artifact):
            return {"speed": raced}
        return self._size(artifact) if _by_size(artifact) else self._speed(artifact, target, session)

    def _parent_hint(self, artifact: Artifact) -> str:
        if artifact.precision == Precision.FP32:
            return "; --explain shows what each pass does"
        path = parent_path(self.conversion.out, artifact.spec.name, artifact)
        try:
            foreign = artifacts.read(path).parents["plain"] != artifact.parents["plain"] if path.exists() else False
        except InputError:
            foreign = True
        return "" if foreign else f"; its fp32 parent is {path}"

    def _parent(self, artifact: Artifact) -> Artifact:
        """Returns the parent of an artefact, built once for all artefacts with this parent."""
        lowered = artifact.precision != Precision.FP32
        if lowered and (exported := self._exported_parent(artifact)):
            return exported
        choices = self.conversion.choices
        engine = replace(choices.engine, cache=None, locked=False)  # the user's timing cache is not for the parent
        choices = replace(choices, recipe=None, mix=None, decisions={}, engine=engine)
        if not lowered:
            exact = TARGETS.load(artifact.target).exact.values()  # without these the parent may compute something else
            without = tuple(name for name in PASSES.names() if name not in exact)
            choices = replace(choices, compact_px=None, without=without)
        out = self.place / ("fp32" if lowered else "plain")
        path = parent_path(out, artifact.spec.name, artifact)
        if path.exists():
            return artifacts.read(path)
        return build(replace(self.conversion, out=out, choices=choices), _parent_variant(artifact))

    def _exported_parent(self, artifact: Artifact) -> Artifact | None:
        """Returns the fp32 artefact of the same target and input if this judge has judged it before, else None."""
        path = parent_path(self.conversion.out, artifact.spec.name, artifact)
        with contextlib.suppress(InputError):  # nothing is there, or an artefact of another version
            parent = artifacts.read(path)
            return parent if parent.digest in self._judged else None
        return None

    def _speed(self, artifact: Artifact, target: Target, session: Session) -> Json:
        if reason := session.execution_mismatch or _elsewhere(artifact):
            return {"speed": {"verdict": "not judged here", "reason": reason}}
        limit = self.guard.effort.slower
        figures: Json = {"against": "plain graph" if artifact.precision == Precision.FP32 else "fp32", "limit": limit}
        if artifact.precision == Precision.FP32 and self._graph(artifact) == self.conversion.base.model:
            return {"speed": figures | {"verdict": "passed", "reason": "it is the same"}}
        timed = self._raced(artifact, target)
        if timed is None or timed[0].low > limit:
            with phase("parent"):
                parent = self._parent(artifact)
            if (artifact.files, artifact.execution) == (parent.files, parent.execution):
                return {"speed": figures | {"verdict": "passed", "reason": "it is the same"}}
            timed = self._paced(artifact, session, parent)
        ratio, samples = timed
        batch = artifact.spec.batch or 1
        figures |= {"ratio": ratio.to_json(), "samples": samples, "threads": ALONE.threads, "batch": batch}
        if ratio.low <= limit:
            return {"speed": figures | {"verdict": "passed"}}
        low, allowed = beside(ratio.low, limit, ".2f")
        times = f"{ratio.median:.2f} [{low}, {ratio.high:.2f}] times"
        reason = f"takes {times} as long as {_named(artifact)}, allowed {allowed}"
        return {"speed": figures | {"verdict": "refused", "refused": reason}}

    def _raced(self, artifact: Artifact, target: Target) -> tuple[Gain, int] | None:
        """Returns the ratio of the times and the number of samples if a pass has timed artefact and parent together."""
        cache, steps = self.conversion.cache, artifact.recipe["passes"]
        graph, plain = self._graph(artifact), self.conversion.base.model
        if artifact.precision != Precision.FP32:
            exported = self._exported_parent(artifact)
            parent = self._graph(exported) if exported else None
        else:
            parent = None if {step["pass"] for step in steps} & {*target.exact.values()} else plain
        if graph is None or parent is None or artifact.precision == Precision.MIXED:
            return None
        keys = [key(target, artifact.precision, graph), key(target, Precision.FP32, parent)]
        times = cache.timings.together(keys)
        return None if times is None else (faster(*times), int(np.isfinite(times[0]).sum()))

    def _graph(self, artifact: Artifact) -> onnx.ModelProto | None:
        """Returns the graph of an artefact of this run that takes a tensor, see `GraphCache`; else None."""
        return self.conversion.cache.graphs.get((artifact.target, artifact.precision, artifact.digest))

    def _paced(self, artifact: Artifact, session: Session, parent: Artifact) -> tuple[Gain, int]:
        """Times an artefact and its parent; returns the ratio, and the number of samples."""
        inputs, effort = _inputs(artifact), self.guard.effort
        with phase("timing"), TARGETS.load(parent.target).open(parent, ALONE) as other:
            for _ in range(effort.guard_attempts):
                ratio, samples = _ratio(session, other, inputs, effort)
                if ratio.low <= effort.slower:
                    break
        return ratio, samples

    def _size(self, artifact: Artifact) -> Json:
        sizes = [artifacts.size(each) for each in (artifact, self._parent(artifact))]
        figures: Json = {"against": "fp32", "bytes": sizes, "ratio": sizes[0] / sizes[1]}
        reason = "fp16 is for size and for GPUs: on a CPU it is judged by size"
        speed = {"speed": {"verdict": "not judged here", "reason": reason}}
        if sizes[0] < sizes[1]:
            return {"size": figures | {"verdict": "passed"}, **speed}
        reason = f"has {sizes[0]:,} bytes, not fewer than the {sizes[1]:,} of fp32"
        return {"size": figures | {"verdict": "refused", "refused": reason}, **speed}

    def _budget(self, artifact: Artifact, session: Session) -> Json:
        if reason := self._unjudged(artifact) or session.execution_mismatch:
            return {"verdict": "not judged", "reason": reason}
        faces, expected = self._judged_on()
        with phase(f"judging on {len(faces.names)} faces"):
            outputs = parity.on_faces(session, artifact.spec, faces)
        pictures = faces.pictures()
        known = len(set(pictures).intersection(artifact.recipe.get("faces", ())))
        n = len(faces.names)
        figures: Json = {"faces": {"n": n, "pictures": len(pictures), "calibrated": known, "sha256": digest(pictures)}}
        budget = self.guard.budget
        if without_ion := _without_ion(artifact, faces):
            drift = bootstrap(parity.drift(outputs, expected, faces))
            verdict, reason = budget.judge_drift(drift)
            figures |= {"verdict": verdict, "reason": reason or without_ion, "drift": finite(asdict(drift))}
        else:
            lost = loss(losses(outputs, expected, faces))
            verdict, reason = budget.judge(lost)
            figures |= {"verdict": verdict, "reason": reason, "loss": lost.to_json()}
        figures |= {"allowed": asdict(budget)}
        return figures | ({"refused": f"is outside its budget: {reason}"} if verdict == "outside" else {})

    def _unjudged(self, artifact: Artifact) -> str:
        """Returns the reason why faces cannot judge an artefact; empty if faces can."""
        if self.guard.faces is None or self.conversion.crops is None:
            return "no annotated faces were given"
        if not head_of(artifact.spec).on_faces:
            return "it is a detector"
        return "" if artifacts.trained(artifact) else "its weights are random"

    def _judged_on(self) -> tuple[FaceCrops, Outputs]:
        """Returns the faces, and the outputs of the plain graph for them; only called if `_unjudged` is empty."""
        if self._faces is None:
            assert self.guard.faces
            base = self.conversion.base.artifact
            spec = base.spec
            with phase("cutting out faces"):
                faces = evaluation_crops(self.guard.faces.folder, spec, self.guard.faces.split)
            with phase("judging the plain graph"), TARGETS.load(base.target).open(base, OpenOptions()) as session:
                self._faces = faces, parity.on_faces(session, spec, faces)
        return self._faces


def _without_ion(artifact: Artifact, faces: FaceCrops) -> str:
    """Returns the reason why the faces have no ION for a network; empty if they have."""
    landmarks, points = artifact.spec.landmarks, faces.truth.shape[1]
    if landmarks != points:
        return f"drift only: the network finds {landmarks} points, the faces have {points}"
    return "" if scheme(landmarks) else f"drift only: ION is not defined for {landmarks} points"


def parent_path(out: Path, name: str, artifact: Artifact) -> Path:
    """Returns the folder of the fp32 artefact with the same target and input."""
    return out / name / folder_name(_parent_variant(artifact))


def _parent_variant(artifact: Artifact) -> Variant:
    return replace(artifacts.variant_of(artifact), precision=Precision.FP32)


def _by_size(artifact: Artifact) -> bool:
    return artifact.precision == Precision.FP16 and artifact.machine is None


def _elsewhere(artifact: Artifact) -> str:
    """Returns the reason if the speed here means nothing: the int8 graph is for another kind of CPU; else empty."""
    if artifact.machine:  # the machine of an engine was checked before loading
        return ""
    cpu = artifact.recipe.get("quantisation", {}).get("cpu")
    return f"it is made for {cpu}, and this is {this_cpu()}" if cpu not in (None, this_cpu()) else ""


def _named(artifact: Artifact) -> str:
    return "its plain graph" if artifact.precision == Precision.FP32 else "fp32"


def _inputs(artifact: Artifact) -> Arrays:
    """Returns the inputs of one run, from the seeded inputs in reference.npz."""
    inputs = dict(reference.read(artifact).inputs)
    name, batch = interface_of(artifact.spec).batched, artifact.spec.batch or 1
    return inputs | {name: inputs[name].repeat(-(-batch // len(inputs[name])), 0)[:batch]}


def _ratio(child: Session, parent: Session, inputs: Arrays, effort: Effort) -> tuple[Gain, int]:
    """Returns the ratio of the child's time to the parent's time, and the number of timed runs."""
    runs = [functools.partial(session.run, inputs) for session in (child, parent)]
    times = paced(runs, effort.guard_seconds, effort.guard_rounds)
    return faster(*times), times[0].size
