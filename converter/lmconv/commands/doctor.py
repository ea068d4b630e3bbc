"""`lmconv doctor`: available runtimes and devices, and instructions to install missing runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmconv.console import Console, Outcome, command, table
from lmconv.plugins import BACKBONES, INSTALL, TARGETS

if TYPE_CHECKING:
    from lmconv.types import Json

HELP = """Shows the available runtimes, devices and versions, and how to install missing runtimes.

\b
Example:
  lmconv doctor
"""


@command(name="doctor", help=HELP, short_help="Show available runtimes and devices, and missing runtimes.")
def plugin(console: Console) -> Outcome:
    from lmconv import machine
    from lmconv.sources import checkpoints

    description = machine.describe()
    rows = [_source(), *(_target(name) for name in TARGETS.names())]
    weights = {name: checkpoints.find(name) for name in BACKBONES.names()}
    description["gpu"] = _gpu()
    document = {
        "machine": description,
        "runtimes": rows,
        "weights": {name: str(path) if path else None for name, path in weights.items()},
    }
    lines = [
        f"{description['cpu']}, {description['cores']} cores, "
        f"{' '.join(description['features']) or 'no known vector extensions'}",
        *_gpu_line(description["gpu"]),
        " ".join(f"{name} {version}" for name, version in description["versions"].items()),
        "",
        table(
            ["runtime", "precisions", "state"],
            [[row["name"], " ".join(row["precisions"]), row["install"] or "ready"] for row in rows],
            left=3,
        ),
        "",
        table(["weights", ""], [[name, str(path or "not found")] for name, path in weights.items()], left=2),
    ]
    return Outcome(document=document, text="\n".join(lines))


def _gpu() -> Json | None:
    """Returns the description of the GPU for TensorRT engines; None without a GPU or without TensorRT."""
    from lmconv.trt import device

    return None if device.missing() else device.describe()


def _gpu_line(gpu: Json | None) -> list[str]:
    if gpu is None:
        return []
    memory = f"{gpu['memory'] / 2**30:.0f} GiB"
    return [f"{gpu['gpu']}, {memory}, compute capability {gpu['compute_capability']}, CUDA {gpu['cuda']}"]


def _source() -> Json:
    from lmconv import machine

    return {
        "name": "torch (source of all networks but ONNX files)",
        "precisions": ["fp32"],
        "install": None if machine.has("torch") else INSTALL["torch"],
    }


def _target(name: str) -> Json:
    target = TARGETS.load(name)
    return {"name": name, "precisions": list(target.precisions), "install": target.requires()}
