from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.goldens import make
from tests.helpers import contents, python, tiny_onnx

from lmconv.building import plain as plains
from lmconv.building.assembling import build, graph_for
from lmconv.building.plain import plain_graph
from lmconv.building.recipe import resolve
from lmconv.building.request import Choices, Conversion
from lmconv.errors import GateFailed, InputError, MissingRuntime, UsageError
from lmconv.networks.interfaces import interface_of
from lmconv.pipeline import convert
from lmconv.plugins import PASSES, TARGETS
from lmconv.sources import resolve as source
from lmconv.store import artifact as artifacts
from lmconv.store import reference as reference_file
from lmconv.types import OPSET, BuildOptions, Built, Json, ModelSpec, Pass, PassContext, Precision, Variant

SAME = """
import sys
from pathlib import Path
from lmconv.sources import resolve as source
from lmconv.pipeline import convert
network = source.resolve(sys.argv[1])
for target in sys.argv[3:]:
    convert(network, target, "fp32", out=Path(sys.argv[2]))
"""


def test_the_documented_python_example_converts(tiny: Path, tmp_path: Path) -> None:
    artifact = convert(source.resolve(str(tiny)), "onnx", Precision.FP32, out=tmp_path)
    assert artifact.path == tmp_path / "tiny" / "onnx-fp32"
    assert artifact == artifacts.read(artifact.path)


# Same recipe, same bytes


@pytest.mark.slow
def test_another_process_gives_the_same_bytes_and_digests(small: Path, tiny: Path, tmp_path: Path) -> None:
    ran = python(SAME, tiny, tmp_path / "out", "onnx", "openvino")
    assert ran.code == 0, ran.err
    for name in ("plain", "onnx-fp32", "openvino-fp32"):
        here, there = artifacts.read(small / name), artifacts.read(tmp_path / "out" / "tiny" / name)
        assert here.files == there.files, name
        assert here.digest == there.digest, name


def test_an_earlier_export_does_not_change_the_artefact(tiny: Path, tmp_path: Path) -> None:
    network = source.resolve(str(tiny))
    first = convert(network, "openvino", Precision.FP32, out=tmp_path / "a")
    second = convert(network, "openvino", Precision.FP32, out=tmp_path / "b")
    assert first.files == second.files
    assert first.digest == second.digest


@pytest.mark.slow
def test_pytorchs_exporter_gives_the_same_bytes_in_another_process(
    pfld_build: Path, seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMCONV_WEIGHTS", str(seeded))
    ran = python(SAME, "pfld", tmp_path / "out", "onnx")
    assert ran.code == 0, ran.err
    for name in ("plain", "onnx-fp32"):
        here, there = artifacts.read(pfld_build / "pfld" / name), artifacts.read(tmp_path / "out" / "pfld" / name)
        assert here.files == there.files
        assert here.digest == there.digest


# The plain graph on disk


def test_the_plain_graph_is_kept_and_used_again(small: Path, tiny: Path) -> None:
    path = small / "plain" / "model.onnx"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    convert(source.resolve(str(tiny)), "onnx", Precision.FP32, out=small.parent)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_the_plain_graph_is_made_again_if_the_source_changes(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny.onnx"
    other.write_bytes(tiny_onnx(seed=1).SerializeToString())
    before = artifacts.read(small / "plain")
    artifact = convert(source.resolve(str(other)), "onnx", Precision.FP32, out=small.parent)
    after = artifacts.read(small / "plain")
    assert after.files["model.onnx"] != before.files["model.onnx"]
    assert (
        after.parents["source"]["sha256"] == artifact.parents["source"]["sha256"] == source.resolve(str(other)).sha256
    )
    assert artifact.files["model.onnx"] == after.files["model.onnx"]


def test_the_plain_graph_is_made_again_for_another_preprocessing(small: Path, tiny: Path) -> None:
    from lmconv.networks.preprocess import parse

    network = source.resolve(str(tiny), preprocess=parse("RGB,1/127,1,1"))
    artifact = convert(network, "onnx", Precision.FP32, out=small.parent)
    assert artifact.spec.preprocess.colour == "RGB"
    assert artifacts.read(small / "plain").spec.preprocess == artifact.spec.preprocess


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "modules.json", "manifest.json"])
def test_a_damaged_plain_graph_is_made_again(small: Path, tiny: Path, name: str) -> None:
    before = contents(small / "plain")
    (small / "plain" / name).write_bytes(b"damaged")
    convert(source.resolve(str(tiny)), "onnx", Precision.FP32, out=small.parent)
    after = contents(small / "plain")
    assert {key: value for key, value in after.items() if key != "manifest.json"} == {
        key: value for key, value in before.items() if key != "manifest.json"
    }
    artifacts.read(small / "plain")


