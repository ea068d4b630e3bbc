"""The published networks on the published faces: recorded landmarks and errors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.helpers import Cli

from lmconv.building.optimise import optimise
from lmconv.building.recipe import resolve
from lmconv.building.request import Choices
from lmconv.building.trial import opened
from lmconv.compaction.compact import compact
from lmconv.faces.calibration import calibration_inputs
from lmconv.faces.crops import load_face_crops
from lmconv.graph.facts import flops, parameters
from lmconv.inference.ort import OrtSession
from lmconv.judging import parity
from lmconv.judging.nme import nme
from lmconv.networks import squares
from lmconv.passes import simplify
from lmconv.plugins import TARGETS
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.types import Artifact, Float64, OpenOptions, PassContext, Precision, Variant

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

GOLDEN = {"pfld": "pfld_onnx", "mobilefacenet": "mobilefacenet_ir_f32"}
FACES = {"pfld": ("ion_pfld_gt12", 3.2237), "mobilefacenet": ("ion_mfn_gt12", 2.9890)}
RUNTIMES = ["torch", "onnx", "openvino"]


@pytest.fixture
def built(trained_build: Path) -> Path:
    """`build/` with the trained networks in fp32 for both targets. Not to be changed."""
    return trained_build


@pytest.fixture(params=[(model, runtime) for model in GOLDEN for runtime in RUNTIMES], ids="-".join)
def case(request: pytest.FixtureRequest, built: Path, real_weights: Path) -> tuple[str, Any, Artifact]:
    """Name of a network, function that opens a session, and the artefact."""
    model, runtime = request.param
    artifact = artifacts.read(built / model / f"{'onnx' if runtime == 'torch' else runtime}-fp32")
    if runtime == "torch":
        return model, lambda: source.open_source(source.resolve(model)), artifact
    return model, lambda: TARGETS.load(runtime).open(artifact, OpenOptions()), artifact


def test_every_runtime_computes_the_golden_landmarks(case: tuple[str, Any, Artifact], shared: Path) -> None:
    model, opened, _ = case
    golden = np.load(shared / "golden" / "random112_seed0.npz")
    with opened() as session:
        points = session.run({"input": golden["x"]})["landmarks"]
    np.testing.assert_allclose(points.reshape(2, 136), golden[GOLDEN[model]], rtol=0, atol=1e-5)


def test_the_ion_of_every_face_is_as_recorded_in_every_runtime(case: tuple[str, Any, Artifact], shared: Path) -> None:
    model, opened, artifact = case
    key, mean = FACES[model]
    golden = np.load(shared / "golden" / "300w_common.npz")
    faces = load_face_crops(shared / "faces" / "300w_common", artifact.spec)
    with opened() as session:
        errors = parity.errors(parity.on_faces(session, artifact.spec, faces), faces)
    assert len(errors) == 73
    assert errors.mean() == pytest.approx(mean, abs=0.005)
    order = [faces.names.index(name) for name in golden["name"]]
    np.testing.assert_allclose(errors[order], golden[key], rtol=0, atol=0.005)


@pytest.mark.parametrize(("target", "loss", "drift"), [("onnx", 0.05, 0.8), ("openvino", 0.03, 0.4)])
@pytest.mark.parametrize("model", list(GOLDEN))
def test_int8_without_tuning_keeps_the_landmarks(
    built: Path, shared: Path, model: str, target: str, loss: float, drift: float
) -> None:
    plain, plugin = artifacts.read(built / model / "plain"), TARGETS.load(target)
    before = onnx.load(plain.path / "model.onnx")
    crop = calibration_inputs(shared / "faces" / "300w_train_sample", plain.spec)
    context = PassContext(spec=plain.spec, crops=crop, scheme=plugin.scheme("x86"), replay={"multiple": 8})
    passes = resolve(Variant(target=target, precision=Precision.INT8), plugin, Choices()).passes
    after = optimise(before, passes, context).model
    faces = load_face_crops(shared / "faces" / "300w_common", plain.spec)
    with OrtSession(before.SerializeToString()) as first, opened(plain, plugin, after, Precision.INT8) as second:
        expected, points = (parity.on_faces(session, plain.spec, faces) for session in (first, second))
    moved = squares.to_picture(points.landmarks, faces.squares) - squares.to_picture(expected.landmarks, faces.squares)
    assert (parity.errors(points, faces) - parity.errors(expected, faces)).mean() <= loss
    assert nme(faces.truth + moved, faces.truth).mean() <= drift


def clipped(squares: Float64, sizes: list[tuple[int, ...]]) -> Float64:
    """Squares clipped at the border of their pictures, (left, top, width, height): wrong for mapping points back."""
    rows = []
    for (left, top, side), (height, width) in zip(squares.tolist(), sizes, strict=True):
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
        rows.append((x1, y1, x2 - x1, y2 - y1))
    return np.array(rows, np.float64)


def test_mapping_back_by_a_clipped_square_misses_the_recorded_ion(
    built: Path, shared: Path, real_weights: Path
) -> None:
    import cv2

    artifact = artifacts.read(built / "pfld" / "onnx-fp32")
    golden = np.load(shared / "golden" / "300w_common.npz")
    folder = shared / "faces" / "300w_common"
    faces = load_face_crops(folder, artifact.spec)
    with TARGETS.load("onnx").open(artifact, OpenOptions()) as session:
        points = parity.on_faces(session, artifact.spec, faces).landmarks.astype(np.float64)
    pictures = [cv2.imread(str(folder / name)) for name in faces.names]
    boxes = clipped(
        faces.squares.astype(np.float64), [picture.shape[:2] for picture in pictures if picture is not None]
    )
    errors = nme(points * boxes[:, None, 2:] + boxes[:, None, :2], faces.truth)
    order = [faces.names.index(name) for name in golden["name"]]
    border = (boxes[:, 2:] != faces.squares[:, 2:]).any(axis=1)
    assert border.sum() >= 2
    assert abs(errors.mean() - 3.2237) > 0.005
    assert (np.abs(errors[order] - golden["ion_pfld_gt12"]) > 0.005)[border[order]].all()


def test_verify_and_the_recorded_ion_through_the_command_line(
    cli: Cli, built: Path, shared: Path, real_weights: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(built, tmp_path / "own"))  # verify writes into manifests
    paths = [own / model / f"{target}-fp32" for model in GOLDEN for target in ("onnx", "openvino")]
    ran = cli("verify", *paths, "--data", shared / "faces" / "300w_common", "--json")
    assert ran.code == 0, ran.err
    for row in ran.document["artifacts"]:
        assert row["passed"] is True
        assert row["parity"]["against"] == "torch"
        for figures in (row["ion"], row["source_ion"]):
            assert figures["common"]["mean"] == pytest.approx(FACES[row["model"]][1], abs=0.005)
            assert (figures["common"]["n"], figures["common"]["of"]) == (73, 554)


def test_a_trained_weight_changed_by_one_per_cent_fails(
    cli: Cli, built: Path, tmp_path: Path, real_weights: Path
) -> None:
    from tests.cli.test_verify import reweigh

    folder = Path(shutil.copytree(built / "pfld" / "onnx-fp32", tmp_path / "changed"))
    reweigh(folder, 1.01)
    ran = cli("verify", folder, "--json")
    assert ran.code == 1
    assert ran.document["artifacts"][0]["gates"]["max_abs"] == "failed"


def test_swapped_colours_miss_the_golden_landmarks(built: Path, shared: Path) -> None:
    golden = np.load(shared / "golden" / "random112_seed0.npz")
    for model, key in GOLDEN.items():
        artifact = artifacts.read(built / model / "onnx-fp32")
        with TARGETS.load("onnx").open(artifact, OpenOptions()) as session:
            points = session.run({"input": np.ascontiguousarray(golden["x"][:, ::-1])})["landmarks"]
        assert np.abs(points.reshape(2, 136) - golden[key]).max() > 1e-3


@pytest.mark.parametrize(
    ("file", "options", "size"),
    [
        ("pfld/pfld.onnx", (), 112),
        ("slim160/slim_160_latest.onnx", ("--output-slice", "0:136", "--preprocess", "BGR,1/127,1,1"), 160),
    ],
    ids=["pfld", "slim160"],
)
def test_a_published_onnx_file_is_converted_and_verified(
    cli: Cli, shared: Path, file: str, options: tuple[str, ...], size: int
) -> None:
    path = shared / "weights" / file
    ran = cli("export", path, "--to", "onnx", "--to", "openvino", *options, "--json")
    assert ran.code == 0, ran.err
    paths = [row["path"] for row in ran.document["artifacts"]]
    assert artifacts.read(Path(paths[0])).spec.input_size == (size, size)
    data = shared / "faces" / "300w_common"
    verified = cli("verify", *paths, "--weights", path, "--data", data, "--json")
    assert verified.code == 0, verified.err
    for row in verified.document["artifacts"]:
        assert row["parity"]["against"] == "onnx"
        assert row["passed"] is True
        assert row["ion"]["common"]["mean"] == pytest.approx(row["source_ion"]["common"]["mean"], abs=1e-3)


def test_weights_are_found_in_the_folder_of_the_environment_variable(cli: Cli, real_weights: Path) -> None:
    assert os.environ["LMCONV_WEIGHTS"] == str(real_weights)
    paths = {row["name"]: row["weights"] for row in cli("models", "--json").document["models"]}
    for model in GOLDEN:
        assert paths[model] == str(real_weights / model / f"{model}_model_best.pth.tar")


@pytest.mark.parametrize("model", list(GOLDEN))
def test_fp16_and_int8_pass_their_gates_on_faces(
    cli: Cli, built: Path, shared: Path, real_weights: Path, tmp_path: Path, model: str
) -> None:
    precisions = ["--precision", "fp16", "--precision", "int8"]
    faces = shared / "faces"
    options = ("--calibration", faces, "--no-guard", "--json")
    exported = cli("export", model, "--to", "onnx", "--to", "openvino", *precisions, *options)
    assert exported.code == 0, exported.err
    paths = [row["path"] for row in exported.document["artifacts"]]
    assert len(paths) == 4
    cli("verify", paths[-1], "--data", faces, "--split", "train").refused(4, "calibrated on 102 of the 102 pictures")
    ran = cli("verify", *paths, "--data", faces, "--max-drift", "0.5", "--json")
    assert ran.code == 0, ran.err
    for row in ran.document["artifacts"]:
        assert set(row["gates"].values()) == {"passed"}, row
        if row["precision"] == "int8":
            assert row["figures"]["ion_loss"] < 0.06, "far below the gates of 0.15 and 0.3, to detect a regression"


def test_the_same_faces_seed_and_recipe_give_the_same_int8_bytes(
    cli: Cli, shared: Path, real_weights: Path, tmp_path: Path
) -> None:
    for folder, recipe in (("one", ()), ("two", ("--recipe", "one/pfld/onnx-int8"))):
        calibration = ["--precision", "int8", "--calibration", shared / "faces", "--no-guard"]
        ran = cli("export", shared / "weights" / "pfld" / "pfld.onnx", *calibration, *recipe, "--out", folder)
        assert ran.code == 0, ran.err
    one, two = (artifacts.read(Path(folder) / "pfld" / "onnx-int8") for folder in ("one", "two"))
    assert one.files == two.files
    assert one.digest == two.digest


# Compaction. The counts of the plain graphs are the counts of the checkpoints with every BatchNorm folded.

DEAD = {"mobilefacenet": 5866, "pfld": 2563}
PARAMETERS = {"mobilefacenet": (997_448, 241_357), "pfld": (724_728, 329_587)}


@pytest.mark.parametrize("model", list(DEAD))
def test_dead_channels_of_trained_networks_are_removed_and_no_landmark_moves(
    built: Path, shared: Path, model: str
) -> None:
    plain = artifacts.read(built / model / "plain")
    graph = onnx.load(plain.path / "model.onnx")
    compacted = compact(graph)
    assert sum(layer.dead for layer in compacted.layers) == DEAD[model]
    assert sum(sum(layer.kept.values()) for layer in compacted.layers) == 0
    assert (parameters(graph), parameters(compacted.model)) == PARAMETERS[model]
    assert flops(compacted.model) < 0.6 * flops(graph)
    faces = load_face_crops(shared / "faces" / "300w_common", plain.spec)
    with OrtSession(graph.SerializeToString()) as before, OrtSession(compacted.model.SerializeToString()) as after:
        expected, points = (parity.on_faces(session, plain.spec, faces) for session in (before, after))
    assert np.abs(points.landmarks - expected.landmarks).max() <= 1e-6
    moved = parity.errors(points, faces).mean() - parity.errors(expected, faces).mean()
    assert abs(moved) < 0.0005


@pytest.mark.parametrize("model", list(DEAD))
def test_the_graph_of_the_older_exporter_loses_the_same_channels(
    built: Path, tmp_path: Path, real_weights: Path, model: str
) -> None:
    import warnings

    import torch

    path = tmp_path / "older.onnx"
    with source.open_source(source.resolve(model)) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: torch.nn.Module = session.network  # type: ignore[union-attr]
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 112, 112),),
            path,
            dynamo=False,
            opset_version=18,
            input_names=["input"],
            output_names=["landmarks"],
            dynamic_axes={"input": {0: "N"}, "landmarks": {0: "N"}},
        )
    spec = source.resolve(model).spec
    graph, _ = simplify.plugin.apply(onnx.load(path), PassContext(spec=spec))
    expected = compact(onnx.load(built / model / "plain" / "model.onnx"))
    assert [layer.channels for layer in compact(graph).layers] == [layer.channels for layer in expected.layers]


def test_compaction_within_a_bound_is_within_it_on_other_faces(cli: Cli, shared: Path, real_weights: Path) -> None:
    faces = shared / "faces"
    ran = cli("export", "pfld", "--compact-px", "0.02", "--calibration", faces, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["artifacts"]
    frozen = artifacts.decided(artifacts.read(Path(row["path"])).recipe, "freeze")
    assert frozen
    assert frozen["channels"] > 10
    assert max(frozen["moved_px"].values()) <= 0.02
    verified = cli("verify", row["path"], "--data", faces / "300w_common", "--json")
    assert verified.document["artifacts"][0]["gates"] == {"compact_px": "passed"}
    assert 0 < verified.document["artifacts"][0]["figures"]["compact_px"] <= 0.02
    assert cli("verify", row["path"], "--json").document["artifacts"][0]["gates"] == {"compact_px": "not judged"}
