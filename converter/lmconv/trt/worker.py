"""A process that times one contestant on request: `python -m lmconv.trt.worker ENGINE [SHA256]`.

PyTorch, ONNX Runtime and TensorRT each bring their own CUDA libraries, which may conflict in one process. Requests and
replies are JSON documents, one per line, on standard input and output:

    {"do": "about"}                            {"ok": true, "about": {...}}
    {"do": "time", "batch": 8, "samples": 50}  {"ok": true, "times": {"wall": [...], ...}, "warm_up": ..., ...}
    {"do": "close"}                            {"ok": true}

A request that fails gets {"ok": false, "kind": ..., "message": ..., "hint": ...}, and the process continues.
`lmconv.trt.turns` sends the requests.
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
from lmconv.trt.timing import Timed


class Contestant(Protocol):
    """A runtime with one network that a worker times."""

    def about(self) -> dict[str, Any]:
        """Returns the description of the contestant, as JSON."""

    def timed(self, batch: int) -> Timed:
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
        self._timed: Timed | None = None
        self._batch = 0
        self.closed = False

    def reply(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request["do"]
        if do == "close":
            self.close()
            return {}
        if self._contestant is None:
            self._contestant = self._open()
        if do == "about":
            return {"about": self._contestant.about()}
        if do == "time":
            timed = self._ready(self._contestant, request["batch"])
            times = timed.times(request["samples"])
            return {"times": times, "warm_up": timed.warm_up, "left_out": timed.left_out}
        raise Fault("run", f"a worker cannot {do!r}")

    def _ready(self, contestant: Contestant, batch: int) -> Timed:
        if self._timed is None or self._batch != batch:
            self._forget()
            self._timed, self._batch = contestant.timed(batch), batch
        return self._timed

    def _forget(self) -> None:
        timed, self._timed = self._timed, None
        if timed is not None:
            timed.close()

    def close(self) -> None:
        self._forget()
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
            raise Fault("load", f"{path} is another than the one that was checked", "export it again")
        self._engine = engine.Engine(plan)

    def about(self) -> dict[str, Any]:
        """Returns the inputs and outputs, the batch sizes of the profile, the device memory in bytes, the device."""
        from lmconv.trt import device

        def tensors(found: Iterable[Any]) -> list[dict[str, Any]]:
            return [{"name": one.name, "dtype": str(one.dtype), "shape": list(one.shape)} for one in found]

        return {
            "inputs": tensors(self._engine.inputs),
            "outputs": tensors(self._engine.outputs),
            "batches": self._engine.batches,
            "memory": self._engine.memory,
            "device": device.describe(),
        }

    def timed(self, batch: int) -> Timed:
        """Returns a warmed-up timer with this number of inputs per run."""
        from lmconv.trt import cudagraph, device

        found = self._engine
        arrays = {one.name: noise(one.dtype, one.shape, batch) for one in found.inputs}
        bus = device.describe()["bus"]  # pycuda may use another GPU than the first
        return Timed(
            found,
            arrays,
            capture=lambda: cudagraph.Graph(found.stream.handle, found.execute),
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
