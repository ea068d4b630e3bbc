"""What an artefact is held to before it is put in place: no slower than its parent, and within a budget on faces.

Its parent is what the same choices give in fp32 on the same target; that of fp32 is the plain graph on that target.
fp16 exists for size and for GPUs: where it runs on a CPU, it has to be smaller than its parent instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lmconv.building.assembling import build
from lmconv.building.limits import SLOWER
from lmconv.building.request import Conversion
from lmconv.errors import InputError, Refused
from lmconv.faces.calibration import evaluation_crops
from lmconv.faces.crops import FaceCrops
from lmconv.faces.training import TrainingFaces
from lmconv.inference.latency import Gain, faster, paced
from lmconv.judging import parity
from lmconv.judging.loss import Budget, loss, losses
from lmconv.machine import this_cpu
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import folder_name, interface_of
from lmconv.networks.outputs import Outputs
from lmconv.plugins import PASSES, TARGETS
from lmconv.scheme import scheme
from lmconv.store import artifact as artifacts
from lmconv.store import reference
from lmconv.store.files import digest
from lmconv.types import Arrays, Artifact, Json, OpenOptions, Precision, Session, Target, Variant

RUNS, SECONDS = 200, 20.0
"""How often both are timed, or for how long: whichever comes first."""
ATTEMPTS = 2
"""How often an artefact has to be found slower: a neighbour on the machine may have come between."""
ALONE = OpenOptions(threads=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Rules for refusing artefacts.

    Attributes:
        budget: Largest loss allowed on faces.
        faces: Faces on which the loss is measured; None if none are given.
        force: True if a refused artefact is written all the same, and marked.
    """

    budget: Budget
    faces: TrainingFaces | None = None
    force: bool = False

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
    _faces: tuple[FaceCrops, Outputs] | None = None

    def __call__(self, artifact: Artifact) -> Json:
        """Judges a finished artefact; returns the figures.

        Raises:
            Refused: The artefact is slower, or not smaller, or outside its budget.
        """
        target = TARGETS.load(artifact.target)
        with target.open(artifact, ALONE) as session:
            budget = self._budget(artifact, session)
            cost = self._size(artifact) if _by_size(artifact) else self._speed(artifact, target, session)
        figures = {"budget": budget, **cost}
        reasons = [part.pop("refused") for part in figures.values() if "refused" in part]
        if not reasons:
            return figures
        if self.guard.force:
            return figures | {"forced": True, "reason": "; ".join(reasons)}
        what = f"{artifact.spec.name} as {artifact.target} {artifact.precision}"
        raise Refused(
            f"{what} {'; '.join(reasons)}",
            hint=f"it was not written{self._said_of_parent(artifact)}; --force writes it all the same",
            figures=figures,
        )

    def _said_of_parent(self, artifact: Artifact) -> str:
        if artifact.precision == Precision.FP32:
            return "; --explain shows what each pass does"
        path = parent_path(self.conversion.out, artifact.spec.name, artifact)
        try:
            foreign = artifacts.read(path).parents["plain"] != artifact.parents["plain"] if path.exists() else False
        except InputError:
            foreign = True
        return "" if foreign else f"; its fp32 parent is {path}"

    def _parent(self, artifact: Artifact) -> Artifact:
        """What it is compared with, made once for all that need it."""
        lowered = artifact.precision != Precision.FP32
        choices = self.conversion.choices
        engine = replace(choices.engine, cache=None, locked=False)  # the user's timing cache is not for the parent
        choices = replace(choices, recipe=None, mix=None, engine=engine)
        if not lowered:
            choices = replace(choices, compact_px=None, without=tuple(PASSES.names()))
        out = self.place / ("fp32" if lowered else "plain")
        path = parent_path(out, artifact.spec.name, artifact)
        if path.exists():
            return artifacts.read(path)
        return build(replace(self.conversion, out=out, choices=choices), _parent_variant(artifact))

    def _speed(self, artifact: Artifact, target: Target, session: Session) -> Json:
        if reason := session.execution_mismatch or _elsewhere(artifact):
            return {"speed": {"verdict": "not judged here", "reason": reason}}
        parent = self._parent(artifact)
        found: Json = {"against": "plain graph" if artifact.precision == Precision.FP32 else "fp32", "limit": SLOWER}
        if (artifact.files, artifact.execution) == (parent.files, parent.execution):
            return {"speed": found | {"verdict": "passed", "reason": "it is the same"}}
        inputs = _inputs(artifact)
        with target.open(parent, ALONE) as other:
            for _ in range(ATTEMPTS):
                ratio, samples = _ratio(session, other, inputs)
                if ratio.low <= SLOWER:
                    break
        batch = artifact.spec.batch or 1
        found |= {"ratio": ratio.to_json(), "samples": samples, "threads": ALONE.threads, "batch": batch}
        if ratio.low <= SLOWER:
            return {"speed": found | {"verdict": "passed"}}
        times = f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times"
        said = f"takes {times} as long as {_named(artifact)}, allowed {SLOWER:g}"
        return {"speed": found | {"verdict": "refused", "refused": said}}

    def _size(self, artifact: Artifact) -> Json:
        sizes = [artifacts.size(each) for each in (artifact, self._parent(artifact))]
        found: Json = {"against": "fp32", "bytes": sizes, "ratio": sizes[0] / sizes[1]}
        reason = "fp16 is for size and for GPUs: on a CPU it is judged by size"
        speed = {"speed": {"verdict": "not judged here", "reason": reason}}
        if sizes[0] < sizes[1]:
            return {"size": found | {"verdict": "passed"}, **speed}
        said = f"has {sizes[0]:,} bytes, not fewer than the {sizes[1]:,} of fp32"
        return {"size": found | {"verdict": "refused", "refused": said}, **speed}

    def _budget(self, artifact: Artifact, session: Session) -> Json:
        if reason := self._unjudged(artifact) or session.execution_mismatch:
            return {"verdict": "not judged", "reason": reason}
        faces, expected = self._judged_on()
        lost = loss(losses(parity.on_faces(session, artifact.spec, faces), expected, faces))
        verdict, reason = self.guard.budget.judge(lost)
        pictures = faces.pictures()
        known = len(set(pictures).intersection(artifact.recipe.get("faces", ())))
        found = {"verdict": verdict, "reason": reason, "allowed": asdict(self.guard.budget), "loss": lost.to_json()}
        found["faces"] = {"n": lost.n, "pictures": len(pictures), "calibrated": known, "sha256": digest(pictures)}
        return found | ({"refused": f"is outside its budget: {reason}"} if verdict == "outside" else {})

    def _unjudged(self, artifact: Artifact) -> str:
        """Why nothing can be said of its landmarks on faces; empty where it can."""
        if self.guard.faces is None or self.conversion.crops is None:
            return "no annotated faces were given"
        if not head_of(artifact.spec).on_faces:
            return "it is a detector"
        if not artifacts.trained(artifact):
            return "its weights are random"
        return "" if scheme(artifact.spec.landmarks) else f"ION is not defined for {artifact.spec.landmarks} points"

    def _judged_on(self) -> tuple[FaceCrops, Outputs]:
        """The faces, and what the network says of them; `_unjudged` has seen that there are some."""
        if self._faces is None:
            assert self.guard.faces
            base = self.conversion.base.artifact
            spec = base.spec
            faces = evaluation_crops(self.guard.faces.folder, spec, self.guard.faces.split)
            with TARGETS.load(base.target).open(base, OpenOptions()) as session:
                self._faces = faces, parity.on_faces(session, spec, faces)
        return self._faces


