"""`make demo`: converts, verifies and times every network whose trained weights are at hand; prints one table.

Weights and faces come from LMCONV_WEIGHTS and LMCONV_FACES, or from the folder named on the command line. Without
weights of a published network, the small model that ships with lmconv and faces that it draws stand in for them.
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
OWN = "drawn68"


def main(shared: Path, out: Path) -> int:
    """Runs the commands a user would; gives the highest exit code."""
    for variable, folder in (("LMCONV_WEIGHTS", shared / "weights"), ("LMCONV_FACES", shared / "faces")):
        if folder.is_dir():
            os.environ.setdefault(variable, str(folder))
    from lmconv import checkpoints, plugins

    found = {model: checkpoints.find(model) for model in plugins.names("backbones") if model != OWN}
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
    for model in models:
        options = [part for target in TARGETS for part in ("--to", target)]
        options += [part for precision in precisions for part in ("--precision", precision)]
        codes.append(run("export", model, *options, "--out", str(out)))
    artefacts = sorted(str(path.parent) for model in models for path in out.glob(f"{model}/*-*/manifest.json"))
    codes.append(run("verify", *artefacts))
    codes.append(run("bench", *artefacts))
    codes.append(run("report", str(out)))
    for line in left_out:
        print(f"left out: {line}")
    return max(code if code >= 0 else 70 for code in codes)  # killed by a signal


def run(*arguments: str) -> int:
    """Runs one `lmconv` command as a user would, showing it, its time and its memory."""
    print(f"$ lmconv {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    child = subprocess.Popen([str(Path(sys.executable).with_name("lmconv")), *arguments])
    _, status, usage = os.wait4(child.pid, 0)
    unit = 1e6 if platform.system() == "Darwin" else 1e3  # bytes there, kilobytes elsewhere
    print(f"({time.perf_counter() - start:.1f} s, peak memory {usage.ru_maxrss / unit:.0f} MB)\n", flush=True)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
