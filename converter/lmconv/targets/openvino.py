"""OpenVINO IR. Its CPU plug-in computes in bf16 where the CPU can, unless told otherwise: it is always told."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lmconv.artifact import model_file
from lmconv.errors import InputError, MissingRuntime, first_line
from lmconv.plugins import INSTALL
from lmconv.types import (
    Arrays,
    Artifact,
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

HINT = "INFERENCE_PRECISION_HINT"


def requires() -> str | None:
    """What to install, where OpenVINO is missing."""
    return None if find_spec("openvino") else INSTALL["openvino"]


def build(model: onnx.ModelProto, out: Path, spec: ModelSpec, precision: Precision) -> Built:
    """Writes model.xml and model.bin."""
    import openvino

    converted = openvino.Core().read_model(model.SerializeToString(deterministic=True))
    for index, node in enumerate(converted.get_ordered_ops()):
        # Nodes that OpenVINO adds are numbered through the life of the process; here, through the graph.
        stem, _, number = node.get_friendly_name().rpartition("_")
        if number.isdecimal() and stem == node.get_type_name():
            node.set_friendly_name(f"{stem}_added_{index}")
    try:
        openvino.save_model(converted, out / "model.xml", compress_to_fp16=False)
    except RuntimeError as error:  # its way of saying that the file system refused
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"OpenVINO cannot write {out}: {reason}", hint="free space there, or name another") from error
    return Built(execution={"device": "CPU", HINT: "bf16" if precision == Precision.BF16 else "f32"})


class OpenVinoSession:
    """A `Session` on OpenVINO's CPU plug-in: one stream, latency first."""

    def __init__(self, path: Path, hint: str, threads: int) -> None:
        import openvino

        config: dict[str, Any] = {HINT: hint, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(path, "CPU", config)
        used = compiled.get_property(HINT).to_string()
        self.caveat = "" if used == hint else f"asked for {hint}, this CPU computes in {used}"
        self._names = [output.any_name for output in compiled.outputs]
        self._request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `lmconv.types.Session`."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {name: np.array(results[index]) for index, name in enumerate(self._names)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._request


def open_artifact(artifact: Artifact, options: OpenOptions) -> Session:
    """Compiles it for the CPU with the precision hint of the manifest.

    Raises:
        MissingRuntime: A GPU was asked for: this target is built and checked for the CPU.
        InputError: OpenVINO cannot load the model.
    """
    if options.device != "cpu":
        raise MissingRuntime("the openvino target runs on the CPU", hint="use --device cpu")
    path = model_file(artifact, ".xml")
    try:
        return OpenVinoSession(path, artifact.execution[HINT], options.threads)
    except RuntimeError as error:
        raise InputError(f"OpenVINO cannot load {path}: {first_line(error)}", hint="export again") from error


plugin = Target(
    name="openvino",
    summary="OpenVINO IR",
    suffixes=(".xml", ".bin"),
    precisions=(Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8),
    quantisation=QuantScheme(
        activations="uint8",
        quantised_prelu=False,
        reason="its x86 CPU plug-in runs unsigned Q/DQ, and fuses PReLU to the layer before it",
    ),
    requires=requires,
    build=build,
    open=open_artifact,
)
