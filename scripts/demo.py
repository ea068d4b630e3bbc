"""`make demo`: converts, verifies and times every network whose trained weights are at hand; prints one table.

Weights and faces come from LMCONV_WEIGHTS and LMCONV_FACES, or from the folder named on the command line. Without
weights of a published network, the small model that ships with lmconv and faces that it draws stand in for them. What
export refuses, such as int8 that is slower than fp32 on this machine, is a result: it has a row of its own.
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


def main(shared: Path, out: Path) -> int:
    """Runs the commands a user would; gives the highest exit code."""
    for variable, folder in (("LMCONV_WEIGHTS", shared / "weights"), ("LMCONV_FACES", shared / "faces")):
        if folder.is_dir():
            os.environ.setdefault(variable, str(folder))
    from lmconv.sources import checkpoints
    from lmconv.sources import resolve as source

    found = {model: checkpoints.find(model) for model in source.names("landmarks") if model != OWN}
    models = [model for model, path in found.items() if path]
    left_out = [f"{model}: no trained weights here" for model, path in found.items() if not path]
    precisions, codes = PRECISIONS, []
    if not models:
        print(
            f"No trained weights of a published network are here (LMCONV_WEIGHTS, weights/), so {OWN}, the model\n"
            "that ships with lmconv, stands in for them, on drawn faces (docs/drawn.md). Its ION is that of drawn\n"
            "faces and says nothing of 300-W; everything else is done as with real ones.\n"
        )
        models, faces = [OWN], out / "drawn-faces"
        codes.append(run("draw", str(faces), "--force"))
        os.environ["LMCONV_FACES"] = str(faces)
    elif not os.environ.get("LMCONV_FACES"):
        precisions = [precision for precision in PRECISIONS if precision != "int8"]
        left_out += ["int8: no faces to calibrate on (LMCONV_FACES)", "ION: no annotated faces (LMCONV_FACES)"]
    artefacts: list[str] = []
    refused: list[str] = []
    for model in models:
        options = [part for target in TARGETS for part in ("--to", target)]
        options += [part for precision in precisions for part in ("--precision", precision)]
        code, document = exported(model, *options, "--out", str(out))
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
    return max(code if code >= 0 else 70 for code in codes)  # killed by a signal


def exported(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Runs `lmconv export` and says what it made; gives its exit code and its document."""
    with tempfile.TemporaryFile("w+") as file:
        code = run("export", *arguments, "--json", out=file)
        file.seek(0)
        document: dict[str, Any] = json.loads(file.read() or '{"artifacts": [], "errors": []}')
    return code, document


def why(guard: dict[str, Any]) -> str:
    """What a guard refused, in a few words."""
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
    """Runs one `lmconv` command as a user would, showing it, its time and its memory."""
    print(f"$ lmconv {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    child = subprocess.Popen([str(Path(sys.executable).with_name("lmconv")), *arguments], stdout=out)
    _, status, usage = os.wait4(child.pid, 0)
    unit = 1e6 if platform.system() == "Darwin" else 1e3  # bytes there, kilobytes elsewhere
    print(f"({time.perf_counter() - start:.1f} s, peak memory {usage.ru_maxrss / unit:.0f} MB)\n", flush=True)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
