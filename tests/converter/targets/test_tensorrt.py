"""The TensorRT target without TensorRT: manifest, refusals, splitting of batches, and messages.

Tests that replace the build test the work of lmconv before and after the build.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers import Cli, tiny_onnx

from lmconv.building.target_graph import with_batch
from lmconv.engines import ledger, remedy
from lmconv.errors import GateFailed, InputError, LmconvError, MissingRuntime
from lmconv.store import artifact as artifacts
from lmconv.targets import tensorrt
from lmconv.trt import device
from lmconv.trt.build import Options, Plan
from lmconv.trt.faults import KINDS, Fault
from lmconv.types import Arrays, BuildOptions, ChosenOutputs, Decode, OpenOptions, Precision, Preprocess, landmark_spec

HERE = {
    "gpu": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "tensorrt": "11.4.0",
    "cuda": "13.0",
    "driver": "580.95",
    "platform": "linux-x86_64",
    "memory": 80 << 30,
    "bus": "0000:01:00.0",
}
SPEC = landmark_spec("tiny", "onnx", size=(32, 32), landmarks=68)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """Replaces TensorRT's build by an instant build of `engine of N bytes`; returns the list of received options."""
    received: list[Options] = []

    def build(onnx: bytes, options: Options) -> Plan:
        received.append(options)
        engine = f"engine of {len(onnx)} bytes".encode()
        return Plan(engine=engine, cache=b"2 kernels", seconds=0.1, layers=3, memory=0, warnings=())

    monkeypatch.setattr(tensorrt, "build_plan", build)
    monkeypatch.setattr(device, "describe", lambda: dict(HERE))
    return received


# Building


def test_the_options_of_an_engine_are_recorded(builder: list[Options], tmp_path: Path) -> None:
    options = BuildOptions(profile=(1, 4, 16), workspace=1 << 28, builder_level=5, version_compatible=True)
    built = tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP16, options)
    assert built.recipe == {
        "engine": {
            "batches": [1, 4, 16],
            "workspace": 1 << 28,
            "builder_level": 5,
            "version_compatible": True,
            "hardware_compatible": False,
        }
    }
    assert built.execution == {"tf32": False, "batches": [1, 4, 16]}
    machine = {name: HERE[name] for name in ("gpu", "compute_capability", "tensorrt", "cuda", "driver", "platform")}
    assert built.machine == machine | {"version_compatible": True, "hardware_compatible": False}
    expected = Options(profile=(1, 4, 16), workspace=1 << 28, level=5, version_compatible=True)
    assert builder == [expected]


def test_a_fixed_batch_has_no_profile(builder: list[Options], tmp_path: Path) -> None:
    built = tensorrt.build(tiny_onnx(), tmp_path, with_batch(SPEC, 2), Precision.FP32)
    assert builder[0].profile is None
    assert built.execution == {"tf32": False}


def test_a_built_engine_is_added_to_the_ledger(builder: list[Options], tmp_path: Path) -> None:
    tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP32)
    assert ledger.known(hashlib.sha256((tmp_path / "model.engine").read_bytes()).hexdigest())


def test_a_timing_cache_is_kept_for_each_version_and_gpu(builder: list[Options], tmp_path: Path) -> None:
    for _ in range(2):
        tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP32, BuildOptions(cache=tmp_path))
    cache = tmp_path / "tensorrt-11.4.0-NVIDIA-H100-80GB-HBM3.cache"
    assert cache.read_bytes() == b"2 kernels"
    assert [options.cache for options in builder] == [None, b"2 kernels"]


def test_a_locked_cache_allows_a_build_that_does_not_change_it(builder: list[Options], tmp_path: Path) -> None:
    cache = tmp_path / "my.cache"
    cache.write_bytes(b"2 kernels")
    tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP32, BuildOptions(cache=cache, locked=True))
    assert (tmp_path / "model.engine").exists()


