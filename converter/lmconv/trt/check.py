"""Builds, runs, compares and times prepared graphs on this machine's GPU: `python -m lmconv.trt.check FOLDER`.

FOLDER holds `cases.json`, graphs, inputs and the outputs of the source networks, as `scripts/gpu_check.py prepare`
writes these files. After every model, the results are written to `found.json` and `found.npz` in FOLDER. A model with
stored results is skipped. A model that was started but has no results is checked last: if the host stops during a
check, only that model is lost. `scripts/gpu_check.py judge` makes the record from the results.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmconv.trt import device
from lmconv.trt.build import Options, Plan, build
from lmconv.trt.engine import Engine
from lmconv.trt.faults import Fault
from lmconv.trt.turns import Worker, in_turn, python

Json = dict[str, Any]
Arrays = dict[str, Any]

CALLS = 10_000
"""Number of engine runs in the leak test."""
LEAK = 1 << 20
"""Bytes of device memory, and of process memory, that may be lost in the leak test."""
SAMPLES, BLOCKS = 200, 5
"""Timed runs of each contestant per batch size, and the number of blocks that these runs are split into."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the selected models.

    Args:
        arguments: Command-line arguments; None reads `sys.argv`.

    Returns:
        The exit code: 0 if everything passed; 1 if something failed; 2 if no model matches `--only`; 3 without a GPU; 4
        if files are missing or broken.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="models whose names match, such as 'mobilenet_v2*'")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further model after so many")
    parser.add_argument("--torch", help="a Python that has PyTorch and lmconv's sources: PyTorch is timed, too")
    given = parser.parse_args(arguments)
    if reason := device.missing():
        print(f"error: no engine can be built here: {reason}", file=sys.stderr)
        return 3
    try:
        found = Found(given.folder, device.describe())
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        said = f"{type(error).__name__}: {error}"
        print(f"error: {given.folder} does not hold what `gpu_check.py prepare` writes: {said}", file=sys.stderr)
        return 4
    names = [model["name"] for model in found.cases["models"]]
    if not fnmatch.filter(names, given.only):
        print(f"error: no model is called {given.only} (there are {', '.join(names)})", file=sys.stderr)
        return 2
    if lacking := missing(found.cases, given.folder):
        print(f"error: {given.folder} lacks {', '.join(lacking)}: copy all parts into it", file=sys.stderr)
        return 4
    end = time.monotonic() + given.seconds
    for model in sorted(found.cases["models"], key=lambda model: model["name"] in found.begun):
        if not fnmatch.fnmatch(model["name"], given.only) or model["name"] in found.models:
            continue
        if time.monotonic() > end:
            print(f"left for another call: {model['name']}", flush=True)
            continue
        found.begin(model["name"])
        found.add(model["name"], *check(model, given.folder, given.torch))
        if not usable():
            print(f"failed: the GPU is of no more use to this process after {model['name']}: call again", flush=True)
            return 1
    if "mistakes" not in found.document and engine_file(given.folder, found.cases["mistakes"]["engine"]).exists():
        found.document["mistakes"] = mistakes(given.folder, found.cases["mistakes"])
        found.write()
    for line in found.failures():
        print(f"failed: {line}", flush=True)
    return 1 if found.failures() else 0


def usable() -> bool:
    """True if CUDA still works in this process. After an illegal address, for example, all later calls fail."""
    import pycuda.driver as cuda

    try:
        cuda.Context.synchronize()
    except cuda.Error:
        return False
    return True


def missing(cases: Json, folder: Path) -> list[str]:
    """Returns the names of files that the check needs but the folder lacks, because a part was not copied."""
    wanted = [cases["mistakes"]["unknown"]]
    for model in cases["models"]:
        wanted += [model["inputs"], *(case["onnx"] for case in model["cases"])]
    return [name for name in dict.fromkeys(wanted) if not (folder / name).is_file()]


