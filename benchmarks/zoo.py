"""Converts every network, alone and all in one run: `python benchmarks/zoo.py OUT`.

Prints one Markdown table and writes `OUT/zoo.json`. For each network: export time and peak memory in a process of its
own; parity in ONNX Runtime and OpenVINO; the largest difference between PyTorch's older exporter and the exporter of
lmconv; parameters and FLOPs of checkpoint and artefact. For all networks in one run: wall time and peak memory.
Networks without trained weights get seeded random weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lmconv.sources import resolve as source
from lmconv.visual.tables import markdown

TARGETS = ("onnx", "openvino")
LMCONV = Path(sys.executable).with_name("lmconv")


def main() -> None:
    """Measures all networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cross-check", help="only compare the older exporter on this network, with folder OUT")
    arguments = parser.parse_args()
    if arguments.cross_check:
        print(cross_check(arguments.cross_check, arguments.out))
        return
    out: Path = arguments.out
    models = source.names("landmarks")
    rows = [alone(model, out / "alone") for model in models]
    together, seconds, memory = run("export", *models, *options(out / "together"))
    failed = json.loads(together)["errors"]
    largest = max(row["memory_mb"] for row in rows)
    document = {
        "networks": rows,
        "together": {"seconds": seconds, "memory_mb": memory, "over_largest": memory / largest, "errors": failed},
    }
    (out / "zoo.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"\nAll in one run: {seconds:.0f} s, peak {memory:.0f} MB, {memory / largest:.2f} of the largest alone.")
    print("\n".join(f"failed: {error}" for error in failed))


def options(out: Path) -> list[str]:
    """Options of `lmconv export` for every network."""
    targets = [part for target in TARGETS for part in ("--to", target)]
    return ["--random-weights", "--no-guard", *targets, "--out", str(out), "--json"]


def alone(model: str, out: Path) -> dict[str, Any]:
    """Converts and verifies one network in processes of its own."""
    exported, seconds, memory = run("export", model, *options(out))
    first = json.loads(exported)["artifacts"][0]
    paths = [str(out / model / f"{target}-fp32") for target in TARGETS]
    verified, _, _ = run("verify", *paths, "--json")
    parity = {row["target"]: row["parity"] for row in json.loads(verified)["artifacts"]}
    check = subprocess.run(
        [sys.executable, __file__, str(out / model), "--cross-check", model], capture_output=True, text=True, check=True
    )
    row = {"model": model, "seconds": seconds, "memory_mb": memory, "exporters": float(check.stdout.split()[-1])}
    for key in ("weights", "source_parameters", "parameters", "source_flops", "flops"):
        row[key] = first[key]
    for target in TARGETS:
        row[target] = {key: parity[target][key] for key in ("max_abs", "max_map")}
    print(f"{model}: {seconds:.1f} s, {memory:.0f} MB", file=sys.stderr, flush=True)
    return row


def run(*arguments: str) -> tuple[str, float, float]:
    """Runs a command; returns its standard output, its time in seconds, and the peak memory of its processes in MB."""
    start = time.perf_counter()
    child = subprocess.Popen([str(LMCONV), *arguments], stdout=subprocess.PIPE, text=True)
    peaks = [0.0]
    watch = threading.Thread(target=_watch, args=(child, peaks))
    watch.start()
    text = child.communicate()[0]
    watch.join()
    return text, time.perf_counter() - start, max(peaks)


def _watch(child: subprocess.Popen[str], peaks: list[float]) -> None:
    """Appends the memory of a process and its descendants to `peaks`, in MB, until the process ends. Linux only.

    Shared memory counts once (proportional set size). A process counts from its second sample on: between fork and exec
    a process seems to have the memory of its parent.
    """
    before: set[int] = set()
    while child.poll() is None:
        time.sleep(0.05)
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        tree = {child.pid}
        for _ in range(3):  # at most three generations
            tree |= {process for process, parent in parents.items() if parent in tree}
        peaks.append(sum(map(_proportional, tree & before)) / 1e3)
        before = tree


def _proportional(process: int) -> int:
    """Proportional set size of a process, kilobytes; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 0


def cross_check(model: str, folder: Path) -> float:
    """Exports with PyTorch's older exporter; returns the largest difference to the plain graph on seeded noise.

    The unit is fractions of the input for landmarks, and fractions of their range for heatmaps.
    """
    import torch

    from lmconv.inference.ort import OrtSession
    from lmconv.inference.session import noise
    from lmconv.networks.compare import map_difference
    from lmconv.sources.resolve import open_source, resolve

    source = resolve(model, seed=0)
    height, width = source.spec.input_size
    path = folder / "older.onnx"
    with open_source(source) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: torch.nn.Module = session.network  # type: ignore[union-attr]
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, height, width),),
            path,
            dynamo=False,
            opset_version=18,
            input_names=["input"],
            output_names=["out"],
            dynamic_axes={"input": {0: "N"}, "out": {0: "N"}},
        )
    images = {"input": noise(source.spec, 8, 0)}
    with OrtSession(path) as older, OrtSession(folder / "plain" / "model.onnx") as plain:
        expected, result = older.run(images)["out"], plain.run(images)
    if source.spec.heatmaps:
        return map_difference(result["heatmaps"], expected)[0]
    return float(np.abs(result["landmarks"] - expected).max())


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as a Markdown table."""
    header = ["network", "weights", "parameters, M", "in the artefact", "GFLOP", "in the artefact"]
    header += ["ONNX Runtime", "OpenVINO", "older exporter", "s", "MB"]
    return markdown(header, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["model"],
        "random" if row["weights"].startswith("random") else "trained",
        f"{row['source_parameters'] / 1e6:.4f}",
        f"{row['parameters'] / 1e6:.4f}",
        f"{row['source_flops'] / 1e9:.3f}",
        f"{row['flops'] / 1e9:.3f}",
        *(_parity(row[target]) for target in TARGETS),
        f"{row['exporters']:.1e}",
        f"{row['seconds']:.0f}",
        f"{row['memory_mb']:.0f}",
    ]


def _parity(figures: dict[str, float | None]) -> str:
    maps = figures["max_map"]
    return f"{figures['max_abs']:.1e}" + (f" (maps {maps:.1e})" if maps is not None else "")


if __name__ == "__main__":
    main()