def parent_path(out: Path, name: str, artifact: Artifact) -> Path:
    """Where the fp32 artefact of the same target goes that takes the same."""
    return out / name / folder_name(_parent_variant(artifact))


def _parent_variant(artifact: Artifact) -> Variant:
    return replace(artifacts.variant_of(artifact), precision=Precision.FP32)


def _by_size(artifact: Artifact) -> bool:
    return artifact.precision == Precision.FP16 and artifact.machine is None


def _elsewhere(artifact: Artifact) -> str:
    """Says where an artefact's int8 is for another kind of CPU, whose speed cannot be told here; else empty."""
    if artifact.machine:  # what it is for is in there, and was seen to before it was loaded
        return ""
    told = artifact.recipe.get("quantisation", {}).get("cpu")
    return f"it is made for {told}, and this is {this_cpu()}" if told not in (None, this_cpu()) else ""


def _named(artifact: Artifact) -> str:
    return "its plain graph" if artifact.precision == Precision.FP32 else "fp32"


def _inputs(artifact: Artifact) -> Arrays:
    """One run's share of the seeded inputs that are kept beside it."""
    kept = dict(reference.read(artifact).inputs)
    name, batch = interface_of(artifact.spec).batched, artifact.spec.batch or 1
    return kept | {name: kept[name].repeat(-(-batch // len(kept[name])), 0)[:batch]}


def _ratio(child: Session, parent: Session, inputs: Arrays) -> tuple[Gain, int]:
    """The child's time by the parent's, and how often both were timed."""
    times = paced([functools.partial(session.run, inputs) for session in (child, parent)], SECONDS, RUNS)
    return faster(*times), times.shape[1]
