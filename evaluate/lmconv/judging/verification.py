"""Verifies artefacts: reads, checks and runs each artefact once; artefacts share sources and faces."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmconv.building.limits import Relative
from lmconv.console import phase
from lmconv.detecting.loading import LoadedDetector
from lmconv.detecting.matching import box_matcher
from lmconv.errors import InputError, OtherPoints
from lmconv.faces.crops import BoxLookup, FaceCrops, load_face_crops
from lmconv.faces.lookup import find_dataset
from lmconv.inference.loading import usable
from lmconv.judging import accuracy, answers, gates, parity
from lmconv.judging.accuracy import Interval, SubsetAccuracy
from lmconv.judging.answers import KeptNetwork
from lmconv.judging.face_errors import FaceErrors
from lmconv.judging.gates import Verdict
from lmconv.judging.parity import Parity, Points
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.scheme import scheme
from lmconv.sources.resolve import open_source, recover
from lmconv.sources.usercode import is_factory
from lmconv.store import artifact as artifacts
from lmconv.store import reference
from lmconv.store.files import finite
from lmconv.store.summary import summary
from lmconv.types import Artifact, Float64, ModelSpec, OpenOptions, Session, Source

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Results for one artefact; ION is missing without faces, the source's ION without the source.

    If the machine does not compute as the artefact says (`execution_mismatch`), figures exist but no gate is judged.
    `boxes` is the detector whose boxes define the crops, or "landmarks"; the crops lack the faces that the detector
    `missed`. `normaliser` is the name of the normaliser of errors, None without faces. `curves` are the errors of every
    face, of the artefact and of its source.
    """

    artifact: Artifact
    execution_mismatch: str
    gates: Mapping[str, Verdict]
    limits: Mapping[str, float]
    figures: Mapping[str, float | None]
    parity: Parity
    ion: Mapping[str, SubsetAccuracy] | None
    source_ion: Mapping[str, SubsetAccuracy] | None
    delta_ion: Mapping[str, Interval] | None
    boxes: str = "landmarks"
    missed: tuple[str, ...] = ()
    normaliser: str | None = None
    curves: tuple[FaceErrors, ...] = ()

    @property
    def passed(self) -> bool:
        """True if every gate was judged and passed."""
        return all(verdict == "passed" for verdict in self.gates.values())


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Verifies several artefacts; computes shared results once.

    Attributes:
        data: Folder or file of annotated faces, or None.
        split: Part of the faces: "test", "train" or "all".
        dataset: Name of the layout of `data`; by default the layout that matches.
        most: Largest number of faces, evenly spread; None for all.
        normaliser: Name of the normaliser of errors; None for the default of the number of points.
        weights: A checkpoint, or a folder to search, for the source network.
        model: `FILE.py:NAME`, the builder of a user's own network: code that only a manifest names never runs.
        trust: See `OpenOptions`.
        limits: Limits given by the user, by the name of the gate; None keeps the default.
        box_detector: Detector whose boxes define the crops; by default the annotated points do.
        notes: Notes for the user on the data and on missing sources.
    """

    data: Path | None = None
    split: str = "test"
    dataset: str | None = None
    most: int | None = None
    normaliser: str | None = None
    weights: Path | None = None
    model: str | None = None
    trust: bool = False
    limits: Mapping[str, float | Relative | None] = field(default_factory=dict)
    box_detector: LoadedDetector | None = None
    notes: list[str] = field(default_factory=list)
    _boxes: BoxLookup | None = None
    _crops: dict[object, FaceCrops | None] = field(default_factory=dict)
    _sources: dict[object, tuple[Source, Points] | None] = field(default_factory=dict)
    _recovered: dict[object, Source | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._boxes = box_matcher(self.box_detector) if self.box_detector else None

    def verify(self, path: Path) -> Verification:
        """Verifies one artefact and records the result in its manifest, unless a detector's boxes define the crops.

        Raises:
            InputError: The artefact or the faces are missing or broken, or some of these faces calibrated the artefact.
            MissingRuntime: The runtime is not installed.
        """
        with phase(str(path)):
            return self._verify(path)

    def _verify(self, path: Path) -> Verification:
        artifact = artifacts.read(path)
        target = usable(artifact, OpenOptions(trust=self.trust))
        if reason := artifacts.forced_reason(artifact):
            self.notes.append(f"{path}: {reason}")
        with ThreadPoolExecutor(1) as aside:  # importing PyTorch takes as long as decoding some hundred faces
            importing = aside.submit(self._import, artifact)
            crops = self._faces(artifact.spec)  # in this thread, which opened the detector and receives Ctrl-C
            importing.result()
        if crops:
            _check_unseen(artifact, crops)
        with target.open(artifact, OpenOptions(trust=self.trust)) as session:
            result = self._judge(artifact, session, crops)
        if self.box_detector is None and (result.ion or not artifact.measured.get("verified", {}).get("ion")):
            artifacts.record(artifact, **_record(result))
        return result

    def _judge(self, artifact: Artifact, session: Session, crops: FaceCrops | None) -> Verification:
        spec, known = artifact.spec, self._source(artifact, crops)
        outputs = parity.points(session, spec, crops, frames=interface_of(spec).cuts_crops) if known or crops else None
        if known and outputs:
            expected, gap = self._compared(artifact, outputs, known, crops)
        else:
            expected, gap = None, parity.reference_parity(session, spec, reference.read(artifact))
        judged = crops if artifacts.trained(artifact) else None
        errors, before = (
            parity.errors(points.faces, judged) if judged and points and points.faces else None
            for points in (outputs, expected)
        )
        if not artifacts.trained(artifact):
            gap = dataclasses.replace(gap, max_ion=None, mean_ion=None)  # drift is meaningless for random weights
        source_ion = None if before is None else float(np.mean(before))
        limits = gates.gates(artifact, self.limits, gap.scale, source_ion)
        measured = {
            "max_abs": gap.max_abs,
            "max_px": gap.max_px,
            "mean_px": gap.mean_px_faces,
            "max_map": gap.max_map,
            "compact_px": gap.max_px_faces,
            "drift": gap.mean_ion,
            "ion_loss": _loss(errors, before),
        }
        figures = {name: value if name in head_of(spec).figures else None for name, value in measured.items()}
        if crops and not artifacts.trained(artifact):
            self.notes.append(f"{artifact.path}: no trained weights: ION is not judged")
        if session.execution_mismatch:
            self.notes.append(f"{artifact.path}: {session.execution_mismatch}: its gates are not judged here")
        return Verification(
            artifact=artifact,
            execution_mismatch=session.execution_mismatch,
            gates=gates.judge(limits, {} if session.execution_mismatch else figures),
            limits=limits,
            figures=figures,
            parity=gap,
            ion=_accuracy(errors, crops),
            source_ion=_accuracy(before, crops),
            delta_ion=_paired(errors, before, crops),
            boxes=self.box_detector.detector.name if self.box_detector else "landmarks",
            missed=crops.missed if crops else (),
            normaliser=_named(spec, crops) if errors is not None else None,
            curves=_curves(artifact, errors, before, crops),
        )

    def _compared(
        self, artifact: Artifact, outputs: Points, known: tuple[Source, Points], crops: FaceCrops | None
    ) -> tuple[Points, Parity]:
        """Compares outputs with the source network; returns the outputs of the source, ties settled, and the parity."""
        source, expected = known
        gap = parity.parity(outputs, expected, crops, artifact.spec, source.kind)
        if self._beyond(artifact, gap) and not interface_of(artifact.spec).cuts_crops:
            graph = _plain_graph(artifact)
            network = KeptNetwork(
                spec=source.spec, open=functools.partial(open_source, source), graph=graph, source=source
            )
            expected = parity.settled(outputs, expected, crops, network, artifact)
            gap = parity.parity(outputs, expected, crops, artifact.spec, source.kind)
        return expected, gap

    def _beyond(self, artifact: Artifact, gap: Parity) -> bool:
        """True if a point is farther from the source than a gate allows."""
        limits = gates.gates(artifact, self.limits, gap.scale)
        return not (gap.max_abs <= limits.get("max_abs", np.inf) and gap.max_px <= limits.get("max_px", np.inf))

    def _faces(self, spec: ModelSpec) -> FaceCrops | None:
        if self.data is None:
            return None
        key = (self._with_detector_crop(spec).crop, spec.input_size, spec.landmarks)
        if key not in self._crops:
            self._crops[key] = self._load(self.data, spec)
        return self._crops[key]

    def _load(self, data: Path, spec: ModelSpec) -> FaceCrops | None:
        """Returns the faces; None, with a note, if ION is undefined for the network or the faces have other points."""
        if not head_of(spec).on_faces:
            self.notes.append(f"{spec.name}: a detector has no ION, and faces are left out")
            return None
        rule = scheme(spec.landmarks)
        if rule is None:
            self.notes.append(f"{spec.name}: ION is not defined for {spec.landmarks} points, and faces are left out")
            return None
        if rule.normaliser(self.normaliser) is not rule.normaliser():
            measure = rule.normaliser(self.normaliser).measure
            self.notes.append(f"{spec.name}: ION is divided by {self.normaliser}, the {measure}")
        try:
            dataset = find_dataset(data, self.dataset)
            crops = load_face_crops(
                data,
                self._with_detector_crop(spec),
                self.split,
                dataset=dataset,
                most=self.most,
                boxes=self._boxes,
            )
        except OtherPoints as error:
            self.notes.append(f"{error.message}: they are left out")
            return None
        self.notes += crops.problems
        if self.box_detector:
            detected, name = len(crops.names), self.box_detector.detector.name
            missed = f"; not found: {', '.join(crops.missed)}" if crops.missed else ""
            self.notes.append(f"{name}: {detected} of {detected + len(crops.missed)} annotated faces found{missed}")
        return dataclasses.replace(crops, normaliser=self.normaliser)

    def _recover(self, artifact: Artifact) -> Source | None:
        key = (artifact.parents["source"]["sha256"], artifact.spec)
        if key not in self._recovered:
            self._recovered[key] = recover(artifact, self.weights, self.model)
        return self._recovered[key]

    def _import(self, artifact: Artifact) -> None:
        """Imports PyTorch if the source network has to run."""
        source = self._recover(artifact)
        frames = interface_of(artifact.spec).cuts_crops
        if source and source.kind == "torch" and self.data and not answers.are_kept(source, frames=frames):
            importlib.import_module("lmconv.sources.pytorch")

    def _with_detector_crop(self, spec: ModelSpec) -> ModelSpec:
        """Returns the spec with the detector's crop; an artefact that takes a frame keeps the crop in its graph."""
        if self.box_detector is None:
            return spec
        crop = spec.crop if interface_of(spec).cuts_crops else self.box_detector.detector.crop
        return dataclasses.replace(spec, crop=dataclasses.replace(crop, box="detector"))

    def _source(self, artifact: Artifact, crops: FaceCrops | None) -> tuple[Source, Points] | None:
        spec = artifact.spec
        digest = artifact.parents["source"]["sha256"]
        key = (digest, spec)
        if key not in self._sources:
            source = self._recover(artifact)
            if source is None:
                self.notes.append(
                    f"{_missing(artifact, self.model, self.weights)}: {spec.name} is compared with reference.npz"
                )
                self._sources[key] = None
            else:
                frames = interface_of(spec).cuts_crops
                self._sources[key] = source, answers.points(source, crops, frames=frames)
        return self._sources[key]


