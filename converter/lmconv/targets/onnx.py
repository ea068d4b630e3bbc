"""ONNX, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmconv.artifact import model_file
from lmconv.errors import InputError, MissingRuntime, first_line
from lmconv.types import (
    AS_USUAL,
    Artifact,
    BuildOptions,
    Built,
    ModelSpec,
    OpenOptions,
    Precision,
    QuantScheme,
    Session,
    Target,
)

if TYPE_CHECKING:
    import onnx

REWRITES = {
    Precision.FP32: ("dead", "batchnorm", "resize", "activations", "prelu", "gates"),
    Precision.FP16: ("dead", "prelu"),
    Precision.INT8: ("dead", "prelu", "gates"),
}
"""What is faster here, see docs/passes.md. `gates` comes last: what it tells of shapes is forgotten by other passes."""
PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def build(
    model: onnx.ModelProto,
    out: Path,
    spec: ModelSpec,
    precision: Precision,
    options: BuildOptions = AS_USUAL,
) -> Built:
    """Writes model.onnx, weights inside."""
    (out / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return Built(execution={"tf32": False})


def open_artifact(artifact: Artifact, options: OpenOptions) -> Session:
    """Loads it on the CPU, or on a GPU by CUDA.

    Raises:
        MissingRuntime: This ONNX Runtime has no CUDA, or finds no device.
        InputError: It cannot load the model.
    """
    import onnxruntime

    from lmconv.runtime import OrtSession

    provider = PROVIDERS[options.device]
    if provider not in onnxruntime.get_available_providers():
        raise MissingRuntime(
            "ONNX Runtime has no CUDA here", hint="pip install onnxruntime-gpu, on a machine with a GPU"
        )
    settings = {"use_tf32": str(int(artifact.execution["tf32"]))} if options.device == "gpu" else {}
    path = model_file(artifact, ".onnx")
    try:
        session = OrtSession(path, threads=options.threads, provider=(provider, settings))
    except Exception as error:  # ONNX Runtime raises types of its own compiled module
        raise InputError(f"ONNX Runtime cannot load {path}: {first_line(error)}", hint="export again") from error
    if provider not in session.providers:
        raise MissingRuntime("ONNX Runtime finds no CUDA device", hint="run `lmconv doctor`, or use --device cpu")
    return session


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
)
