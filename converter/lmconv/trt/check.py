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
from lmconv.trt.interleaving import Worker, module_command, time_interleaved

Json = dict[str, Any]
Arrays = dict[str, Any]

LEAK_RUNS = 10_000
"""Number of engine runs in the leak test."""
LEAK_LIMIT = 1 << 20
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
    options = _options(arguments)
    if reason := device.missing():
        print(f"error: engines cannot be built on this machine: {reason}", file=sys.stderr)
        return 3
    try:
        results = HostResults(options.folder, device.describe())
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}"
        print(f"error: cannot read the files of `gpu_check.py prepare` in {options.folder}: {reason}", file=sys.stderr)
        return 4
    names = [model["name"] for model in results.cases["models"]]
    if not fnmatch.filter(names, options.only):
        print(f"error: no model matches --only {options.only} (models: {', '.join(names)})", file=sys.stderr)
        return 2
    if absent := missing_files(results.cases, options.folder):
        print(f"error: {options.folder} lacks {', '.join(absent)}: copy all parts into the folder", file=sys.stderr)
        return 4
    if not check_models(results, options):
        return 1
    if "mistakes" not in results.document and engine_file(options.folder, results.cases["mistakes"]["engine"]).exists():
        results.document["mistakes"] = make_mistakes(options.folder, results.cases["mistakes"])
        results.write()
    for line in results.failures():
        print(f"failed: {line}", flush=True)
    return 1 if results.failures() else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", help="pattern for the names of models, for example 'mobilenet_v2*'")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no further model after this number of seconds"
    )
    parser.add_argument("--torch", help="Python interpreter with PyTorch and lmconv's sources: also time PyTorch")
    return parser.parse_args(arguments)


def check_models(results: HostResults, options: argparse.Namespace) -> bool:
    """Checks the selected models without results; started models come last.

    Returns:
        False if a model made CUDA unusable for this process; the remaining models then have no results.
    """
    end = time.monotonic() + options.seconds
    for model in sorted(results.cases["models"], key=lambda model: model["name"] in results.begun):
        name = model["name"]
        if not fnmatch.fnmatch(name, options.only) or name in results.models:
            continue
        if time.monotonic() > end:
            print(f"not started, because the time limit is reached: {name}", flush=True)
            continue
        results.begin(name)
        results.add(name, *check_model(model, options.folder, options.torch))
        if not cuda_works():
            print(f"failed: CUDA no longer works in this process after {name}: run the check again", flush=True)
            return False
    return True


def cuda_works() -> bool:
    """True if CUDA still works in this process. After an illegal address, for example, all later calls fail."""
    import pycuda.driver as cuda

    try:
        cuda.Context.synchronize()
    except cuda.Error:
        return False
    return True


def missing_files(cases: Json, folder: Path) -> list[str]:
    """Returns the names of files that the check needs but the folder lacks, because a part was not copied."""
    required = [cases["mistakes"]["unknown"]]
    for model in cases["models"]:
        required += [model["inputs"], *(case["onnx"] for case in model["cases"])]
    return [name for name in dict.fromkeys(required) if not (folder / name).is_file()]


