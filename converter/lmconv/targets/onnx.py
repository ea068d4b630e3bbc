"""Target `onnx`: ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.errors import InputError, MissingRuntime, first_line
from lmconv.inference.probe import OrtProbe
from lmconv.store.artifact import model_file
from lmconv.types import (
    DEFAULT_BUILD,
    Artifact,
    BuildOptions,
    Built,
    Inside,
    ModelSpec,
    OpenOptions,
    Precision,
    QuantScheme,
    Target,
)

if TYPE_CHECKING:
    import onnx

    from lmconv.inference.ort import OrtSession, Provider

REWRITES = {
    Precision.FP32: ("dead", "batchnorm", "resize", "activations", "prelu", "gates"),
    Precision.FP16: ("dead", "prelu"),
    Precision.INT8: ("dead", "prelu", "gates"),
}
"""Passes that make graphs faster, see docs/passes.md. `gates` comes last: other passes drop its shape information."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def build(
    model: onnx.ModelProto,
    out: Path,
    spec: ModelSpec,
    precision: Precision,
    options: BuildOptions = DEFAULT_BUILD,
) -> Built:
    """Writes model.onnx, with the weights inside."""
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return Built(execution={"tf32": False})


def open_artifact(artifact: Artifact, options: OpenOptions, *, stream: int = 0) -> OrtSession:
    """Loads an artefact on the CPU, or on a GPU with CUDA.

    Args:
        artifact: The artefact.
        options: Device and threads.
        stream: Handle of the CUDA stream for the computation; 0 for a stream of the session.

    Raises:
        MissingRuntime: The installed ONNX Runtime has no CUDA, or finds no device.
        InputError: ONNX Runtime cannot load the model.
    """
    import onnxruntime

    from lmconv.inference.ort import CPU, OrtSession, on_the_cpu

    path, name = model_file(artifact, ".onnx"), PROVIDERS[options.device]
    if name not in onnxruntime.get_available_providers():
        hint = "pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, on a machine with a GPU"
        raise MissingRuntime("ONNX Runtime has no CUDA here", hint=hint)
    provider = CPU if options.device == "cpu" else _cuda(artifact, stream)
    try:
        session = OrtSession(path, threads=options.threads, provider=provider)
    except Exception as error:  # ONNX Runtime raises types of its compiled module
        if options.device == "gpu" and _loads_on_the_cpu(path):
            message = f"ONNX Runtime cannot run {path} by CUDA: {first_line(error)}"
            raise MissingRuntime(message, hint="run `lmconv doctor`, or use --device cpu") from error
        raise InputError(f"ONNX Runtime cannot load {path}: {first_line(error)}", hint="export again") from error
    if name not in session.providers:
        hint = "CUDA or cuDNN is missing, or there is no device: run `lmconv doctor`, or use --device cpu"
        raise MissingRuntime("ONNX Runtime cannot use CUDA here, and would compute on the CPU", hint=hint)
    session.execution_mismatch = _cpu_nodes(on_the_cpu(session.session)) if options.device == "gpu" else ""
    return session


def _cuda(artifact: Artifact, stream: int) -> Provider:
    """Returns the CUDA provider with an artefact's settings.

    By default the provider searches exhaustively for the fastest convolutions at the first run, without CUDA graphs.
    """
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on: CUDA and cuDNN as pip installs them
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    settings = {"device_id": "0", "use_tf32": str(int(artifact.execution["tf32"]))}
    return PROVIDERS["gpu"], settings | ({"user_compute_stream": str(stream)} if stream else {})


def _loads_on_the_cpu(path: Path) -> bool:
    from lmconv.inference.ort import OrtSession

    try:
        with OrtSession(path):
            return True
    except Exception:  # as above
        return False


def _cpu_nodes(nodes: list[tuple[str, str]]) -> str:
    """Describes the nodes that a session computes on the CPU; empty without such nodes."""
    if not nodes:
        return ""
    named = ", ".join(f"{name or 'a node'} ({kind})" for kind, name in nodes[:3])
    rest = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"asked for a GPU, ONNX Runtime computes {named}{rest} on the CPU"


plugin = Target(
    name="onnx",
    summary="ONNX, run by ONNX Runtime",
    suffixes=(".onnx",),
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8, Precision.MIXED),
    quantisation=QuantScheme(
        activations="uint8",
        bracket=True,
        reason="its x86 kernels multiply unsigned activations by signed weights; signed ones are slower",
    ),
    on_arm=QuantScheme(
        activations="int8",
        bracket=True,
        reason="its ARM kernels multiply signed by signed (SDOT), and a zero point of 0 saves a correction",
    ),
    requires=lambda: None,
    build=build,
    open=open_artifact,
    rewrites=REWRITES,
    int8_ion_loss=0.3,
    inside=Inside(
        open=lambda path, execution: OrtProbe(path),
        imports="onnxruntime",
        call='onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)',
    ),
    contestant=lambda artifact, device: ("lmconv.contestants.ort", [artifact.path, "--device", device]),
)
