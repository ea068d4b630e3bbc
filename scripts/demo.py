"""`make demo`: converts, verifies and times every network with available trained weights; prints one table.

Weights and faces come from LMCONV_WEIGHTS and LMCONV_FACES, or from the folder on the command line. If no published
network has weights, the demo uses `drawn68`, a small network that is part of lmconv, and drawn faces. A refusal by
export, for example of int8 that is slower than fp32 on this machine, is a result with a line of its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

TARGETS = ["onnx", "openvino"]
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]
OWN = "drawn68"
"""The network whose weights are part of lmconv."""


def main(shared: Path, out: Path) -> int:
    """Runs the commands as a user does; returns the highest exit code.

    Args:
        shared: Folder whose `weights` and `faces` are used if LMCONV_WEIGHTS and LMCONV_FACES are not set.
        out: Folder of the artefacts.
    """
    for variable, folder in (("LMCONV_WEIGHTS", shared / "weights"), ("LMCONV_FACES", shared / "faces")):
        if folder.is_dir():
            os.environ.setdefault(variable, str(folder))
    from lmconv.sources import checkpoints
    from lmconv.sources import resolve as source

    weights = {model: checkpoints.find(model) for model in source.names("landmarks") if model != OWN}
    models = [model for model, path in weights.items() if path]
    left_out = [f"{model}: no trained weights available" for model, path in weights.items() if not path]
    precisions, codes = PRECISIONS, []
    if not models:
        print(
            f"No trained weights of a published network were found (LMCONV_WEIGHTS, weights/). This demo uses {OWN},\n"
            "a network that is part of lmconv, and drawn faces (docs/drawn.md). The ION below is measured on drawn\n"
            "faces and says nothing about 300-W; all other steps are the same as for published networks.\n"
        )
        models, faces = [OWN], out / "drawn-faces"
        codes.append(run("draw", str(faces), "--force"))
        os.environ["LMCONV_FACES"] = str(faces)
    elif not os.environ.get("LMCONV_FACES"):
        precisions = [precision for precision in PRECISIONS if precision != "int8"]
        left_out += ["int8: no faces for calibration (LMCONV_FACES)", "ION: no annotated faces (LMCONV_FACES)"]
    artefacts: list[str] = []
    refused: list[str] = []
    for model in models:
        options = [part for target in TARGETS for part in ("--to", target)]
        options += [part for precision in precisions for part in ("--precision", precision)]
        code, document = export(model, *options, "--out", str(out))
        rows = [error for error in document["errors"] if error["kind"] == "refused"]
        refused += [f"{row['model']} {row['target']} {row['precision']}: refused: {why(row['guard'])}" for row in rows]
        artefacts += [row["path"] for row in document["artifacts"]]
        codes.append(0 if code == 1 and len(rows) == len(document["errors"]) else code)
    codes += [run(command, *artefacts) for command in ("verify", "bench")]
    codes.append(run("report", str(out)))
    for line in refused:
        print(line)
    for line in left_out:
        print(f"left out: {line}")
    return max(code if code >= 0 else 70 for code in codes)  # below 0: ended by a signal


def export(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Runs `lmconv export`; returns its exit code and its JSON document."""
    with tempfile.TemporaryFile("w+") as file:
        code = run("export", *arguments, "--json", out=file)
        file.seek(0)
        document: dict[str, Any] = json.loads(file.read() or '{"artifacts": [], "errors": []}')
    return code, document


def why(guard: dict[str, Any]) -> str:
    """Returns the reasons of a refusal in a few words.

    Args:
        guard: Figures of the guard, from the document of `lmconv export`.
    """
    reasons = []
    if guard["budget"]["verdict"] == "outside":
        reasons.append(guard["budget"]["reason"])
    if guard["speed"]["verdict"] == "refused":
        ratio = guard["speed"]["ratio"]
        against = guard["speed"]["against"]
        reasons.append(f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] times the time of {against}")
    if guard.get("size", {}).get("verdict") == "refused":
        reasons.append(f"{guard['size']['ratio']:.2f} of the size of fp32")
    return "; ".join(reasons)


def run(*arguments: str, out: IO[str] | None = None) -> int:
    """Runs one `lmconv` command as a user does; prints the command, its time and its peak memory.

    Args:
        arguments: The command and its arguments.
        out: Receives the standard output; None for the standard output of this process.

    Returns:
        The exit code; below 0 if a signal ended the command.
    """
    print(f"$ lmconv {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    child = subprocess.Popen([str(Path(sys.executable).with_name("lmconv")), *arguments], stdout=out)
    _, status, usage = os.wait4(child.pid, 0)
    unit = 1e6 if platform.system() == "Darwin" else 1e3  # bytes on Darwin, kilobytes elsewhere
    print(f"({time.perf_counter() - start:.1f} s, peak memory {usage.ru_maxrss / unit:.0f} MB)\n", flush=True)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
