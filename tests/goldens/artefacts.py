"""Makes every artefact of `artefacts.json` again, and the file itself: `python -m tests.goldens.artefacts --write`.

The file has the sha256 of each model file and the digest of each manifest. A refactoring must reproduce these sums.
Floating-point results depend on the kind of CPU and on versions of libraries; therefore the file names both. `portable`
is the sha256 of the part of a manifest that depends on neither.

`recipes/` has two artefacts whose bytes depended on timing when they were made. They are made again from their recipes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "artefacts.json"
RECIPES = FOLDER / "recipes"

Run: TypeAlias = Callable[[list[str]], int]

NETWORKS = """
from torch import nn


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self.act = nn.PReLU(8)
        self.fc = nn.Linear(8 * 8 * 8, 2 * 68)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).flatten(1))


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.maps = nn.Conv2d(8, 68, 3, padding=1)

    def forward(self, x):
        return self.maps(self.norm(self.down(x)).relu())
"""

BOTH = ["--to", "onnx", "--to", "openvino"]
FLOATS = ["--precision", "fp32", "--precision", "fp16", "--precision", "bf16"]
IOS = ["--io", "tensor", "--io", "image", "--io", "frame"]
OWN = ["--input", "3x32x32", "--landmarks", "68", "--random-weights"]
FACES = ["--calibration", "faces"]

EXPORTS = {
    "tiny": ["tiny.onnx", *BOTH, *FLOATS, "--precision", "int8", *IOS, *FACES, "--no-guard"],
    "batch": ["tiny.onnx", *BOTH, "--batch", "4", "--no-guard"],
    "heatmaps": ["own.py:Maps", *OWN, "--decode", "argmax", *BOTH, *FLOATS, *IOS, "--no-guard"],
    "detector": ["mtcnn_pnet", "--random-weights", *BOTH, *FLOATS, "--no-guard"],
    "own": ["own.py:Flat", *OWN, *BOTH, *FLOATS, "--precision", "int8", *FACES, "--no-guard"],
    "compacted": ["dead.onnx", "--recipe", str(RECIPES / "dead/onnx-fp32"), "--no-guard"],
    "mixed": [
        "tiny.onnx", "--precision", "mixed", "--recipe", str(RECIPES / "tiny/onnx-mixed"), *FACES, "--no-guard",
    ],
}  # fmt: skip
"""Arguments of `lmconv export`, by the output folder."""

PORTABLE = ("spec", "target", "precision", "execution", "interface", "parameters", "flops")


def make(run: Run) -> dict[str, Any]:
    """Exports everything to the current folder; returns the content of the golden file.

    Args:
        run: Runs the command line and returns its exit code.
    """
    from tests.helpers import tiny_onnx

    Path("tiny.onnx").write_bytes(tiny_onnx().SerializeToString())
    Path("dead.onnx").write_bytes(tiny_onnx(points=5, dead=3).SerializeToString())
    Path("own.py").write_text(NETWORKS, encoding="utf-8")
    assert run(["draw", "faces", "--faces", "10", "--train", "30"]) == 0
    for folder, arguments in EXPORTS.items():
        assert run(["export", *arguments, "--out", folder]) == 0, folder
    manifests = sorted(path for folder in EXPORTS for path in Path(folder).glob("*/*/manifest.json"))
    return {"cpu": cpu(), "versions": versions(), "artefacts": {str(path.parent): row(path) for path in manifests}}


def row(manifest: Path) -> dict[str, Any]:
    """Entry of one artefact in the golden file."""
    document = json.loads(manifest.read_bytes())
    models = {name: digest for name, digest in document["files"].items() if name.startswith("model.")}
    text = json.dumps({key: document[key] for key in PORTABLE}, sort_keys=True)
    return {"digest": document["digest"], "models": models, "portable": hashlib.sha256(text.encode()).hexdigest()}


def versions() -> dict[str, str]:
    """Versions in a manifest: its digest depends on them."""
    from lmconv import machine

    return machine.versions()


def cpu() -> list[str]:
    """Vendor of this CPU, and the features that determine the order of floating-point sums."""
    from lmconv import machine

    description = machine.describe()
    return [str(description["cpu"]).split()[0], *description["features"]]


def main() -> None:
    """Prints the content of the golden file, or with `--write` writes the file.

    PyTorch runs on one thread, because the order of sums depends on the number of threads.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from lmconv.cli import run

    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(sys.stderr):
        os.chdir(place)
        text = json.dumps(make(run), indent=1) + "\n"
        os.chdir(FOLDER)
    if "--write" in sys.argv:
        GOLDEN.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def make_recipes() -> None:
    """Writes `recipes/`: compaction and `lmconv tune` measure on this machine."""
    from tests.helpers import tiny_onnx

    command = [sys.executable, "-c", "from lmconv.cli import main; main()"]
    commands = [["export", "dead.onnx", "--no-guard"], ["tune", "tiny.onnx", *FACES, "--time", "20s"]]
    commands[1] += ["--budget-ion", "1", "--budget-drift", "1"]
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        Path("tiny.onnx").write_bytes(tiny_onnx().SerializeToString())
        Path("dead.onnx").write_bytes(tiny_onnx(points=5, dead=3).SerializeToString())
        subprocess.run([*command, "draw", "faces", "--faces", "10", "--train", "30"], check=True)
        for arguments in commands:
            subprocess.run([*command, *arguments], check=True)
        shutil.rmtree(RECIPES, ignore_errors=True)
        for name in ("dead/onnx-fp32", "tiny/onnx-mixed"):
            shutil.copytree(Path("build") / name, RECIPES / name)


if __name__ == "__main__":
    make_recipes() if "--recipes" in sys.argv else main()