class Runs(Protocol):
    """Type of a runner for `in_chunks`, for example an Engine."""

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the outputs by name."""


class Found:
    """Results so far, stored in the folder after every model."""

    def __init__(self, folder: Path, machine: Json) -> None:
        self.folder = folder
        self.cases: Json = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
        self.document: Json = {"digest": self.cases["digest"], "machine": machine, "models": {}}
        self.arrays: Arrays = {}
        if (folder / "found.json").exists():
            kept = json.loads((folder / "found.json").read_text(encoding="utf-8"))
            if all(kept[key] == self.document[key] for key in ("digest", "machine")):
                self.document = kept
                with np.load(folder / "found.npz", allow_pickle=False) as file:
                    self.arrays = {name: file[name] for name in file.files}

    @property
    def models(self) -> Json:
        """Results by name of the model."""
        models: Json = self.document["models"]
        return models

    @property
    def begun(self) -> list[str]:
        """Names of the started models. A model without an entry in `models` may have ended the process."""
        names: list[str] = self.document.setdefault("begun", [])
        return names

    def begin(self, name: str) -> None:
        """Stores that the check of a model has started."""
        if name not in self.begun:
            self.begun.append(name)
        self.write()

    def add(self, name: str, row: Json, arrays: Arrays) -> None:
        """Stores the results of a model."""
        self.models[name] = row
        self.arrays.update(arrays)
        self.write()

    def write(self) -> None:
        """Writes both files. Each file is replaced as a whole or not at all."""
        new = self.folder / "new.npz"
        np.savez_compressed(new, **self.arrays)
        new.replace(self.folder / "found.npz")
        text = self.folder / "new.json"
        text.write_text(json.dumps(self.document, indent=1), encoding="utf-8")
        text.replace(self.folder / "found.json")

    def failures(self) -> list[str]:
        """Returns one line for each failed check."""
        rows = [(name, row) for model in self.models.values() for name, row in model["cases"].items()]
        lines = [f"{name}: {reason}" for name, row in rows for reason in row["failed"]]
        return lines + [
            f"{name}: {row['said']}" for name, row in self.document.get("mistakes", {}).items() if not row["ok"]
        ]


def check(model: Json, folder: Path, torch: str | None) -> tuple[Json, Arrays]:
    """Builds and runs the engines of one model, then times the engines interleaved.

    Args:
        model: Entry of `cases.json`.
        folder: Folder of the check.
        torch: Python interpreter with PyTorch, to time PyTorch too; None times the engines only.

    Returns:
        The result row of the model, and the outputs to keep by `CASE/NAME`.
    """
    row: Json = {"cases": {}, "latency": {}}
    arrays: Arrays = {}
    with np.load(folder / model["inputs"], allow_pickle=False) as file:
        known = {name: file[name] for name in file.files}
    engines: dict[str, Path] = {}
    for case in model["cases"]:
        start = time.monotonic()
        try:
            found, outputs, engines[case["name"]] = one(case, folder, known)
        except Exception as error:  # an unexpected error must not stop the other cases
            found, outputs = {"failed": [said(error)]}, {}
        row["cases"][case["name"]] = found
        if case["kept"]:
            arrays.update({f"{case['name']}/{name}": value for name, value in outputs.items()})
        seconds = round(time.monotonic() - start, 1)
        print(json.dumps({"case": case["name"], "seconds": seconds, **summary(found)}), flush=True)
    commands = {name: python("lmconv.trt.worker", path) for name, path in engines.items()}
    if torch:
        words = {name: [word.format(folder=folder) for word in line] for name, line in model["torch"].items()}
        # The other Python must not use the library paths that this Python was started with.
        other = ["env", "-u", "PYTHONHOME", "-u", "LD_LIBRARY_PATH", torch]
        commands.update({name: [*other, *line] for name, line in words.items()})
    profiles = {case["name"]: case["profile"] for case in model["cases"]}
    for batch in model["batches"]:
        able = {name for name in commands if name not in profiles or profiles[name][0] <= batch <= profiles[name][2]}
        try:
            row["latency"][str(batch)] = timed({name: commands[name] for name in commands if name in able}, batch)
        except Exception as error:  # without times, the built and compared engines are still worth keeping
            print(f"failed: {model['name']} cannot be timed at batch {batch}: {said(error)}", flush=True)
            row["latency"][str(batch)] = {"times": {}, "faults": {"all": said(error)}}
    return row, arrays


def said(error: Exception) -> str:
    """Returns an error as one line. The name of the class is added unless the error is a Fault."""
    return str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"


def engine_file(folder: Path, case: str) -> Path:
    """Returns the path of the engine of a case."""
    return folder / "engines" / f"{case}.engine"


def one(case: Json, folder: Path, known: Arrays) -> tuple[Json, Arrays, Path]:
    """Builds one engine twice, and runs the first build.

    Args:
        case: Entry of a model's `cases`.
        folder: Folder of the check.
        known: The model's input, and the source network's outputs, by name.

    Returns:
        The result of the case, the outputs by name, and the path of the engine.

    Raises:
        Fault: If the engine cannot be built or run.
    """
    inputs, judged = known["input"], case["judged"]
    onnx = (folder / case["onnx"]).read_bytes()
    options = Options(profile=tuple(case["profile"]))
    plan = build(onnx, options)
    again = build(onnx, replace(options, cache=plan.cache))
    path = engine_file(folder, case["name"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(plan.engine)
    found: Json = {"build": built(plan), "rebuilt": built(again), "cache_changed": again.cache != plan.cache}
    smallest, best, largest = case["profile"]
    with Engine(plan.engine) as engine:
        outputs = in_chunks(engine, inputs, best)
        found["batches"] = {
            str(size): apart(in_chunks(engine, inputs, size)[judged], outputs[judged])
            for size in (smallest, 3, largest)
        }
        if case["leak"]:
            found["leak"] = leak(engine, inputs)
    found["off"] = apart(outputs[judged], known[judged])
    found["failed"] = list(complaints(found, case))
    return found, outputs, path


def complaints(found: Json, case: Json) -> list[str]:
    """Returns one line for each check that an engine failed.

    `scripts/gpu_check.py judge` judges the outputs again, in pixels and ION.
    """
    judged = case["judged"]
    lines = []
    if not found["off"]["max"] <= case["limit"]:  # the comparison is false for NaN, which therefore fails
        lines.append(f"{judged} are {found['off']['max']:.2g} off the source network's, allowed {case['limit']:g}")
    for size, off in found.get("batches", {}).items():
        if not off["max"] <= case["limit"]:
            lines.append(f"batch {size} gives {judged} {off['max']:.2g} off those of another")
    if found.get("cache_changed"):
        lines.append("building again from its timing cache changed the cache")
    for what, lost in found.get("leak", {}).items():
        if lost > LEAK:
            lines.append(f"{CALLS} calls lost {lost:,} bytes of {what} memory")
    return lines


def in_chunks(engine: Runs, inputs: Any, size: int) -> Arrays:
    """Runs all inputs in chunks of a fixed size.

    A chunk with fewer inputs is filled up by repeating its inputs; the outputs of the repeated inputs are dropped.

    Args:
        engine: Runner to use.
        inputs: Array of the network's input, (N, ...).
        size: Number of inputs per run.

    Returns:
        Arrays of N outputs each, by name.
    """
    parts: list[Arrays] = []
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        filled = np.resize(chunk, (size, *chunk.shape[1:]))
        parts.append({name: value[: len(chunk)] for name, value in engine.run({"input": filled}).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def apart(found: Any, expected: Any) -> dict[str, float]:
    """Returns the largest and the mean absolute difference of two arrays; NaN if an element is NaN."""
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return {"max": float(off.max()), "mean": float(off.mean())}


def leak(engine: Engine, inputs: Any) -> dict[str, int]:
    """Returns the device memory and process memory, in bytes, that CALLS runs with changing batch sizes lose."""
    import pycuda.driver as cuda

    def used() -> dict[str, int]:
        free, _ = cuda.mem_get_info()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {"device": -free, "host": pages * os.sysconf("SC_PAGE_SIZE")}

    sizes = (2, 1, 2)
    for size in sizes * 200:  # warm-up: after these runs, libraries have allocated all memory that they keep
        engine.run({"input": inputs[:size]})
    before = used()
    for call in range(CALLS):
        engine.run({"input": inputs[: sizes[call % len(sizes)]]})
    after = used()
    return {what: after[what] - before[what] for what in before}


def timed(commands: dict[str, list[str]], batch: int) -> Json:
    """Times all contestants interleaved at one batch size; returns the result of `lmconv.trt.turns.in_turn` as JSON."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(command, name)) for name, command in commands.items()]
        found = in_turn(workers, batch, SAMPLES, BLOCKS)
    return {**found._asdict(), "faults": {name: str(fault) for name, fault in found.faults.items()}}


