from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.helpers import COMMAND, Cli, add_face, face, other_package, python

from lmconv.judging import answers, verification
from lmconv.pipeline import convert
from lmconv.plugins import TARGETS
from lmconv.sources.resolve import open_source, resolve
from lmconv.store import artifact as artifacts
from lmconv.types import Precision, Source

KEYS = {
    "path",
    "model",
    "target",
    "precision",
    "execution",
    "passed",
    "gates",
    "parity",
    "ion",
    "source_ion",
    "delta_ion",
}
PARITY = {"against", "max_abs", "mean_abs", "max_px", "mean_px", "max_ion", "mean_ion", "n"}
ION = {"mean", "low", "high", "n", "of", "failure_rate", "auc", "failure_rate_8", "auc_8"}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Five faces in the layout of 300-W: three of helen (one at the border) and two of ibug."""
    root = tmp_path / "faces"
    for index, box in enumerate([(20, 10, 50, 45), (-12, 5, 30, 50), (30, 12, 62, 40)]):
        add_face(root / "helen" / "testset", f"h{index}", face(*box), seed=index)
    for index, box in enumerate([(15, 15, 45, 50), (25, 8, 60, 40)]):
        add_face(root / "ibug", f"i{index}", face(*box), seed=10 + index)
    return root


def reweigh(folder: Path, factor: float, name: str = "") -> str:
    """Multiplies one weight tensor of an artefact's model and seals the manifest again; returns the tensor's name."""
    model = onnx.load(folder / "model.onnx")
    names = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name in names and name in ("", tensor.name))
    changed = numpy_helper.to_array(tensor) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    artifacts.write(folder, document)
    artifacts.read(folder)
    return str(tensor.name)


# Reported figures


def test_an_artefact_is_compared_with_its_pytorch_network(cli: Cli, build: Path, weights: Path) -> None:
    ran = cli("verify", build / "pfld" / "onnx-fp32", build / "pfld" / "openvino-fp32", "--json")
    assert ran.code == 0, ran.err
    for row in ran.document["artifacts"]:
        assert set(row) >= KEYS
        assert set(row["parity"]) >= PARITY
        assert row["passed"] is True
        assert row["gates"] == {"max_abs": "passed"}
        assert row["parity"]["against"] == "torch"
        assert 0 < row["parity"]["max_abs"] <= 1e-5
        assert row["parity"]["mean_abs"] < row["parity"]["max_abs"]
        assert row["parity"]["max_px"] <= row["parity"]["max_abs"] * 112 * 2**0.5
        assert row["parity"]["n"] >= 64
        assert row["parity"]["max_ion"] is None
        assert row["ion"] is row["source_ion"] is row["delta_ion"] is None


def test_an_onnx_source_is_found_by_its_sha256(cli: Cli, small: Path, tiny: Path) -> None:
    (row,) = cli("verify", small / "openvino-fp32", "--weights", tiny.parent, "--json").document["artifacts"]
    assert row["parity"]["against"] == "onnx"
    assert row["passed"] is True


def test_without_its_source_an_artefact_is_compared_with_the_reference(cli: Cli, small: Path) -> None:
    ran = cli("verify", small / "onnx-fp32", "--json")
    (row,) = ran.document["artifacts"]
    assert ran.code == 0
    assert row["parity"]["against"] == "reference"
    assert row["parity"]["n"] == 8
    assert "tiny.onnx" in ran.err
    assert "is compared with reference.npz" in ran.err


def test_another_file_with_the_name_of_the_source_is_not_used(cli: Cli, small: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"another network")
    (row,) = cli("verify", small / "onnx-fp32", "--weights", tmp_path, "--json").document["artifacts"]
    assert row["parity"]["against"] == "reference"


def test_faces_give_ion_per_subset_with_its_interval(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["artifacts"]
    subsets = {"common": (3, 554), "challenge": (2, 135), "full": (5, 689), "helen/testset": (3, 330), "ibug": (2, 135)}
    assert {name: (figures["n"], figures["of"]) for name, figures in row["ion"].items()} == subsets
    assert set(row["source_ion"]) == set(row["delta_ion"]) == set(subsets)
    for name, figures in row["ion"].items():
        assert set(figures) == ION
        assert 0 < figures["low"] <= figures["mean"] <= figures["high"]
        assert row["source_ion"][name]["mean"] == pytest.approx(figures["mean"], abs=1e-3)
        assert row["delta_ion"][name]["low"] <= row["delta_ion"][name]["mean"] <= row["delta_ion"][name]["high"]
        assert abs(row["delta_ion"][name]["mean"]) < 1e-3
    assert row["parity"]["n"] >= 64 + 5
    assert 0 <= row["parity"]["mean_ion"] <= row["parity"]["max_ion"] < 1e-2


def test_the_same_command_gives_the_same_document(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    arguments = ["verify", str(small / "onnx-fp32"), "--weights", str(tiny), "--data", str(faces), "--json"]
    assert cli(*arguments).document == cli(*arguments).document


def test_a_folder_of_artefacts_is_verified_and_reported(cli: Cli, small: Path, tiny: Path) -> None:
    (small / "tune-onnx").mkdir()
    named = sorted(path for path in small.iterdir() if not path.name.startswith("."))  # as a shell expands small/*
    expected = [str(small / name) for name in ("onnx-fp32", "openvino-bf16", "openvino-fp32")]
    for paths in ([small], [small.parent], named):
        ran = cli("report", *paths, "--json")
        assert [row["path"] for row in ran.document["artifacts"]] == expected
    ran = cli("verify", small, "--weights", tiny, "--json")
    assert ran.code == 0
    assert [row["path"] for row in ran.document["artifacts"]] == expected


@pytest.mark.parametrize("command", ["verify", "report", "bench"])
def test_a_folder_without_artefacts_is_refused(cli: Cli, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    cli(command, tmp_path / "empty").refused(4, "empty is not an artefact", "no folder below it")


def test_the_table_has_subset_number_of_faces_and_gates(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    out = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces).out
    for part in ("onnx-fp32", "full 5/689", "max_abs", "(limit 1e-05) passed"):
        assert part in out


def test_the_result_is_recorded_in_the_manifest(cli: Cli, small: Path, tiny: Path) -> None:
    before = artifacts.read(small / "onnx-fp32")
    cli("verify", small / "onnx-fp32", "--weights", tiny)
    after = artifacts.read(small / "onnx-fp32")
    assert after.digest == before.digest
    assert after.measured["verified"]["gates"] == {"max_abs": "passed"}


# Gates


def test_one_weight_tensor_changed_by_one_per_cent_fails(cli: Cli, small: Path, tiny: Path) -> None:
    reweigh(small / "onnx-fp32", 1.01)
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--json")
    assert ran.code == 1
    (row,) = ran.document["artifacts"]
    assert row["passed"] is False
    assert row["gates"] == {"max_abs": "failed"}


def test_one_changed_weight_tensor_fails_against_the_reference_too(cli: Cli, build: Path) -> None:
    folder = build / "pfld" / "onnx-fp32"
    reweigh(folder, 1.01)
    ran = cli("verify", folder, "--json")
    assert ran.code == 1
    assert ran.document["artifacts"][0]["parity"]["against"] == "reference"


def test_a_model_that_computes_nan_fails(cli: Cli, small: Path, tiny: Path) -> None:
    reweigh(small / "onnx-fp32", float("nan"))
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--json")
    assert ran.code == 1
    assert ran.document["artifacts"][0]["gates"] == {"max_abs": "failed"}


def test_swapped_colours_fail_the_gate_of_fp32(build: Path) -> None:
    from lmconv.inference.session import landmarks, noise
    from lmconv.networks.compare import difference
    from lmconv.types import OpenOptions

    artifact = artifacts.read(build / "pfld" / "onnx-fp32")
    images = noise(artifact.spec, 8, 1)
    with TARGETS.load("onnx").open(artifact, OpenOptions()) as session:
        right = landmarks(session, artifact.spec, images)
        wrong = landmarks(session, artifact.spec, np.ascontiguousarray(images[:, ::-1]))
    assert difference(right, wrong, (112, 112)).max_abs > 100 * 1e-5


@pytest.mark.parametrize(
    ("option", "gate"), [("--max-abs", "max_abs"), ("--max-px", "max_px")], ids=["max-abs", "max-px"]
)
def test_a_limit_may_be_overridden(cli: Cli, small: Path, tiny: Path, option: str, gate: str) -> None:
    folder = small / "onnx-fp32"
    reweigh(folder, 1.01)
    strict = cli("verify", folder, "--weights", tiny, option, "1e-6", "--json")
    assert strict.code == 1
    assert strict.document["artifacts"][0]["gates"][gate] == "failed"
    loose = cli("verify", folder, "--weights", tiny, "--max-abs", "1", option, "100", "--json")
    assert loose.code == 0
    assert loose.document["artifacts"][0]["gates"][gate] == "passed"


def test_gates_on_faces_are_judged_with_faces(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    arguments = ["verify", str(small / "onnx-fp32"), "--weights", str(tiny), "--data", str(faces), "--json"]
    loose = cli(*arguments, "--max-drift", "1", "--max-ion-loss", "0.03")
    assert loose.code == 0
    assert loose.document["artifacts"][0]["gates"] == {"max_abs": "passed", "drift": "passed", "ion_loss": "passed"}
    reweigh(small / "onnx-fp32", 1.5)
    strict = cli(*arguments, "--max-abs", "9", "--max-drift", "1e-3", "--max-ion-loss", "-99")
    assert strict.code == 1
    gates = {"max_abs": "passed", "drift": "failed", "ion_loss": "failed"}
    assert strict.document["artifacts"][0]["gates"] == gates


def test_a_limit_of_ion_is_in_points_or_in_percent_of_the_source(
    cli: Cli, small: Path, tiny: Path, faces: Path
) -> None:
    command = ("verify", small / "onnx-fp32", "--weights", tiny, "--json", "--max-ion-loss")
    (points,) = cli(*command, "0.5", "--data", faces).document["artifacts"]
    assert (points["limits"]["ion_loss"], points["ion_loss_unit"]) == (0.5, "points")
    assert points["figures"]["ion_loss"] == pytest.approx(points["delta_ion"]["full"]["mean"], abs=1e-9)
    (relative,) = cli(*command, "5%", "--data", faces).document["artifacts"]
    assert relative["limits"]["ion_loss"] == pytest.approx(0.05 * points["source_ion"]["full"]["mean"])
    (unjudged,) = cli(*command, "5%").document["artifacts"]
    assert (unjudged["limits"]["ion_loss"], unjudged["gates"]["ion_loss"]) == (None, "not judged")


def test_a_gate_on_faces_is_not_judged_without_faces(cli: Cli, small: Path, tiny: Path) -> None:
    ran = cli("verify", small / "openvino-bf16", "--weights", tiny, "--json")
    (row,) = ran.document["artifacts"]
    assert row["gates"] == {"ion_loss": "not judged"}
    assert row["passed"] is False


def test_a_requested_gate_without_faces_is_not_judged_with_a_note(cli: Cli, small: Path, tiny: Path) -> None:
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--max-drift", "1", "--json")
    (row,) = ran.document["artifacts"]
    assert row["gates"] == {"max_abs": "passed", "drift": "not judged"}
    assert row["passed"] is False
    assert "--data" in ran.err


def test_limits_are_printed_with_the_result(cli: Cli, small: Path, tiny: Path) -> None:
    out = cli("verify", small / "onnx-fp32", "--weights", tiny, "--max-px", "0.25").out
    assert "(limit 1e-05)" in out
    assert "(limit 0.25)" in out


# Broken faces


def broken(faces: Path, case: str) -> str:
    """Breaks one of the faces; returns the expected part of the error message."""
    path = faces / "helen" / "testset" / "h1.pts"
    lines = path.read_text(encoding="utf-8").splitlines()
    if case == "67 points":
        path.write_text("\n".join(lines[:67]), encoding="utf-8")
        return "67 points, expected 68"
    if case == "text":
        path.write_text("\n".join([*lines[:5], "left eye", *lines[6:]]), encoding="utf-8")
        return "'left eye' is not a point"
    if case == "nan":
        path.write_text("\n".join([*lines[:5], "nan 3.0", *lines[6:]]), encoding="utf-8")
        return "'nan 3.0' is not finite"
    if case == "outside":
        path.write_text("\n".join(f"{500 + i} {500 + i}" for i in range(68)), encoding="utf-8")
        return "outside the picture"
    if case == "no area":
        path.write_text("\n".join(["20 20"] * 68), encoding="utf-8")
        return "no area"
    path.with_suffix(".png").write_bytes(b"not a picture")
    return "not a picture"


@pytest.mark.parametrize("case", ["67 points", "text", "nan", "outside", "no area", "unreadable picture"])
def test_a_broken_face_is_refused_with_its_name(cli: Cli, small: Path, tiny: Path, faces: Path, case: str) -> None:
    message = broken(faces, case)
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces)
    ran.refused(4, "h1.", message)
    assert ran.out == ""


@pytest.mark.parametrize("case", ["67 points", "unreadable picture"])
def test_a_broken_training_face_is_refused_before_the_export(cli: Cli, tiny: Path, faces: Path, case: str) -> None:
    message = broken(faces, case)
    arguments = ["--precision", "int8", "--calibration", faces, "--split", "test", "--out", "out"]
    cli("export", tiny, *arguments).refused(4, "h1.", message)
    assert not Path("out/tiny/onnx-int8").exists()


def test_a_folder_without_faces_is_refused(cli: Cli, small: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cli("verify", small / "onnx-fp32", "--data", tmp_path / "empty").refused(4, "no annotated faces")


def test_a_missing_folder_is_refused(cli: Cli, small: Path, tmp_path: Path) -> None:
    cli("verify", small / "onnx-fp32", "--data", tmp_path / "gone").refused(4, "gone does not exist")


def test_a_folder_with_only_training_faces_is_refused(cli: Cli, small: Path, faces: Path) -> None:
    (faces / "helen" / "testset").rename(faces / "helen" / "trainset")
    ran = cli("verify", small / "onnx-fp32", "--data", faces / "helen")
    ran.refused(4, "no test faces")


def test_a_face_without_its_partner_is_reported(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    (faces / "ibug" / "i0.pts").unlink()
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces, "--json")
    assert ran.code == 0
    assert ran.document["artifacts"][0]["ion"]["challenge"]["n"] == 1
    assert "i0.png: no .pts file beside it" in ran.err


# Outputs that are kept


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the source networks that were opened."""
    opened: list[str] = []

    def counted(source: Source) -> object:
        opened.append(source.spec.name)
        return open_source(source)

    for module in (answers, verification):
        monkeypatch.setattr(module, "open_source", counted)
    return opened