class Runner(Protocol):
    """Type of a runner for `in_chunks`, for example an Engine."""

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the outputs by name."""


class HostResults:
    """Results so far, stored in the folder after every model."""

    def __init__(self, folder: Path, machine: Json) -> None:
        self.folder = folder
        self.cases: Json = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
        self.document: Json = {"digest": self.cases["digest"], "machine": machine, "models": {}}
        self.arrays: Arrays = {}
        if (folder / "found.json").exists():
            stored = json.loads((folder / "found.json").read_text(encoding="utf-8"))
            if all(stored[key] == self.document[key] for key in ("digest", "machine")):
                self.document = stored
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
        arrays, document = self.folder / "new.npz", self.folder / "new.json"
        np.savez_compressed(arrays, **self.arrays)
        arrays.replace(self.folder / "found.npz")
        document.write_text(json.dumps(self.document, indent=1), encoding="utf-8")
        document.replace(self.folder / "found.json")

    def failures(self) -> list[str]:
        """Returns one line for each failed check."""
        rows = [(name, row) for model in self.models.values() for name, row in model["cases"].items()]
        lines = [f"{name}: {reason}" for name, row in rows for reason in row["failed"]]
        return lines + [
            f"{name}: {row['said']}" for name, row in self.document.get("mistakes", {}).items() if not row["ok"]
        ]


def check_model(model: Json, folder: Path, torch: str | None) -> tuple[Json, Arrays]:
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
        reference = {name: file[name] for name in file.files}
    engines: dict[str, Path] = {}
    for case in model["cases"]:
        start = time.monotonic()
        try:
            result, outputs, engines[case["name"]] = check_case(case, folder, reference)
        except Exception as error:  # an unexpected error must not stop the other cases
            result, outputs = {"failed": [error_line(error)]}, {}
        row["cases"][case["name"]] = result
        if case["kept"]:
            arrays.update({f"{case['name']}/{name}": value for name, value in outputs.items()})
        seconds = round(time.monotonic() - start, 1)
        print(json.dumps({"case": case["name"], "seconds": seconds, **summary(result)}), flush=True)
    commands = {name: module_command("lmconv.trt.worker", path) for name, path in engines.items()}
    if torch:
        commands.update(_torch_commands(model, folder, torch))
    profiles = {case["name"]: case["profile"] for case in model["cases"]}
    for batch in model["batches"]:
        able = {name for name in commands if name not in profiles or profiles[name][0] <= batch <= profiles[name][2]}
        selected = {name: command for name, command in commands.items() if name in able}
        try:
            row["latency"][str(batch)] = time_contestants(selected, batch)
        except Exception as error:  # without times, the built and compared engines are still worth keeping
            print(f"failed: {model['name']} cannot be timed at batch {batch}: {error_line(error)}", flush=True)
            row["latency"][str(batch)] = {"times": {}, "faults": {"all": error_line(error)}}
    return row, arrays


def _torch_commands(model: Json, folder: Path, torch: str) -> dict[str, list[str]]:
    """Returns the commands that serve the PyTorch network with another Python interpreter, by name."""
    # The other Python must not use the library paths that this Python was started with.
    interpreter = ["env", "-u", "PYTHONHOME", "-u", "LD_LIBRARY_PATH", torch]
    return {
        name: [*interpreter, *(word.format(folder=folder) for word in words)] for name, words in model["torch"].items()
    }


def error_line(error: Exception) -> str:
    """Returns an error as one line. The name of the class is added unless the error is a Fault."""
    return str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"


def engine_file(folder: Path, case: str) -> Path:
    """Returns the path of the engine of a case."""
    return folder / "engines" / f"{case}.engine"


def check_case(case: Json, folder: Path, reference: Arrays) -> tuple[Json, Arrays, Path]:
    """Builds one engine twice, and runs the first build.

    Args:
        case: Entry of a model's `cases`.
        folder: Folder of the check.
        reference: The model's `input`, and the source network's outputs, by name.

    Returns:
        The result of the case, the outputs by name, and the path of the engine.

    Raises:
        Fault: If the engine cannot be built or run.
    """
    inputs, judged = reference["input"], case["judged"]
    onnx = (folder / case["onnx"]).read_bytes()
    options = Options(profile=tuple(case["profile"]))
    plan = build(onnx, options)
    second = build(onnx, replace(options, cache=plan.cache))
    path = engine_file(folder, case["name"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(plan.engine)
    result: Json = {
        "build": build_figures(plan),
        "rebuilt": build_figures(second),
        "cache_changed": second.cache != plan.cache,
    }
    minimum, optimum, maximum = case["profile"]
    with Engine(plan.engine) as engine:
        outputs = in_chunks(engine, inputs, optimum)
        result["batches"] = {
            str(size): apart(in_chunks(engine, inputs, size)[judged], outputs[judged]) for size in (minimum, 3, maximum)
        }
        if case["leak"]:
            result["leak"] = lost_memory(engine, inputs)
    result["off"] = apart(outputs[judged], reference[judged])
    result["failed"] = list(complaints(result, case))
    return result, outputs, path


def complaints(result: Json, case: Json) -> list[str]:
    """Returns one line for each check that an engine failed.

    `scripts/gpu_check.py judge` judges the outputs again, in pixels and ION.
    """
    judged = case["judged"]
    lines = []
    limit = case["limit"]
    if not result["off"]["max"] <= limit:  # the comparison is false for NaN, which therefore fails
        lines.append(f"{judged} differ from the source network by {result['off']['max']:.2g}, allowed {limit:g}")
    for size, difference in result.get("batches", {}).items():
        if not difference["max"] <= limit:
            lines.append(f"{judged} of batch {size} differ from another batch size by {difference['max']:.2g}")
    if result.get("cache_changed"):
        lines.append("a second build from the timing cache changed the cache")
    for place, lost in result.get("leak", {}).items():
        if lost > LEAK_LIMIT:
            lines.append(f"{LEAK_RUNS} runs lost {lost:,} bytes of {place} memory")
    return lines


def in_chunks(engine: Runner, inputs: Any, size: int) -> Arrays:
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


def apart(actual: Any, expected: Any) -> dict[str, float]:
    """Returns the largest and the mean absolute difference of two arrays; NaN if an element is NaN."""
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return {"max": float(difference.max()), "mean": float(difference.mean())}


def lost_memory(engine: Engine, inputs: Any) -> dict[str, int]:
    """Returns the device memory and process memory, in bytes, that LEAK_RUNS runs with changing batch sizes lose."""
    import pycuda.driver as cuda

    def used() -> dict[str, int]:
        free, _ = cuda.mem_get_info()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {"device": -free, "host": pages * os.sysconf("SC_PAGE_SIZE")}

    sizes = (2, 1, 2)
    for size in sizes * 200:  # warm-up: after these runs, libraries have allocated all memory that they keep
        engine.run({"input": inputs[:size]})
    before = used()
    for number in range(LEAK_RUNS):
        engine.run({"input": inputs[: sizes[number % len(sizes)]]})
    after = used()
    return {place: after[place] - before[place] for place in before}


def time_contestants(commands: dict[str, list[str]], batch: int) -> Json:
    """Times all contestants interleaved at one batch size; returns the `InterleavedTimes` as JSON."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(command, name)) for name, command in commands.items()]
        times = time_interleaved(workers, batch, SAMPLES, BLOCKS)
    return {**times._asdict(), "faults": {name: str(fault) for name, fault in times.faults.items()}}


