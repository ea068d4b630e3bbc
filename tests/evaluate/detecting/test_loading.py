"""Loading detectors: by name, from artefacts, and by `--boxes`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.helpers import Cli

from lmconv.detecting.loading import load_boxes_option, load_detector
from lmconv.errors import InputError, UsageError


@pytest.mark.parametrize("words", ["", "detector", "detector:", "box:rfb320", "landmark"])
def test_an_unknown_source_of_boxes_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="is not a source of boxes"), load_boxes_option(words):
        pass


def test_a_similar_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean rfb320"), load_detector("rfb32"):
        pass


def test_artefacts_of_landmark_networks_are_refused_as_a_detector(small: Path) -> None:
    with pytest.raises(UsageError, match="not the networks of a detector"), load_detector(str(small / "onnx-fp32")):
        pass


def test_a_detector_without_weights_names_the_missing_file() -> None:
    with pytest.raises(InputError, match="version-RFB-320"), load_detector("rfb320"):
        pass
    with pytest.raises(InputError, match="face_detection_yunet"), load_detector("yunet"):
        pass


@pytest.mark.parametrize(("words", "code"), [("detector:rfb", 2), ("eyes", 2), ("detector:rfb320", 4)])
def test_verify_reports_an_error_in_the_option_boxes(small: Path, cli: Cli, words: str, code: int) -> None:
    ran = cli("verify", small / "onnx-fp32", "--boxes", words)
    assert ran.code == code
    assert "Traceback" not in ran.err


@pytest.mark.realdata
def test_a_detector_on_an_artefact_detects_the_same_faces(shared: Path, tmp_path: Path) -> None:
    import cv2

    from lmconv.pipeline import convert
    from lmconv.sources.resolve import resolve
    from lmconv.types import Precision

    artifact = convert(resolve("rfb320", weights=shared / "detectors"), "onnx", Precision.FP32, out=tmp_path)
    path = next((shared / "faces" / "300w_common").rglob("*.png"))
    picture = np.asarray(cv2.imread(str(path)), np.uint8)
    with (
        load_detector(str(artifact.path)) as converted,
        load_detector("rfb320", weights=shared / "detectors") as published,
    ):
        detections, expected = converted(picture), published(picture)
    np.testing.assert_allclose(detections.boxes, expected.boxes, rtol=0, atol=0.1)