def test_the_source_runs_once_for_the_same_inputs(
    cli: Cli, small: Path, tiny: Path, faces: Path, runs: list[str]
) -> None:
    command = ("verify", small, "--weights", tiny, "--data", faces, "--json")
    first = cli(*command)
    assert (first.code, runs) == (0, ["tiny"])
    assert cli(*command).document == first.document
    assert runs == ["tiny"]
    add_face(faces / "ibug", "i0", face(16, 15, 45, 50), seed=10)
    assert cli(*command).document["artifacts"][0]["source_ion"] != first.document["artifacts"][0]["source_ion"]
    assert runs == ["tiny", "tiny"]


def test_the_search_for_ties_of_a_failing_artefact_runs_once(
    cli: Cli, small: Path, tiny: Path, runs: list[str]
) -> None:
    reweigh(small / "onnx-fp32", 1.01)
    command = ("verify", small / "onnx-fp32", "--weights", tiny)
    assert cli(*command).code == 1
    assert runs == ["tiny", "tiny"]
    assert cli(*command).code == 1
    assert runs == ["tiny", "tiny"]


def test_outputs_of_code_that_may_change_are_never_kept(cli: Cli, own_build: Path, runs: list[str]) -> None:
    shutil.copytree(own_build, ".", dirs_exist_ok=True)
    command = ("verify", "flat-Flat/onnx-fp32", "--model", "flat.py:Flat")
    assert cli(*command).code == 0
    text = Path("flat.py").read_text(encoding="utf-8")
    Path("flat.py").write_text(text.replace("self.fc(x.flatten(1))", "2 * self.fc(x.flatten(1))"), encoding="utf-8")
    assert cli(*command).code == 1
    assert len(runs) == 3  # the last one looks for ties


