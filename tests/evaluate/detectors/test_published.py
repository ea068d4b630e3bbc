"""Detectors on real pictures, compared with the boxes of the published system after repair of its defects."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.conftest import Once

from lmconv.detecting.loading import LoadedDetector, load_detector
from lmconv.detecting.matching import box_matcher
from lmconv.detecting.overlap import overlap
from lmconv.detection import DETECTORS, Detections
from lmconv.detectors import retinaface
from lmconv.faces.crops import load_face_crops
from lmconv.faces.lookup import find_dataset
from lmconv.judging import parity
from lmconv.judging.nme import nme
from lmconv.networks.squares import to_picture
from lmconv.pipeline import convert
from lmconv.sources.resolve import open_source, resolve
from lmconv.types import Float32, Float64, Precision, Uint8

pytestmark = pytest.mark.realdata

RECORDED = {
    "mtcnn": "mtcnn_unclipped",
    "retinaface, unlimited": "retinaface",
    "faceboxes": "faceboxes",
    "rfb320": "rfb320",
    "slim320": "slim320",
}
"""Name of each detector in the golden file; RetinaFace got pictures in full size."""
GROUPS = {"mtcnn": (23, 26, 8), "retinaface": (23, 27, 8), "faceboxes": (23, 26, 8), "rfb320": (22, 26, 8)}
COUNTS = {"mtcnn": 111, "retinaface": 113, "faceboxes": 107, "rfb320": 107, "slim320": 105}
"""Number of boxes on the 73 pictures."""


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    with np.load(shared / "golden" / "detectors.npz") as file:
        return dict(file)


def picture(shared: Path, name: str) -> Uint8:
    group, _, rest = name.partition("/")
    path = shared / "samples" / "group_inputs" / rest if group == "group" else shared / "faces" / name
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), np.uint8)


@contextmanager
def opened(name: str, shared: Path) -> Iterator[LoadedDetector]:
    """Opens a detector with its published weights."""
    model, _, unlimited = name.partition(", ")
    if not unlimited:
        with load_detector(model, weights=shared / "detectors") as detector:
            yield detector
        return
    plain = retinaface.single_shot(model, "", retinaface.LEVELS, input_size=lambda height, width: (height, width))
    with open_source(resolve(model, weights=shared / "detectors")) as session:
        yield LoadedDetector(detector=plain, detect=lambda picture: plain.find([session.run], picture))


def recorded(golden: dict[str, Any], name: str, index: int) -> tuple[Float64, Float64 | None]:
    """Boxes with scores (n, 5) and points (n, 5, 2) of the published system on one picture, pixels."""
    key = RECORDED[name]
    rows = slice(*golden[f"{key}_start"][index : index + 2])
    boxes, points = golden[f"{key}_boxes"][rows].astype(np.float64), golden.get(f"{key}_landmarks")
    if name == "faceboxes":  # the published script maps boxes back by the scale before it rounded the sizes
        width, height = golden["size_wh"][index].tolist()
        scale, taken = min(1, 720 / height, 1080 / width), retinaface.limited(height, width)
        boxes[:, :4] *= np.tile([width * scale / taken[1], height * scale / taken[0]], 2)
    return boxes, None if points is None else points[rows]


def agree(result: Detections, boxes: Float64, points: Float64 | None) -> None:
    """Asserts that every box is within 1 px, with its score and points; of two boxes with score 1, either may stay."""
    assert len(result.boxes) == len(boxes)
    if not len(boxes):
        return
    distances = np.abs(boxes[:, None, :4] - result.boxes).max(-1)
    nearest = distances.argmin(1)
    assert sorted(nearest) == list(range(len(boxes)))
    np.testing.assert_allclose(result.scores[nearest], boxes[:, 4], rtol=0, atol=1e-3)
    certain = (boxes[:, 4] > 1 - 1e-6) & (overlap(boxes[:, :4], result.boxes[nearest]) > 0.8)
    assert ((distances.min(1) <= 1) | certain).all()
    if points is not None and result.points is not None:
        np.testing.assert_allclose(result.points[nearest], points, rtol=0, atol=1)


@pytest.mark.parametrize("name", RECORDED)
def test_boxes_agree_with_the_published_system(name: str, shared: Path, golden: dict[str, Any]) -> None:
    smallest = int(golden["size_wh"].prod(1).argmin())
    with opened(name, shared) as detect:
        agree(detect(picture(shared, str(golden["name"][smallest]))), *recorded(golden, name, smallest))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_boxes_on_some_pictures_agree_with_the_published_system(
    name: str, shared: Path, golden: dict[str, Any]
) -> None:
    with opened(name, shared) as find:
        for index in np.random.default_rng(0).choice(len(golden["name"]), 6, replace=False):
            agree(find(picture(shared, str(golden["name"][index]))), *recorded(golden, name, index))


@pytest.fixture(scope="module")
def everywhere(request: pytest.FixtureRequest, shared: Path, once: Once) -> dict[str, Detections]:
    """The detections of one detector in every picture of the golden file, by the name of the picture."""

    def make(folder: Path) -> None:
        with np.load(shared / "golden" / "detectors.npz") as file, opened(request.param, shared) as find:
            results = {str(title): find(picture(shared, str(title))) for title in file["name"]}
        (folder / "found.pickle").write_bytes(pickle.dumps(results))

    place = once(f"found-{request.param}", make) / "found.pickle"
    results: dict[str, Detections] = pickle.loads(place.read_bytes())  # noqa: S301  written above
    return results


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("everywhere", "name"), [(name, name) for name in RECORDED], indirect=["everywhere"], scope="module"
)
def test_boxes_on_every_picture_agree_with_the_published_system(
    everywhere: dict[str, Detections], name: str, golden: dict[str, Any]
) -> None:
    for index, result in enumerate(everywhere.values()):
        agree(result, *recorded(golden, name, index))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("everywhere", "name"), [(name, name) for name in COUNTS], indirect=["everywhere"], scope="module"
)
def test_every_annotated_face_is_detected(everywhere: dict[str, Detections], name: str, shared: Path) -> None:
    """Counts as the golden file does: IoU above 0.4 with the box of the landmarks, widened by 8 %."""
    faces = find_dataset(shared / "faces" / "300w_common").faces(shared / "faces" / "300w_common", "test").faces
    count, boxes = 0, 0
    for face in faces:
        low, high = face.points.min(0), face.points.max(0)
        wide = np.concatenate([low - 0.08 * (high - low), high + 0.08 * (high - low)])
        here = everywhere[face.image.relative_to(shared / "faces").as_posix()].boxes
        boxes += len(here)
        count += bool((overlap(wide, here) > 0.4).any())
    assert (count, boxes) == (73, COUNTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_detected(name: str, shared: Path, golden: dict[str, Any]) -> None:
    titles = {Path(title).stem[-3:]: title for title in map(str, golden["name"]) if title.startswith("group/")}
    least = 0 if name == "retinaface" else 1
    with opened(name, shared) as find:
        for place, expected in zip(("_24", "459", "_51"), GROUPS[name], strict=True):
            assert len(find(picture(shared, titles[place])).boxes) >= expected - least


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mtcnn", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("faceboxes", "rfb320", "slim320")),
    ],
)
def test_boxes_of_artefacts_agree_with_the_published_system(
    name: str, shared: Path, golden: dict[str, Any], tmp_path: Path
) -> None:
    networks = DETECTORS.load(name).networks
    sources = [resolve(network, weights=shared / "detectors") for network in networks]
    made = [convert(source, "openvino", Precision.FP32, out=tmp_path) for source in sources]
    smallest = np.argsort(golden["size_wh"].prod(1))[:3]
    with load_detector(",".join(str(artifact.path) for artifact in made)) as detect:
        for index in smallest:
            agree(detect(picture(shared, str(golden["name"][index]))), *recorded(golden, name, index))


# What a landmark network makes of a detector's boxes


@pytest.mark.slow
@pytest.mark.parametrize(("model", "key"), [("pfld", "pfld"), ("mobilefacenet", "mfn")])
def test_landmarks_within_a_detectors_boxes_are_the_recorded_ones(model: str, key: str, shared: Path) -> None:
    recorded = np.load(shared / "golden" / "300w_common.npz")
    source = resolve(model, weights=shared / "weights")
    with opened("rfb320", shared) as detector, open_source(source) as session:
        spec = replace(source.spec, crop=detector.detector.crop)
        faces = load_face_crops(shared / "faces" / "300w_common", spec, boxes=box_matcher(detector))
        points = to_picture(parity.on_faces(session, spec, faces).landmarks, faces.squares)
    assert not faces.missed
    order = [faces.names.index(name) for name in recorded["name"]]
    errors: Float64 = nme(points, faces.truth)
    assert errors.mean() == pytest.approx({"pfld": 3.517, "mobilefacenet": 3.587}[model], abs=0.01)
    apart: Float32 = np.abs(points[order] - recorded[f"{key}_det10"]).max((1, 2))
    # MobileFaceNet's were recorded with an input in float16.
    assert (apart < {"pfld": 0.02, "mobilefacenet": 0.2}[model]).sum() >= 72, "but where RFB-320 is wholly sure twice"