def mistakes(folder: Path, cases: Json) -> Json:
    """Makes typical mistakes of users. Each mistake must end in a Fault of the expected kind, never in a crash."""
    path = engine_file(folder, cases["engine"])
    rows: Json = {}

    def attempt(name: str, kind: str, action: Callable[[], object], names: Sequence[str] = ()) -> None:
        try:
            action()
            rows[name] = {"ok": False, "said": "nothing was refused"}
        except Fault as fault:
            named = all(node in fault.nodes for node in names)
            rows[name] = {"ok": fault.kind == kind and named, "kind": fault.kind, "said": str(fault)}
        except Exception as error:  # the check looks for exactly such errors: anything else than a Fault
            rows[name] = {"ok": False, "kind": None, "said": said(error)}
        print(json.dumps({"mistake": name, **rows[name]}), flush=True)

    def run(batch: int) -> None:
        with Engine(path.read_bytes()) as engine:
            engine.run({"input": np.zeros((batch, *engine.inputs[0].shape[1:]), np.float32)})

    def closed() -> None:
        with Engine(path.read_bytes()) as engine:
            shape = engine.inputs[0].shape[1:]
        engine.run({"input": np.zeros((1, *shape), np.float32)})

    plan = path.read_bytes()
    attempt("a batch above the profile", "shape", lambda: run(cases["above"]))
    attempt("an engine cut short", "load", lambda: Engine(plan[: len(plan) // 2]))
    attempt("a file that is no engine", "load", lambda: Engine(b"no engine"))
    attempt("an engine that was closed", "run", closed)
    unknown = (folder / cases["unknown"]).read_bytes()
    options = Options(profile=(1, 1, 1))
    attempt("an operator that TensorRT does not have", "build", lambda: build(unknown, options), cases["nodes"])
    attempt("a file that is no graph", "build", lambda: build(b"no graph", options))
    return rows


def built(plan: Plan) -> Json:
    """Returns the figures of a build to store."""
    return {"seconds": round(plan.seconds, 3), "bytes": len(plan.engine), "layers": plan.layers, "memory": plan.memory}


def summary(found: Json) -> Json:
    """Returns the part of a case's result that is printed during the check."""
    built = {"build_s": found["build"]["seconds"]} if "build" in found else {}
    return {**built, **{key: found[key] for key in ("off", "leak", "failed") if key in found}}


if __name__ == "__main__":
    sys.exit(main())