def test_a_cache_that_cannot_be_written_fails_nothing(
    cli: Cli, small: Path, tiny: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces).code == 0


# Machines with fewer packages

LACKING = """
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


def without(*packages: str) -> str:
    """Python code that runs the command line without these packages."""
    return LACKING.format(blocked=packages) + COMMAND


def test_verify_needs_neither_torch_nor_openvino(small: Path, build: Path, weights: Path) -> None:
    code = without("torch", "openvino", "onnxsim", "onnxscript", "safetensors")
    ran = python(code, "verify", build / "pfld" / "onnx-fp32", small / "onnx-fp32", "--json")
    assert ran.code == 0, ran.err
    assert [row["parity"]["against"] for row in ran.document["artifacts"]] == ["reference", "reference"]
    assert [row["passed"] for row in ran.document["artifacts"]] == [True, True]


@pytest.mark.realdata
@pytest.mark.slow
def test_a_detector_without_its_runtime_names_the_package_to_install(small: Path, shared: Path, tmp_path: Path) -> None:
    source = resolve("rfb320", weights=shared / "detectors")
    artifact = convert(source, "openvino", Precision.FP32, out=tmp_path)
    ran = python(without("openvino"), "verify", small / "onnx-fp32", "--boxes", f"detector:{artifact.path}")
    ran.refused(3, "openvino, which is not here", "pip install 'lmconv[openvino]'")


def test_bench_needs_neither_torch_nor_openvino(build: Path, weights: Path) -> None:
    code = without("torch", "openvino", "onnxsim", "onnxscript", "safetensors")
    ran = python(code, "bench", build / "pfld" / "onnx-fp32", "--samples", "64", "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    assert row["ratio_torch"] is None
    assert row["ratio_plain"] > 0
    assert "ratio_torch is null" in ran.err


def test_an_openvino_artefact_without_openvino_ends_with_exit_code_3_and_others_are_verified(small: Path) -> None:
    ran = python(without("openvino"), "verify", small / "openvino-fp32", small / "onnx-fp32", "--json")
    ran.refused(3, "pip install 'lmconv[openvino]'")
    assert [row["target"] for row in ran.document["artifacts"]] == ["onnx"]


def test_export_without_torch_names_the_package_to_install(seeded: Path, tmp_path: Path) -> None:
    ran = python(without("torch"), "export", "pfld", "--weights", seeded, "--out", tmp_path / "out")
    ran.refused(3, "pip install 'lmconv[torch]'")


def test_an_onnx_file_is_exported_without_torch(tiny: Path, tmp_path: Path) -> None:
    ran = python(without("torch", "openvino"), "export", tiny, "--out", tmp_path / "out", "--quiet")
    assert ran.code == 0, ran.err


def test_doctor_names_the_packages_to_install() -> None:
    ran = python(without("torch", "openvino"), "doctor", "--json")
    assert ran.code == 0, ran.err
    installs = {row["name"]: row["install"] for row in ran.document["runtimes"]}
    assert installs["openvino"] == "pip install 'lmconv[openvino]'"
    assert "pip install 'lmconv[torch]'" in installs.values()


def test_models_needs_no_torch_but_for_a_network_of_another_package(tmp_path: Path) -> None:
    env = other_package(tmp_path / "site", "[lmconv.backbones]\nother = lmconv_other:plugin\n", "import torch\n")
    ran = python(without("torch"), "models", "--json", env=env)
    ran.refused(3, "other", "pip install 'lmconv[torch]'")
    assert "pfld" in [row["name"] for row in ran.document["models"]]


# Normalisers, curves, data sets


def test_another_normaliser_is_chosen_recorded_and_named(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    arguments = ("verify", small / "onnx-fp32", "--weights", tiny, "--data", faces, "--json")
    usual, other = cli(*arguments), cli(*arguments, "--normaliser", "box-diagonal")
    rows = [ran.document["artifacts"][0] for ran in (usual, other)]
    assert [row["normaliser"] for row in rows] == ["inter-ocular", "box-diagonal"]
    assert rows[0]["ion"]["full"]["mean"] != rows[1]["ion"]["full"]["mean"]
    assert "ION is divided by box-diagonal, the diagonal of the box" in other.err
    assert "ION is divided" not in usual.err
    assert "ION is divided by box-diagonal" in cli("report", small.parent).out


def test_curves_of_artefacts_and_sources_are_written(cli: Cli, small: Path, tiny: Path, faces: Path) -> None:
    arguments = ("verify", small / "onnx-fp32", small / "openvino-fp32", "--weights", tiny, "--data", faces)
    assert cli(*arguments, "--curve", "ced.csv").code == 0
    header, *rows = Path("ced.csv").read_text(encoding="utf-8").splitlines()
    assert header == "network,of,subset,ion,share"
    full = [row.split(",") for row in rows if ",full," in row and "onnx-fp32,artefact" in row]
    assert [float(row[-1]) for row in full] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert {",".join(row.split(",")[:2]) for row in rows} == {
        f"{small / target},{of}" for target in ("onnx-fp32", "openvino-fp32") for of in ("artefact", "source")
    }
    assert cli(*arguments, "--curve", "ced.svg").code == 0
    picture = Path("ced.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg ")
    assert picture.count("stroke-dasharray") == 4, "two sources, each with its entry in the legend"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--normaliser", "ipd"), ("unknown normaliser 'ipd'", "inter-ocular, inter-pupil, box-side, box-diagonal")),
        (("--curve", "ced.pdf"), ("ced.pdf is neither .csv nor .svg",)),
        (("--dataset", "wlfw"), ("unknown dataset 'wlfw'", "did you mean wflw?")),
    ],
)
def test_unknown_names_are_refused_before_any_work(cli: Cli, options: tuple[str, str], parts: tuple[str]) -> None:
    cli("verify", "gone", *options).refused(2, *parts)


def test_an_annotation_file_and_a_sample_of_faces_are_accepted(cli: Cli, small: Path, tiny: Path) -> None:
    add_face(Path("own"), "a", face(20, 10, 50, 45))
    header = ",".join(["image", *(f"{axis}{number}" for number in range(68) for axis in "xy")])
    rows = [",".join(["a.png", *map(str, face(20, 10, 50 + more, 45).ravel())]) for more in range(3)]
    Path("own/mine.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    ran = cli("verify", small / "onnx-fp32", "--weights", tiny, "--data", "own/mine.csv", "--most", "2", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["artifacts"][0]["ion"]["mine"]["n"] == 2