def _plain_graph(artifact: Artifact) -> onnx.ModelProto | None:
    """Returns the plain graph beside an artefact; None without one."""
    import onnx

    plain = artifacts.plain_beside(artifact)
    return onnx.load(artifacts.model_file(plain, ".onnx")) if plain else None


def _check_unseen(artifact: Artifact, crops: FaceCrops) -> None:
    """Refuses faces that calibrated an artefact, because the artefact may be better on these faces than on others.

    Raises:
        InputError: Some of the faces calibrated the artefact.
    """
    calibrated = artifact.recipe.get("faces", ())  # absent from manifests of older versions
    pictures = crops.pictures() if calibrated else ()
    if seen := len(set(pictures).intersection(calibrated)):
        raise InputError(
            f"{artifact.path} was calibrated on {seen} of the {len(pictures)} pictures that it would be judged on",
            hint="name other faces by --data and --split, or calibrate it on others",
        )


def _missing(artifact: Artifact, model: str | None, given: Path | None) -> str:
    if is_factory(artifact.spec.backbone) and model is None:
        return f"{artifact.spec.backbone} is not run unless named (--model)"
    if given and given.is_file():
        return f"{given} is not {artifacts.weights(artifact)}, from which it was made, or PyTorch is not here"
    return f"{artifacts.weights(artifact)} or PyTorch is not here (--weights)"