@pytest.mark.parametrize(
    ("before", "message"),
    [(b"1 kernel", "kernels were timed that .* does not have"), (None, "there is no timing cache")],
)
def test_a_locked_cache_that_would_change_is_refused(
    builder: list[Options], tmp_path: Path, before: bytes | None, message: str
) -> None:
    cache = tmp_path / "my.cache"
    if before:
        cache.write_bytes(before)
    with pytest.raises(GateFailed, match=message):
        tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP32, BuildOptions(cache=cache, locked=True))
    assert not (tmp_path / "model.engine").exists()
    assert (cache.read_bytes() if cache.exists() else None) == before


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("device", MissingRuntime),
        ("memory", MissingRuntime),
        ("load", MissingRuntime),
        ("build", GateFailed),
        ("locked", GateFailed),
        ("run", GateFailed),
        ("shape", InputError),
    ],
)
def test_a_fault_becomes_an_lmconv_error(kind: str, error: type[LmconvError]) -> None:
    with pytest.raises(LmconvError) as raised, tensorrt.faults():
        raise Fault(kind, "what", "do this")
    assert type(raised.value) is error
    assert str(raised.value) == "what (do this)"


def test_every_kind_of_fault_has_an_lmconv_error() -> None:
    assert set(tensorrt.ERRORS) == set(KINDS)


@pytest.mark.parametrize("node", ["fc", "points"])
def test_a_fault_names_the_module_of_the_network(
    monkeypatch: pytest.MonkeyPatch, builder: list[Options], tmp_path: Path, node: str
) -> None:
    def refuse(onnx: bytes, options: Options) -> Plan:
        raise Fault("build", f"cannot parse node {node}", "use another target", [node])

    monkeypatch.setattr(tensorrt, "build_plan", refuse)
    options = BuildOptions(modules={"points": "head.1", "a": "features.0"})
    with pytest.raises(GateFailed, match=rf"^cannot parse node {node} \(in the network: head.1\) \(use another"):
        tensorrt.build(tiny_onnx(), tmp_path, SPEC, Precision.FP32, options)


# Splitting of batches


@pytest.mark.parametrize(
    ("count", "batches", "sizes"),
    [
        (8, (1, 4, 8), [8]),
        (19, (1, 4, 8), [8, 8, 3]),
        (1, (4, 8, 16), [4]),
        (18, (4, 8, 16), [16, 4]),
        (0, (1, 4, 8), [1]),
        (3, None, [3]),
    ],
)
def test_inputs_are_split_into_batches_of_the_profile(
    count: int, batches: tuple[int, int, int] | None, sizes: list[int]
) -> None:
    ran = []

    def run(arrays: Arrays) -> dict[str, NDArray[Any]]:
        ran.append(len(arrays["x"]))
        return {"y": arrays["x"] * 2}

    x = np.arange(count * 3.0).reshape(count, 3)
    outputs = tensorrt.in_portions(run, {"x": x}, batches)["y"]
    assert ran == sizes
    np.testing.assert_array_equal(outputs, x * 2)


# The ledger


def test_only_noted_engines_are_known() -> None:
    first, second = "a" * 64, "b" * 64
    assert not ledger.known(first)
    ledger.note(first)
    ledger.note(first)
    assert ledger.known(first)
    assert not ledger.known(second)
    ledger.note(second)
    assert ledger.path().read_text() == f"{first}\n{second}\n"


def test_an_incomplete_line_in_the_ledger_affects_no_other_line() -> None:
    ledger.note("a" * 64)
    with ledger.path().open("a") as file:
        file.write("b" * 20)
    ledger.note("c" * 64)
    assert ledger.known("a" * 64)
    assert ledger.known("c" * 64)
    assert not ledger.known("b" * 20 + "c" * 64)


def test_a_ledger_that_cannot_be_read_or_written_is_one_clear_error() -> None:
    ledger.path().parent.parent.mkdir(parents=True)
    ledger.path().parent.write_text("no folder")
    with pytest.raises(InputError, match=r"cannot (read|write) .*engines.txt"):
        ledger.note("a" * 64)
    ledger.path().parent.unlink()
    ledger.path().mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot read .*engines.txt"):
        ledger.known("a" * 64)


# Loading


def test_invalid_bytes_in_the_ledger_are_ignored() -> None:
    ledger.path().parent.mkdir(parents=True, exist_ok=True)
    ledger.path().write_bytes(b"\xff\xfe\x00" * 1000)
    assert not ledger.known("a" * 64)
    ledger.note("a" * 64)
    assert ledger.known("a" * 64)


def engine(small: Path, machine: Mapping[str, object], **recipe: object) -> Path:
    """Turns an artefact of the tiny network into an artefact with an engine; returns its folder."""
    folder = small / "tensorrt-fp32"
    (small / "onnx-fp32").rename(folder)
    (folder / "model.onnx").rename(folder / "model.engine")
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    document["recipe"] |= recipe
    artifacts.write(folder, document | {"target": "tensorrt", "machine": dict(machine)})
    return folder


