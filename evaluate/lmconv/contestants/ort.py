"""An ONNX artefact in ONNX Runtime as a contestant: `python -m lmconv.contestants.ort ARTIFACT --device gpu`.

Inputs and outputs are bound to the device, so the copies can be timed separately. See `lmconv.trt.worker` for the
protocol.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmconv.networks.interfaces import interface_of
from lmconv.store import artifact as artifacts
from lmconv.targets import onnx
from lmconv.trt import device, driver
from lmconv.trt.timing import Timer
from lmconv.trt.worker import serve
from lmconv.types import Arrays, Artifact, Json, OpenOptions

ASYNCHRONOUS = ("disable_synchronize_execution_providers", "1")
"""Run option: a run returns when all work is on the stream. The caller waits for the stream."""


class Steps:
    """The steps of an ONNX Runtime session to time (`lmconv.trt.timing.Steps`).

    Args:
        session: An `onnxruntime.InferenceSession`.
        stream: CUDA stream of the session; None on the CPU.
    """

    def __init__(self, session: Any, stream: driver.Stream | None) -> None:
        import onnxruntime

        self._session, self.stream = session, stream
        self._device = "cuda" if stream else "cpu"
        self._names = [value.name for value in session.get_outputs()]
        self._binding: Any = None
        self._arrays: Arrays = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: list[NDArray[Any]] = []
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(*ASYNCHRONOUS)

    def set(self, arrays: Arrays) -> None:
        """Sets the input arrays; binds inputs and outputs again if a shape has changed."""
        previous = {name: value.shape for name, value in self._arrays.items()}
        self._arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        if previous != {name: value.shape for name, value in self._arrays.items()}:
            self._bind()

    def _bind(self) -> None:
        import onnxruntime

        self._inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0)
            for name, value in self._arrays.items()
        }
        self._binding = self._session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, self._device, 0)

    def copy_in(self) -> None:
        """Copies the inputs to the device."""
        for name, value in self._arrays.items():
            self._inputs[name].update_inplace(value)

    def execute(self) -> None:
        """Starts the computation."""
        self._session.run_with_iobinding(self._binding, self._options)

    def copy_out(self) -> None:
        """Waits for the GPU, then copies the outputs to the host: ONNX Runtime copies on a stream of its own choice."""
        self.wait()
        self._outputs = [value.numpy() for value in self._binding.get_outputs()]

    def wait(self) -> None:
        """Waits for the GPU."""
        if self.stream:
            self.stream.synchronize()

    def results(self) -> dict[str, NDArray[Any]]:
        """Returns the output arrays by name."""
        return dict(zip(self._names, self._outputs, strict=True))


class Ort:
    """An ONNX artefact as a contestant (`lmconv.trt.worker.Contestant`)."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._artifact: Artifact = artifacts.read(options.artifact)
        self._stream = _stream() if options.device == "gpu" else None
        handle = self._stream.handle if self._stream else 0
        self._session = onnx.open_artifact(self._artifact, OpenOptions(device=options.device), stream=handle)

    def about(self) -> Json:
        """Returns ONNX Runtime's version and providers, and a caveat if a setting of the artefact is ignored."""
        import onnxruntime

        return {
            "onnxruntime": onnxruntime.__version__,
            "providers": self._session.providers,
            "caveat": self._session.execution_mismatch,
        }

    def timer(self, batch: int) -> Timer:
        """Returns a warmed-up timer with this number of seeded inputs per run."""
        steps = Steps(self._session.session, self._stream)
        return Timer(steps, inputs(self._artifact, batch), state=device.state if self._stream else dict)

    def close(self) -> None:
        """Frees the session and the stream."""
        self._session.__exit__(None, None, None)
        if self._stream:
            self._stream.close()


def _stream() -> driver.Stream:
    driver.primary()
    return driver.Stream()


def inputs(artifact: Artifact, batch: int) -> Arrays:
    """Returns seeded inputs for an artefact.

    Returns:
        `input`, (batch, 3, H, W) float32, for the artefact of a tensor; else the images, or frames and boxes, of
        `lmconv.networks.seeded`.
    """
    return interface_of(artifact.spec).timing_inputs(batch)


def main() -> None:
    """Serves the artefact that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m lmconv.contestants.ort")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--device", choices=["cpu", "gpu"], required=True)
    options = parser.parse_args()
    serve(lambda: Ort(options))


if __name__ == "__main__":
    main()
