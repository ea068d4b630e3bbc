from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.goldens import make

from lmconv.sources import resolve as source


@pytest.mark.parametrize("model", make.MODELS)
def test_seeded_weights_give_the_recorded_landmarks(model: str) -> None:
    recorded = np.load(make.FOLDER / f"{model}.npz")["landmarks"]
    np.testing.assert_allclose(make.landmarks(make.seeded(model), make.images()), recorded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", make.MODELS)
def test_another_colour_order_misses_the_recorded_landmarks(model: str) -> None:
    recorded = np.load(make.FOLDER / f"{model}.npz")["landmarks"]
    swapped = make.landmarks(make.seeded(model), make.images()[:, ::-1].copy())
    assert np.abs(swapped - recorded).max() > 1e-3


@pytest.mark.parametrize("model", make.MODELS)
def test_state_dict_names_and_shapes_are_as_recorded(model: str) -> None:
    recorded = json.loads(make.NAMES.read_text(encoding="utf-8"))[model]
    shapes = make.shapes(make.seeded(model))
    assert list(shapes) == list(recorded)
    assert shapes == recorded


@pytest.mark.realdata
@pytest.mark.parametrize("model", make.MODELS)
def test_state_dict_names_and_shapes_are_as_published(model: str, shared: Path) -> None:
    published = json.loads((shared / "state_dict_names" / f"{model}.json").read_text(encoding="utf-8"))
    assert make.shapes(make.seeded(model)) == published["state_dict"]


@pytest.mark.realdata
@pytest.mark.parametrize(("model", "key"), [("pfld", "pfld_onnx"), ("mobilefacenet", "mobilefacenet_ir_f32")])
def test_trained_weights_give_the_golden_landmarks(model: str, key: str, shared: Path, real_weights: Path) -> None:
    golden = np.load(shared / "golden" / "random112_seed0.npz")
    with source.open_source(source.resolve(model)) as session:
        landmarks = session.run({"input": golden["x"]})["landmarks"]
    np.testing.assert_allclose(landmarks.reshape(2, 136), golden[key], rtol=0, atol=1e-5)
