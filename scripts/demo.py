"""`make demo`: converts, verifies and times every network whose trained weights are at hand; prints one table.

Weights and faces come from LMCONV_WEIGHTS and LMCONV_FACES, or from the folder named on the command line.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

TARGETS = ["onnx", "openvino"]
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]


def main(shared: Path, out: Path) -> int:
    """Runs the commands a user would; gives the highest exit code."""
    for variable, folder in (("LMCONV_WEIGHTS", shared / "weights"), ("LMCONV_FACES", shared / "faces")):
        if folder.is_dir():
            os.environ.setdefault(variable, str(folder))
    from lmconv import checkpoints, plugins

    found = {model: checkpoints.find(model) for model in plugins.names("backbones")}
    models = [model for model, path in found.items() if path]
    left_out = [f"{model}: no trained weights here" for model, path in found.items() if not path]
    faces = os.environ.get("LMCONV_FACES")
    precisions = PRECISIONS
    if not faces:
        precisions = [precision for precision in PRECISIONS if precision != "int8"]
        left_out += ["int8: no faces to calibrate on (LMCONV_FACES)", "ION: no annotated faces (LMCONV_FACES)"]
    if not models:
        run("doctor")
        report_left_out(left_out)
        print("\nNothing was converted. Put a checkpoint of `lmconv weights list` in weights/, and run again.")
        return 0
    codes = []
    for model in models:
        options = [part for target in TARGETS for part in ("--to", target)]
        options += [part for precision in precisions for part in ("--precision", precision)]
        codes.append(run("export", model, *options, "--out", str(out)))
    artefacts = sorted(str(path.parent) for model in models for path in out.glob(f"{model}/*-*/manifest.json"))
    codes.append(run("verify", *artefacts))
    codes.append(run("bench", *artefacts))
    codes.append(run("report", str(out)))
    report_left_out(left_out)
    return max(codes)


def run(*arguments: str) -> int:
    """Runs one `lmconv` command as a user would, showing it, its time and its memory."""
    print(f"$ lmconv {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    child = subprocess.Popen([str(Path(sys.executable).with_name("lmconv")), *arguments])
    _, status, usage = os.wait4(child.pid, 0)
    unit = 1e6 if platform.system() == "Darwin" else 1e3  # bytes there, kilobytes elsewhere
    print(f"({time.perf_counter() - start:.1f} s, peak memory {usage.ru_maxrss / unit:.0f} MB)\n", flush=True)
    return os.waitstatus_to_exitcode(status)


def report_left_out(lines: list[str]) -> None:
    """Says what the demonstration did not show."""
    for line in lines:
        print(f"left out: {line}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
