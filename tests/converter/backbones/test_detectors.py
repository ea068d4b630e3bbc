"""Detection networks: raw outputs against the outputs of the published implementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lmconv.sources import resolve as source

RAW = (
    ("mtcnn_pnet", "mtcnn_pnet12", ("prob", "offsets")),
    ("mtcnn_pnet", "mtcnn_pnet_odd", ("prob", "offsets")),
    ("mtcnn_rnet", "mtcnn_rnet", ("prob", "offsets")),
    ("mtcnn_onet", "mtcnn_onet", ("prob", "offsets", "landmarks")),
    ("retinaface", "retinaface_even", ("conf", "loc", "landms")),
    ("retinaface", "retinaface_odd", ("conf", "loc", "landms")),
    ("faceboxes", "faceboxes_even", ("conf", "loc")),
    ("faceboxes", "faceboxes_odd", ("conf", "loc")),
)
"""Network, prefix of its golden arrays, and names of its outputs in the golden file."""


@pytest.fixture
def detectors(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the published detectors, set as `LMCONV_WEIGHTS`."""
    monkeypatch.setenv("LMCONV_WEIGHTS", str(shared / "detectors"))
    return shared / "detectors"


def normalised(pixels: NDArray[np.uint8], model: str) -> NDArray[np.float32]:
    """Pre-processes pixels whose channels are in the order of the network."""
    rule = source.resolve(model).spec.preprocess
    mean, std = np.reshape((rule.mean, rule.std), (2, 3, 1, 1))
    return np.asarray((pixels * rule.scale - mean) / std, np.float32)


def run(model: str, inputs: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    with source.open_source(source.resolve(model)) as session:
        return session.run({"input": inputs})


@pytest.mark.realdata
@pytest.mark.parametrize(("model", "prefix", "names"), RAW)
def test_the_published_weights_give_the_golden_outputs(
    model: str, prefix: str, names: tuple[str, ...], shared: Path, detectors: Path
) -> None:
    golden = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    outputs = run(model, normalised(golden[f"{prefix}_x"], model))
    assert list(outputs) == ["scores", "boxes", "points"][: len(names)]
    for name, values in zip(names, outputs.values(), strict=True):
        np.testing.assert_allclose(values, golden[f"{prefix}_{name}"], rtol=0, atol=1e-4)


@pytest.mark.realdata
@pytest.mark.parametrize(("model", "name"), [("rfb320", "version-RFB-320"), ("slim320", "version-slim-320")])
def test_the_published_onnx_files_give_the_golden_outputs(model: str, name: str, shared: Path, detectors: Path) -> None:
    integers = np.load(shared / "golden" / "detectors_raw_seed0.npz")
    normal = np.load(shared / "golden" / "rfb_slim_random_seed0.npz")
    for inputs, golden, prefix in (
        (normalised(integers["light_x"], model), integers, model),
        (normal["x"], normal, name),
    ):
        outputs = run(model, inputs)
        for output in ("scores", "boxes"):
            np.testing.assert_allclose(outputs[output], golden[f"{prefix}_{output}"], rtol=0, atol=1e-4)
