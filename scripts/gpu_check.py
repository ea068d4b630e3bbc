"""`make gpu-check`: builds, compares and times TensorRT engines on a GPU, and writes the record.

    gpu_check.py prepare OUT          graphs, faces and expected outputs, for a host that has no network
    gpu_check.py judge OUT            the record `benchmarks/gpu-NAME.json`, from the results of such a host
    gpu_check.py run OUT              both, and the check between them, on a machine with TensorRT and a GPU
    gpu_check.py rehearse OUT         the same without a GPU: ONNX Runtime computes the graphs, nothing is timed

The GPU host runs `lmconv.trt`, which needs Python 3.9 and NumPy besides TensorRT and pycuda: docs/tensorrt.md says how.
Trained weights come from LMCONV_WEIGHTS, annotated faces from LMCONV_FACES; int8 is calibrated on the training part and
ION measured on the test part. Networks without trained weights get seeded random weights, and no ION.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from lmconv.engines.lint import VERSIONS
from lmconv.errors import LmconvError, MissingRuntime
from lmconv.gpu_record import parts, record
from lmconv.gpu_record.networks import chosen
from lmconv.gpu_record.prepare import prepare
from lmconv.gpu_record.rehearsal import rehearse
from lmconv.trt import check, device


def main(arguments: list[str] | None = None) -> int:
    """Runs one of the four actions; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "judge", "run", "rehearse"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--tensorrt", type=int, choices=VERSIONS, help="of the host; default: 8, or the one here")
    parser.add_argument("--only", nargs="+", help="networks", metavar="NETWORK")
    parser.add_argument("--record", type=Path, default=Path("benchmarks"), help="folder of the record")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except LmconvError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    what, out = options.what, options.out
    if what == "run" and (missing := device.missing()):
        raise MissingRuntime("no engine can be built here", hint=missing)
    if what != "judge":
        major = options.tensorrt or (int(device.describe()["tensorrt"].split(".")[0]) if what == "run" else 8)
        prepare(out, major, chosen(options.only), functools.partial(print, flush=True))
    if what == "rehearse":
        rehearse(parts.gather(out))
    if what == "run":
        check.main([str(parts.gather(out)), "--torch", sys.executable])
    if what == "prepare":
        return 0
    path, document = record.judge(out, out if what == "rehearse" else options.record)
    failed = document["failed"]
    for line in (*record.lines(document), f"{path}: {'failed: ' + ', '.join(failed) if failed else 'all passed'}"):
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