BATCHES = {"engine": {"batches": [1, 4, 32], "workspace": 1 << 29, "builder_level": 4, "version_compatible": True}}


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_an_engine_of_another_machine_ends_with_exit_code_3_and_the_command_to_rebuild_it(
    cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(tensorrt, "requires", lambda: None)
    monkeypatch.setattr(device, "describe", lambda: dict(HERE))
    there = HERE | {"gpu": "NVIDIA A10", "compute_capability": "8.6", "tensorrt": "10.9.0", "version_compatible": True}
    folder = engine(small, there, **BATCHES)
    again = (
        "build it here: lmconv export tiny.onnx --to tensorrt --precision fp32 --batch 1:4:32 --workspace 512MiB "
        "--builder-level 4 --version-compatible"
    )
    built = "built for NVIDIA A10 (sm_86) with TensorRT 10.9.0; here NVIDIA H100 80GB HBM3 (sm_90) with TensorRT 11.4.0"
    cli(command, folder, "--trust").refused(3, built, again)


@pytest.mark.skipif(device.missing() is None, reason="TensorRT and a GPU are here")
def test_a_matching_engine_needs_a_device(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "requires", lambda: None)
    monkeypatch.setattr(device, "describe", lambda: dict(HERE))
    artifact = artifacts.read(engine(small, HERE))
    with pytest.raises(MissingRuntime, match=r"cannot be used on this machine: .*build it here: lmconv export"):
        tensorrt.open_artifact(artifact, OpenOptions(trust=True))


def test_control_characters_of_a_manifest_are_escaped(cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "requires", lambda: None)
    monkeypatch.setattr(device, "describe", lambda: dict(HERE))
    folder = engine(small, HERE | {"gpu": "A10\x9b2J\nerror: all is well\x08"})
    cli("verify", folder, "--trust").refused(3, r"built for A10\x9b2J error: all is well\x08 (sm_90)")


# The command that makes an artefact again


def test_the_rebuild_command_makes_the_same_model(cli: Cli, small: Path, tiny: Path, tmp_path: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    lmconv, *arguments = shlex.split(remedy.command(artifact))
    assert lmconv == "lmconv"
    Path("tiny.onnx").write_bytes(tiny.read_bytes())
    assert cli(*arguments, "--out", tmp_path / "again", "--no-guard").code == 0
    again = artifacts.read(tmp_path / "again" / "tiny" / "onnx-fp32")
    assert again.files == artifact.files


def test_the_rebuild_command_has_all_options_of_the_manifest(small: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    other = replace(
        artifact,
        target="tensorrt",
        precision=Precision.INT8,
        spec=replace(artifact.spec, backbone="pfld", name="mine", io="image"),
        parents={"source": {"file": "my weights.pth", "sha256": ""}},
        recipe={**artifact.recipe, "faces": ["0123"], "engine": {"batches": [1, 8, 64], "hardware_compatible": True}},
    )
    assert remedy.command(other) == (
        "lmconv export pfld --weights 'my weights.pth' --name mine --to tensorrt --precision int8 --io image "
        "--calibration FACES --batch 1:8:64 --hardware-compatible"
    )


def test_the_rebuild_command_names_the_output_and_its_unit(small: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    chosen = ChosenOutputs(names=("y",), axes="xyz", unit_reason="--unit", left_out=("score float32 (N, 8)",))
    spec = replace(artifact.spec, landmarks=7, decode="pixels", chosen=chosen)
    assert "--output y --landmarks 7 --unit pixels --coordinates xy" in remedy.command(replace(artifact, spec=spec))


def test_the_rebuild_command_of_a_user_network_has_its_input_options(small: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    preprocess = Preprocess(colour="RGB", scale=0.5, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    spec = replace(artifact.spec, backbone="nets.py:build", name="build", preprocess=preprocess)
    spec = with_batch(replace(spec, heatmaps=Decode(method="soft-argmax", beta=2)), 4)
    other = replace(artifact, spec=spec, parents={"source": {"file": None, "sha256": "", "seed": 3}})
    assert remedy.command(other) == (
        "lmconv export nets.py:build --random-weights --seed 3 --name build --input 3x32x32 --landmarks 68 "
        "--preprocess RGB,0.5,0.1:0.2:0.3,1.0 --decode soft-argmax:2 --to onnx --precision fp32 --batch 4"
    )
