"""Tests the built wheel as on an edge device, without PyTorch and OpenVINO: verifies and times a finished artefact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from lmconv.plugins import BACKBONES


def main(environment: Path, wheel: Path) -> int:
    """Checks the content of the wheel, then runs the installed wheel on an artefact exported by this environment.

    Args:
        environment: Virtual environment in which only the wheel is installed.
        wheel: The wheel.

    Returns:
        0, the exit code.
    """
    names = zipfile.ZipFile(wheel).namelist()
    known = ("lmconv/known/known.toml", "lmconv/known/networks.json")
    for part in ("lmconv/cli.py", "lmconv/commands/export.py", "lmconv/commands/verify.py", *known):
        assert part in names, f"{part} is not in {wheel}"
    assert names.count("lmconv/py.typed") == 1, "PEP 561: one marker says that the whole package is typed"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names), f"LICENSE is not in {wheel}"
    inits = [name for name in names if name.endswith(("lmconv/__init__.py", "commands/__init__.py"))]
    assert not inits, f"{inits} would hide the other source roots"
    with tempfile.TemporaryDirectory() as folder:
        artefact = _export(Path(folder))
        lmconv = str(environment.absolute() / "bin" / "lmconv")
        verified = _json(lmconv, "verify", str(artefact), folder=folder)["artifacts"][0]
        assert verified["passed"], verified
        assert verified["parity"]["against"] == "reference", verified
        timed = _json(lmconv, "bench", str(artefact), "--samples", "64", folder=folder)["rows"][0]
        assert timed["ratio_torch"] is None, timed
        assert timed["ratio_plain"] > 0, timed
        assert len(_json(lmconv, "models", folder=folder)["models"]) > 10, "without PyTorch"
        own = _json(lmconv, "weights", "list", folder=folder)["weights"]
        assert [row["model"] for row in own if row["path"]] == ["drawn68"], own
    print(f"{wheel.name}: verified and timed {artefact.name} with only the wheel installed")
    return 0


def _export(folder: Path) -> Path:
    """Exports PFLD with PyTorch's initial weights; returns the folder of the artefact."""
    import torch

    torch.manual_seed(0)
    backbone = BACKBONES.load("pfld")
    weights = folder / "pfld.pth"
    torch.save(backbone.module(backbone.spec.landmarks).state_dict(), weights)
    from lmconv.cli import run

    code = run(["export", "pfld", "--weights", str(weights), "--out", str(folder / "build"), "--quiet", "--no-guard"])
    assert code == 0, f"export ended with {code}"
    weights.unlink()
    return folder / "build" / "pfld" / "onnx-fp32"


def _json(*command: str, folder: str) -> Any:
    """Runs a command of the wheel outside the source tree; returns its JSON document."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LMCONV"))}
    process = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=folder, env=clean, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