def test_the_plain_graph_of_another_checkpoint_is_not_used(
    build: Path, seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed.pth"
    state = dict(make.seeded("pfld").state_dict())
    torch.save({**state, "fc.bias": state["fc.bias"] + 0.1}, changed)
    for path, expected in ((seeded, True), (changed, False)):
        network = source.resolve("pfld", weights=path)
        network = replace(network, path=Path("pfld_model_best.pth.tar"))
        assert (
            plains._kept(build / "pfld" / "plain", network) is not None
        ) is expected  # tested directly, because an export takes ten seconds


# Content of an artefact


def test_the_reference_holds_seeded_inputs_and_the_sources_landmarks(small: Path, tiny: Path) -> None:
    network = source.resolve(str(tiny))
    reference = reference_file.read(artifacts.read(small / "openvino-fp32"))
    inputs, expected = reference.inputs["input"], reference.outputs.landmarks
    assert reference.outputs.heatmaps is None
    assert inputs.shape == (8, 3, 32, 32)
    assert expected.shape == (8, 68, 2)
    assert {array.dtype.name for array in (inputs, expected)} == {"float32"}
    with source.open_source(network) as session:
        np.testing.assert_allclose(session.run({"input": inputs})["landmarks"], expected, atol=1e-6)


def test_no_manifest_contains_a_path_of_this_machine(small: Path, tiny: Path, tmp_path: Path) -> None:
    for path in small.glob("*/manifest.json"):
        text = path.read_text(encoding="utf-8")
        assert str(tiny.parent) not in text
        assert str(Path.home()) not in text
        assert str(tmp_path) not in text


# Refusals


def test_a_precision_that_the_target_lacks_is_refused_before_any_work(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target onnx has no precision bf16"):
        convert(source.resolve(str(tiny)), "onnx", Precision.BF16, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_target_is_refused_with_a_suggestion(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown target 'openvin' .*did you mean openvino"):
        convert(source.resolve(str(tiny)), "openvin", Precision.FP32, out=tmp_path / "out")


def test_tensorrt_without_a_gpu_says_what_to_install(tiny: Path, tmp_path: Path) -> None:
    if TARGETS.load("tensorrt").requires() is None:
        pytest.skip("TensorRT and a GPU are here")
    with pytest.raises(MissingRuntime) as error:
        convert(source.resolve(str(tiny)), "tensorrt", Precision.FP32, out=tmp_path / "out")
    assert "lmconv[tensorrt]" in error.value.hint or "GPU" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_a_network_that_computes_nan_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx()
    bias = np.full(136, np.nan, np.float32)
    model.graph.initializer[3].CopyFrom(numpy_helper.from_array(bias, "fc.bias"))
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises((GateFailed, InputError), match="NaN"):
        convert(source.resolve(str(tmp_path / "x.onnx")), "onnx", Precision.FP32, out=tmp_path / "out")
    assert contents(tmp_path / "out") == {}


class Blurred:
    """A target that changes the weights of the last layer by one per cent."""

    def __init__(self) -> None:
        self.real = TARGETS.load("onnx")

    def build(
        self, model: onnx.ModelProto, out: Path, spec: ModelSpec, precision: Precision, options: BuildOptions
    ) -> Built:
        for tensor in model.graph.initializer:
            if tensor.name == "fc.weight":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
        return self.real.build(model, out, spec, precision, options)


def test_an_artefact_that_differs_from_its_source_is_not_written(
    small: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    bad = Blurred()
    plain = plain_graph(source.resolve(str(tiny)), small.parent)
    before = contents(small)
    fake = replace(bad.real, build=bad.build)
    with (
        TARGETS.using(onnx=fake),
        pytest.raises(GateFailed, match=r"tiny as onnx fp32: landmarks are .* off, allowed 1e-05.*Gemm points"),
    ):
        build(Conversion(base=plain, out=small.parent), Variant(target="onnx", precision=Precision.FP32))
    after = contents(small)
    assert {path: content for path, content in after.items() if "why" not in Path(path).parts} == before


def test_a_required_pass_that_changes_results_stops_the_export(
    small: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruin(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        for tensor in model.graph.initializer:
            if tensor.name == "fc.bias":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.1), "fc.bias"))
        return model, {}

    bad = Pass(name="float16", summary="", apply=ruin, tolerance=1e-3, required=True)
    before = contents(small)
    with PASSES.using(float16=bad), pytest.raises(GateFailed, match="pass float16 is refused"):
        convert(source.resolve(str(tiny)), "onnx", Precision.FP16, out=small.parent)
    assert contents(small) == before


def test_an_optional_pass_that_changes_results_is_left_out_and_recorded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruin(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        for tensor in model.graph.initializer:
            if tensor.name == "fc.bias":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.1), "fc.bias"))
        return model, {}

    bad = Pass(name="simplify", summary="", apply=ruin, tolerance=1e-6)
    with PASSES.using(simplify=bad):
        plain = plain_graph(source.resolve(str(tiny)), tmp_path)
    assert "pass simplify is left out: landmarks move by" in plain.warnings[0]
    recipe = json.loads((tmp_path / "tiny" / "plain" / "manifest.json").read_text(encoding="utf-8"))["recipe"]
    assert "landmarks move by" in recipe["passes"][0]["refused"]


def test_a_warning_is_repeated_if_the_plain_graph_is_reused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        raise RuntimeError("cannot")

    bad = Pass(name="simplify", summary="", apply=fail, tolerance=1e-6)
    with PASSES.using(simplify=bad):
        first = plain_graph(source.resolve(str(tiny)), tmp_path)
        second = plain_graph(source.resolve(str(tiny)), tmp_path)
    assert first.warnings
    assert second.warnings == first.warnings


def test_the_model_of_a_copied_folder_still_verifies_there(small: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(small / "onnx-fp32", tmp_path / "anywhere"))
    assert artifacts.read(moved).digest == artifacts.read(small / "onnx-fp32").digest


# The graph that a target receives


def test_a_graph_can_be_built_without_the_runtime_of_its_target(tiny: Path, tmp_path: Path) -> None:
    plain = plain_graph(source.resolve(str(tiny)), tmp_path)
    if TARGETS.load("tensorrt").requires() is None:
        pytest.skip("TensorRT is here")
    ready = graph_for(
        Conversion(base=plain, out=tmp_path), Variant(target="tensorrt", precision=Precision.FP16, io="image")
    )
    inputs = [tensor.name for tensor in interface_of(ready.spec).inputs]
    assert [value.name for value in ready.model.graph.input] == inputs == ["image"]
    steps = ["simplify", "denormals", "compact", "linear", "float16"]
    assert [step["pass"] for step in ready.recipe["passes"]] == steps
    assert ready.recipe["opset"] == OPSET


def test_the_last_passes_of_a_target_see_the_whole_graph_and_are_in_the_recipe(
    small: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def look(model: onnx.ModelProto, context: PassContext) -> tuple[onnx.ModelProto, Json]:
        seen.append([value.name for value in model.graph.input])
        return model, {"looked": True}

    looking = Pass(name="looking", summary="looks", apply=look, tolerance=0.0)
    needing = replace(TARGETS.load("onnx"), last=lambda model: ("looking",))
    with PASSES.using(looking=looking), TARGETS.using(onnx=needing):
        plain = plain_graph(source.resolve(str(tiny)), small.parent)
        artifact = build(Conversion(base=plain, out=small.parent), Variant(target="onnx", io="image"))
    assert ["image"] in seen
    assert artifact.recipe["last"] == [{"pass": "looking", "decisions": {"looked": True}, "refused": None}]
    again = resolve(Variant(target="onnx"), needing, Choices(recipe=artifact)).passes
    assert "looking" not in again, "the last passes depend on the runtime, not on the recipe"
