"""Helpers of many tests: the command line in this process and in another process, a tiny network, faces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from lmconv.commands.models import recorded
from lmconv.plugins import BACKBONES

if TYPE_CHECKING:
    import onnx
    import torch

    from lmconv.types import Float64

SIZE = 32
POINTS = 68
SIDE = 4
"""Height and width of the output of the tiny network's convolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document."""
        return json.loads(self.out)

    def refused(self, code: int, *parts: str) -> None:
        """Asserts the exit code, and one line of error that contains all parts."""
        assert self.code == code, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        for part in parts:
            assert part in lines[0]
        assert "Traceback" not in self.err


Cli: TypeAlias = Callable[..., Ran]


def python(code: str, *arguments: str | Path, env: Mapping[str, str] | None = None, flags: tuple[str, ...] = ()) -> Ran:
    """Runs code in a new interpreter of this environment."""
    process = subprocess.run(
        [sys.executable, *flags, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
        timeout=300,
    )
    return Ran(code=process.returncode, out=process.stdout, err=process.stderr)


COMMAND = "import sys; from lmconv.cli import main; main()"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Starts a command in a process of its own."""
    line = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts)


def hear_interrupts() -> None:
    """Restores SIGINT in a child: a shell starts background jobs with SIGINT ignored, and children inherit this."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


METADATA = "Metadata-Version: 2.1\nName: lmconv-other\nVersion: 1.0\n"


def other_package(folder: Path, entry_points: str, module: str) -> dict[str, str]:
    """Writes an installed third-party package; returns the environment variables that make the package importable."""
    info = folder / "lmconv_other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    (folder / "lmconv_other.py").write_text(module, encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


def tiny_onnx(
    seed: int = 0, *, opset: int = 11, points: int = POINTS, gain: float = 0.02, dead: int = 0
) -> onnx.ModelProto:
    """A third party's network: `data` (1, 3, 32, 32) float32 to `points` (1, 2 * points) float32, around 0.5.

    The points are fractions of the input. The first `dead` of the 8 channels of the convolution are constant.
    """
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)

    def tensor(name: str, *shape: int, low: float = -0.5, high: float = 0.5) -> TensorProto:
        values = (low + (high - low) * random.random(shape)).astype(np.float32)
        return numpy_helper.from_array(values, name)

    features = 8 * SIDE * SIDE
    initializers = [
        tensor("conv.weight", 8, 3, 8, 8, low=-0.1, high=0.1),
        tensor("conv.bias", 8),
        tensor("fc.weight", 2 * points, features, low=-gain, high=gain),
        tensor("fc.bias", 2 * points, low=0.3, high=0.7),
    ]
    filters = numpy_helper.to_array(initializers[0]).copy()
    filters[:dead] = 0
    initializers[0].CopyFrom(numpy_helper.from_array(filters, "conv.weight"))
    nodes = [
        helper.make_node("Conv", ["data", "conv.weight", "conv.bias"], ["a"], name="conv", strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
        helper.make_node("Gemm", ["c", "fc.weight", "fc.bias"], ["points"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 2 * points])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def built(model: str, landmarks: int | None = None) -> torch.nn.Module:
    """A backbone in PyTorch's initial state."""

    backbone = BACKBONES.load(model)
    assert backbone.build, f"{model} is published as ONNX"
    return backbone.build(landmarks or backbone.spec.landmarks)


LARGE = frozenset(name for name, row in recorded().items() if row["flops"] > 1e9)
"""Networks above 1 GFLOP, by the table of `lmconv models`."""


def by_size(names: Iterable[str], large: pytest.MarkDecorator = pytest.mark.slow) -> list[Any]:
    """Names of networks as parameters of a test; the large ones carry a mark."""
    return [pytest.param(name, marks=large) if name in LARGE else name for name in names]


def face(x1: float, y1: float, x2: float, y2: float) -> Float64:
    """(68, 2) float64: points with this tight box, pixels, x before y."""
    points = np.random.default_rng(0).uniform((x1, y1), (x2, y2), (POINTS, 2))
    points[0], points[1] = (x1, y1), (x2, y2)
    return points


def add_face(folder: Path, stem: str, points: Float64, *, seed: int = 0) -> Path:
    """Writes a 80 x 60 picture of noise and its `.pts` file; returns the path of the `.pts` file."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(1, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / f"{stem}.png"), image)
    path = folder / f"{stem}.pts"
    path.write_text("".join(f"{x:.6f} {y:.6f}\n" for x, y in points), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder except the lock, by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def strays(folder: Path) -> list[str]:
    """Temporary files and folders below a folder, which an export must remove; the lock may stay."""
    hidden = (path for path in folder.rglob(".*") if path.name != ".lock")
    return sorted(str(path.relative_to(folder)) for path in hidden)
