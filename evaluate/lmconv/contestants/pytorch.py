"""The PyTorch network as a contestant: `python -m lmconv.contestants.pytorch ARTIFACT --device cuda [--compiled]`.

The network is the source of the artefact, in fp32 without TF32. See `lmconv.trt.worker` for the protocol.
"""

from __future__ import annotations

import argparse
import gc
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lmconv.errors import MissingRuntime
from lmconv.inference.session import noise
from lmconv.networks.heads import head_of
from lmconv.sources.pytorch import network
from lmconv.sources.resolve import recover
from lmconv.store import artifact as artifacts
from lmconv.trt import device
from lmconv.trt.timing import Timer
from lmconv.trt.worker import serve
from lmconv.types import Arrays, Float32, Json, ModelSpec

if TYPE_CHECKING:
    import torch


FLUSHING = {"flush_denormal": True}
"""Mode of the processor: denormal numbers are zero."""


class Steps:
    """The steps of a PyTorch network to time (`lmconv.trt.timing.Steps`), with page-locked buffers on a GPU.

    Args:
        module: Module to run, on its device.
        spec: The network's spec.
        stream: The current CUDA stream; None on the CPU.
    """

    def __init__(self, module: Any, spec: ModelSpec, stream: torch.cuda.Stream | None) -> None:
        self._module, self._spec, self._cuda = module, spec, stream
        self.stream = SimpleNamespace(handle=stream.cuda_stream) if stream else None
        self._host_inputs: Any = None
        self._inputs: Any = None
        self._outputs: Any = None
        self._host_outputs: Any = None

    def set(self, arrays: Arrays) -> None:
        """Sets the input array.

        Args:
            arrays: `input`, (N, 3, H, W) float32, as the network takes it.
        """
        import torch

        array = torch.from_numpy(arrays["input"])
        if self._host_inputs is None or self._host_inputs.shape != array.shape:
            self._host_inputs = torch.empty(array.shape, pin_memory=self._cuda is not None)
            self._inputs = torch.empty(array.shape, device="cuda" if self._cuda else "cpu")
        self._host_inputs.copy_(array)

    def copy_in(self) -> None:
        """Copies the input to the device."""
        self._inputs.copy_(self._host_inputs, non_blocking=True)

    def execute(self) -> None:
        """Starts the computation."""
        self._outputs = self._module(self._inputs)

    def copy_out(self) -> None:
        """Copies the output to the host."""
        import torch

        if self._host_outputs is None or self._host_outputs.shape != self._outputs.shape:
            self._host_outputs = torch.empty(self._outputs.shape, pin_memory=self._cuda is not None)
        self._host_outputs.copy_(self._outputs, non_blocking=True)

    def wait(self) -> None:
        """Waits for the GPU."""
        if self._cuda:
            self._cuda.synchronize()

    def results(self) -> dict[str, Float32]:
        """Returns `landmarks`, (N, L, 2) float32, as the network gives them. Heatmaps are decoded here, on the host."""
        outputs: Float32 = self._host_outputs.numpy()
        return {"landmarks": head_of(self._spec).from_torch([outputs.copy()])["landmarks"]}

    def capture(self) -> CudaGraph:
        """Captures the work of `execute` as a CUDA graph."""
        return CudaGraph(self)


class CudaGraph:
    """PyTorch's CUDA graph of a network, because PyTorch's allocator must take part in the capture."""

    def __init__(self, steps: Steps) -> None:
        import torch

        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream()):
            steps.execute()

    def launch(self) -> None:
        """Puts the captured work on the current stream."""
        self._graph.replay()

    def close(self) -> None:
        """Frees the graph."""
        self._graph.reset()


class Network:
    """The PyTorch network as a contestant (`lmconv.trt.worker.Contestant`)."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        on_gpu = options.device == "cuda"
        if on_gpu and not torch.cuda.is_available():
            raise MissingRuntime("PyTorch finds no CUDA device", hint="install PyTorch with CUDA support")
        artifact = artifacts.read(options.artifact)
        source = recover(artifact, options.weights, options.model)
        if source is None or source.kind == "onnx":
            raise MissingRuntime("the artefact's PyTorch network is not available", hint="use --weights FILE")
        exact(torch)
        self._stack = ExitStack()
        torch.set_flush_denormal(True)  # before the first computation: PyTorch's other threads inherit the mode
        self._stack.callback(torch.set_flush_denormal, False)
        self._spec = source.spec
        self._stream: torch.cuda.Stream | None = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        if self._stream:  # the default stream cannot be captured
            self._stack.enter_context(torch.cuda.stream(self._stream))
        self._stack.enter_context(torch.inference_mode())
        self._module: Any = network(source).to("cuda" if on_gpu else "cpu")
        self._compiled = options.compiled

    def about(self) -> Json:
        """Returns the versions of PyTorch and CUDA, the device, `compiled` and `flush_denormal`."""
        import torch

        name = torch.cuda.get_device_name() if self._stream else "cpu"
        return {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "on": name,
            "compiled": self._compiled,
            **FLUSHING,
        }

    def steps(self) -> Steps:
        """Returns the steps to time. With `--compiled`, the first run compiles the network for its batch size."""
        import torch

        module = self._module
        if self._compiled:
            torch.compiler.reset()  # otherwise a second batch size would compile the network for any batch size
            module = torch.compile(module, dynamic=False)
        return Steps(module, self._spec, self._stream)

    def timer(self, batch: int) -> Timer:
        """Returns a warmed-up timer with this number of seeded inputs per run."""
        steps = self.steps()
        inputs = {"input": noise(self._spec, batch, 0)}
        return Timer(steps, inputs, capture=steps.capture, state=device.state if self._stream else dict)

    def close(self) -> None:
        """Frees the network."""
        self._module = None
        self._stack.close()
        gc.collect()


def exact(torch: Any) -> None:
    """Makes PyTorch compute in fp32 without TF32, with the fastest convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def main() -> None:
    """Serves the network of the artefact that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m lmconv.contestants.pytorch")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model")
    options = parser.parse_args()
    serve(lambda: Network(options))


if __name__ == "__main__":
    main()
