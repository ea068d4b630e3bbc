"""The `onnx` target on a GPU, as far as a machine without one can show it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
from tests.helpers import tiny_onnx

from lmconv.errors import InputError, MissingRuntime
from lmconv.inference.ort import ASSIGNED, OrtSession, on_the_cpu
from lmconv.store import artifact as artifacts
from lmconv.targets import onnx
from lmconv.types import OpenOptions

CUDA = "CUDAExecutionProvider"
without_cuda = pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA here")


def test_nodes_on_the_cpu_are_told_by_operator_and_name() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(ASSIGNED, "1")
    session = onnxruntime.InferenceSession(tiny_onnx().SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert ("Conv", "conv") in on_the_cpu(session)
    assert ("Gemm", "fc") in on_the_cpu(session)


def test_an_onnx_runtime_that_cannot_tell_says_nothing() -> None:
    assert on_the_cpu(object()) == []


def test_what_is_not_on_the_gpu_is_a_caveat() -> None:
    assert onnx._cpu_nodes([]) == ""
    assert onnx._cpu_nodes([("Resize", "up"), ("Loop", "")]) == (
        "asked for a GPU, ONNX Runtime computes up (Resize), a node (Loop) on the CPU"
    )
    assert onnx._cpu_nodes([("Resize", "up")] * 5).endswith(
        "up (Resize), up (Resize), up (Resize) and 2 more on the CPU"
    )


@without_cuda
def test_without_cuda_the_remedy_is_named(small: Path) -> None:
    with pytest.raises(MissingRuntime, match="ONNX Runtime has no CUDA here") as raised:
        onnx.open_artifact(artifacts.read(small / "onnx-fp32"), OpenOptions(device="gpu"))
    assert "onnxruntime-gpu" in raised.value.hint


@without_cuda
def test_a_provider_that_is_not_here_is_no_silent_cpu(small: Path) -> None:
    """A session says which providers it has; the target compares that with what it asked for."""
    path = artifacts.model_file(artifacts.read(small / "onnx-fp32"), ".onnx")
    with OrtSession(path, provider=(CUDA, {})) as session:
        assert CUDA not in session.providers


def test_a_model_that_cannot_be_loaded_is_not_tried_again_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match="model"):
        OrtSession(tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""
    assert onnx._loads_on_the_cpu(tmp_path / "model.onnx") is False


def test_a_gpu_computes_as_the_artefact_says_and_on_the_stream_that_is_given(small: Path) -> None:
    name, settings = onnx._cuda(artifacts.read(small / "onnx-fp32"), 0)
    assert (name, settings) == (CUDA, {"device_id": "0", "use_tf32": "0"})
    assert onnx._cuda(artifacts.read(small / "onnx-fp32"), 94)[1]["user_compute_stream"] == "94"


def test_a_broken_model_is_a_broken_input_and_no_missing_runtime(small: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    (small / "onnx-fp32" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="ONNX Runtime cannot load"):
        onnx.open_artifact(artifact, OpenOptions())