def make_mistakes(folder: Path, cases: Json) -> Json:
    """Makes typical mistakes of users. Each mistake must end in a Fault of the expected kind, never in a crash."""
    path = engine_file(folder, cases["engine"])
    rows: Json = {}

    def attempt(name: str, kind: str, action: Callable[[], object], nodes: Sequence[str] = ()) -> None:
        try:
            action()
            rows[name] = {"ok": False, "said": "the mistake caused no error"}
        except Fault as fault:
            expected = fault.kind == kind and all(node in fault.nodes for node in nodes)
            rows[name] = {"ok": expected, "kind": fault.kind, "said": str(fault)}
        except Exception as error:  # the purpose of this check: to find errors that are not Faults
            rows[name] = {"ok": False, "kind": None, "said": error_line(error)}
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


def build_figures(plan: Plan) -> Json:
    """Returns the figures of a build to store."""
    return {"seconds": round(plan.seconds, 3), "bytes": len(plan.engine), "layers": plan.layers, "memory": plan.memory}


def summary(result: Json) -> Json:
    """Returns the part of a case's result that is printed during the check."""
    build_time = {"build_s": result["build"]["seconds"]} if "build" in result else {}
    return {**build_time, **{key: result[key] for key in ("off", "leak", "failed") if key in result}}


if __name__ == "__main__":
    sys.exit(main())