def _loss(errors: Float64 | None, before: Float64 | None) -> float | None:
    """Returns the rise of the mean ION over all faces, points."""
    return None if errors is None or before is None else float(np.mean(errors) - np.mean(before))


def _accuracy(errors: Float64 | None, crops: FaceCrops | None) -> dict[str, SubsetAccuracy] | None:
    return None if errors is None or crops is None else accuracy.accuracy(errors, crops.subsets, crops.totals)


def _paired(errors: Float64 | None, before: Float64 | None, crops: FaceCrops | None) -> dict[str, Interval] | None:
    if errors is None or before is None or crops is None:
        return None
    return accuracy.paired(errors, before, crops.subsets)


def _named(spec: ModelSpec, crops: FaceCrops | None) -> str | None:
    rule = scheme(spec.landmarks) if crops else None
    return crops.normaliser or rule.default if crops and rule else None


def _curves(
    artifact: Artifact, errors: Float64 | None, before: Float64 | None, crops: FaceCrops | None
) -> tuple[FaceErrors, ...]:
    curves = ((False, errors), (True, before))
    return tuple(
        FaceErrors(name=str(artifact.path), source=source, values=values, subsets=crops.subsets)
        for source, values in curves
        if values is not None and crops is not None
    )


def to_json(result: Verification) -> dict[str, object]:
    """Returns the row of `lmconv verify --json`; a figure that is not finite is null."""
    return {
        **summary(result.artifact, "execution"),
        "passed": result.passed,
        "trained": artifacts.trained(result.artifact),
        "boxes": result.boxes,
        "missed": list(result.missed),
        **_record(result)["verified"],
    }


def _record(result: Verification) -> dict[str, dict[str, object]]:
    return {
        "verified": {
            "caveat": result.execution_mismatch,
            "gates": dict(result.gates),
            "limits": finite(result.limits),
            "figures": finite(result.figures),
            "parity": finite(dataclasses.asdict(result.parity)),
            "ion_loss_unit": "points",  # absent: percent of the source's ION, from older versions
            "normaliser": result.normaliser,
            "ion": None if result.ion is None else accuracy.to_json(result.ion),
            "source_ion": None if result.source_ion is None else accuracy.to_json(result.source_ion),
            "delta_ion": None if result.delta_ion is None else accuracy.to_json(result.delta_ion),
        }
    }
