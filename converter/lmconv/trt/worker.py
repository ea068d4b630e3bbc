"""A process that times one contestant on request: `python -m lmconv.trt.worker ENGINE [SHA256]`.

PyTorch, ONNX Runtime and TensorRT each bring their own CUDA libraries, which may conflict in one process. Requests and
replies are JSON documents, one per line, on standard input and output:

    {"do": "about"}                            {"ok": true, "about": {...}}
    {"do": "time", "batch": 8, "samples": 50}  {"ok": true, "times": {"wall": [...], ...}, "warm_up": ..., ...}
    {"do": "close"}                            {"ok": true}

A request that fails gets {"ok": false, "kind": ..., "message": ..., "hint": ...}, and the process continues.
`lmconv.trt.interleaving` sends the requests.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TextIO

from lmconv.trt.faults import Fault
from lmconv.trt.timing import Timer


class Contestant(Protocol):
    """A runtime with one network that a worker times."""

    def about(self) -> dict[str, Any]:
        """Returns the description of the contestant, as JSON."""

    def timer(self, batch: int) -> Timer:
        """Returns a warmed-up timer with this number of inputs per run."""

    def close(self) -> None:
        """Frees the contestant's resources."""


def serve(open_contestant: Callable[[], Contestant]) -> None:
    """Opens a contestant, answers the requests on standard input until its end or a "close", and closes the contestant.

    Replies go to the original standard output. From here on, anything that a library prints goes to standard error.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        answer(sys.stdin, replies, open_contestant)


def answer(requests: Iterable[str], replies: TextIO, open_contestant: Callable[[], Contestant]) -> None:
    """Answers requests, one per line. The first request opens the contestant.

    Args:
        requests: Lines to answer.
        replies: Stream for the replies.
        open_contestant: Opens the contestant.
    """
    server = _Server(open_contestant)
    try:
        for line in requests:
            try:
                reply = {"ok": True, **server.reply(json.loads(line))}
            except Exception as error:  # the client must hear of every error
                reply = _failed(error)
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
            if server.closed:
                return
    finally:
        server.close()


def _failed(error: Exception) -> dict[str, Any]:
    """Returns the reply for an error.

    A Fault and lmconv's own errors have a kind, a message and a hint; other errors have a text only.
    """
    text = (str(error).strip().splitlines() or [""])[0]
    return {
        "ok": False,
        "kind": getattr(error, "kind", "run"),
        "message": getattr(error, "message", f"{type(error).__name__}: {text}".rstrip(": ")),
        "hint": getattr(error, "hint", ""),
    }


class _Server:
    """Opens the contestant at the first use, and keeps its timer for the last batch size."""

    def __init__(self, open_contestant: Callable[[], Contestant]) -> None:
        self._open = open_contestant
        self._contestant: Contestant | None = None
        self._timer: Timer | None = None
        self._batch = 0
        self.closed = False

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request["do"]
        if action == "close":
            self.close()
            return {}
        if self._contestant is None:
            self._contestant = self._open()
        if action == "about":
            return {"about": self._contestant.about()}
        if action == "time":
            timer = self._timer_for(self._contestant, request["batch"])
            times = timer.measure(request["samples"])
            return {"times": times, "warm_up": timer.warm_up, "left_out": timer.left_out}
        raise Fault("run", f"a worker has no action {action!r}", "use about, time or close")

    def _timer_for(self, contestant: Contestant, batch: int) -> Timer:
        if self._timer is None or self._batch != batch:
            self._close_timer()
            self._timer, self._batch = contestant.timer(batch), batch
        return self._timer

    def _close_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()

    def close(self) -> None:
        self._close_timer()
        contestant, self._contestant = self._contestant, None
        if contestant is not None:
            contestant.close()
        self.closed = True


class Engine:
    """A TensorRT engine as a contestant, with seeded inputs.

    Args:
        path: File of the engine.
        sha256: Expected SHA-256 of the file, because an engine is code; None skips the check.
    """

    def __init__(self, path: str, sha256: str | None = None) -> None:
        from lmconv.trt import engine

        plan = Path(path).read_bytes()
        if sha256 not in (None, hashlib.sha256(plan).hexdigest()):
            raise Fault("load", f"{path} has changed since its sha256 was checked", "export the engine again")
        self._engine = engine.Engine(plan)

    def about(self) -> dict[str, Any]:
        """Returns the inputs and outputs, the batch sizes of the profile, the device memory in bytes, the device."""
        from lmconv.trt import device

        def describe(tensors: Iterable[Any]) -> list[dict[str, Any]]:
            return [
                {"name": tensor.name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)} for tensor in tensors
            ]

        return {
            "inputs": describe(self._engine.inputs),
            "outputs": describe(self._engine.outputs),
            "batches": self._engine.batches,
            "memory": self._engine.memory,
            "device": device.describe(),
        }

    def timer(self, batch: int) -> Timer:
        """Returns a warmed-up timer with this number of inputs per run."""
        from lmconv.trt import cudagraph, device

        steps = self._engine
        arrays = {tensor.name: noise(tensor.dtype, tensor.shape, batch) for tensor in steps.inputs}
        bus = device.describe()["bus"]  # pycuda may use another GPU than the first
        return Timer(
            steps,
            arrays,
            capture=lambda: cudagraph.Graph(steps.stream.handle, steps.execute),
            state=lambda: device.state(bus),
        )

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()


def noise(dtype: Any, shape: Iterable[int], batch: int) -> Any:
    """Returns a seeded random array: floats from 0 to 1, integers from 0 to 255.

    Args:
        dtype: dtype of the array.
        shape: Shape of the array; -1 stands for the batch size.
        batch: Batch size.
    """
    import numpy as np

    sizes = [batch if size < 0 else size for size in shape]
    values = np.random.default_rng(0).random(sizes, np.float32)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * 255).astype(dtype)


def main() -> None:
    """Serves the engine that the command line names."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m lmconv.trt.worker ENGINE [SHA256]")
    serve(lambda: Engine(*sys.argv[1:]))


if __name__ == "__main__":
    main()
