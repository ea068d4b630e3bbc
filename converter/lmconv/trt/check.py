"""Builds, runs, compares and times prepared graphs on this machine's GPU: `python -m lmconv.trt.check FOLDER`.

FOLDER holds `cases.json`, graphs, inputs and what the source networks answer, as `scripts/gpu_check.py prepare` writes
them. What was found goes to `found.json` and `found.npz` in it, after every model, and a model that is there already is
not done again: a host that ends early loses one model, which comes last in the next call. `scripts/gpu_check.py judge`
makes the record of them.
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
"""How often an engine is run to see whether anything leaks."""
LEAK = 1 << 20
"""Bytes of device memory or of this process that may be fewer after all these calls."""
SAMPLES, BLOCKS = 200, 5
"""Timed runs of each contestant at each batch size, and in how many turns."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks what is asked for; the exit code.

    0 where all of it held, 1 where something did not, 2 where no model is called so, 3 without a GPU, 4 where files are
    missing or broken.
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
    """Whether CUDA still works here: after an illegal address, say, it does not until the process ends."""
    import pycuda.driver as cuda

    try:
        cuda.Context.synchronize()
    except cuda.Error:
        return False
    return True


def missing(cases: Json, folder: Path) -> list[str]:
    """Files that are not in the folder, though the check reads them: of a part that was not copied."""
    wanted = [cases["mistakes"]["unknown"]]
    for model in cases["models"]:
        wanted += [model["inputs"], *(case["onnx"] for case in model["cases"])]
    return [name for name in dict.fromkeys(wanted) if not (folder / name).is_file()]


class Runs(Protocol):
    """What in_chunks runs; an Engine is one."""

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name."""


class Found:
    """What was found so far, kept in the folder."""

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
        """What was found of each model."""
        models: Json = self.document["models"]
        return models

    @property
    def begun(self) -> list[str]:
        """The models that were begun; one of them that is not in `models` may have ended the process."""
        names: list[str] = self.document.setdefault("begun", [])
        return names

    def begin(self, name: str) -> None:
        """Notes that a model is begun."""
        if name not in self.begun:
            self.begun.append(name)
        self.write()

    def add(self, name: str, row: Json, arrays: Arrays) -> None:
        """Keeps what was found of a model."""
        self.models[name] = row
        self.arrays.update(arrays)
        self.write()

    def write(self) -> None:
        """Writes both files, whole or not at all."""
        new = self.folder / "new.npz"
        np.savez_compressed(new, **self.arrays)
        new.replace(self.folder / "found.npz")
        text = self.folder / "new.json"
        text.write_text(json.dumps(self.document, indent=1), encoding="utf-8")
        text.replace(self.folder / "found.json")

    def failures(self) -> list[str]:
        """What did not hold, one line each."""
        rows = [(name, row) for model in self.models.values() for name, row in model["cases"].items()]
        lines = [f"{name}: {reason}" for name, row in rows for reason in row["failed"]]
        return lines + [
            f"{name}: {row['said']}" for name, row in self.document.get("mistakes", {}).items() if not row["ok"]
        ]


def check(model: Json, folder: Path, torch: str | None) -> tuple[Json, Arrays]:
    """Builds and runs the engines of one model, then times them in turn; gives a row, and outputs by `CASE/NAME`."""
    row: Json = {"cases": {}, "latency": {}}
    arrays: Arrays = {}
    with np.load(folder / model["inputs"], allow_pickle=False) as file:
        known = {name: file[name] for name in file.files}
    engines: dict[str, Path] = {}
    for case in model["cases"]:
        start = time.monotonic()
        try:
            found, outputs, engines[case["name"]] = one(case, folder, known)
        except Exception as error:  # whatever it is, the other cases have their turn
            found, outputs = {"failed": [said(error)]}, {}
        row["cases"][case["name"]] = found
        if case["kept"]:
            arrays.update({f"{case['name']}/{name}": value for name, value in outputs.items()})
        seconds = round(time.monotonic() - start, 1)
        print(json.dumps({"case": case["name"], "seconds": seconds, **summary(found)}), flush=True)
    commands = {name: python("lmconv.trt.worker", path) for name, path in engines.items()}
    if torch:
        words = {name: [word.format(folder=folder) for word in line] for name, line in model["torch"].items()}
        # What the Python that runs this was told of its own libraries is not for another.
        other = ["env", "-u", "PYTHONHOME", "-u", "LD_LIBRARY_PATH", torch]
        commands.update({name: [*other, *line] for name, line in words.items()})
    profiles = {case["name"]: case["profile"] for case in model["cases"]}
    for batch in model["batches"]:
        able = {name for name in commands if name not in profiles or profiles[name][0] <= batch <= profiles[name][2]}
        try:
            row["latency"][str(batch)] = timed({name: commands[name] for name in commands if name in able}, batch)
        except Exception as error:  # what was built and compared is worth keeping without it
            print(f"failed: {model['name']} cannot be timed at batch {batch}: {said(error)}", flush=True)
            row["latency"][str(batch)] = {"times": {}, "faults": {"all": said(error)}}
    return row, arrays


def said(error: Exception) -> str:
    """An error in a line: a Fault is one of ours, any other a mistake of this program or what it stands on."""
    return str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"


def engine_file(folder: Path, case: str) -> Path:
    """Where the engine of a case is kept."""
    return folder / "engines" / f"{case}.engine"


def one(case: Json, folder: Path, known: Arrays) -> tuple[Json, Arrays, Path]:
    """Builds one engine, twice, and runs it; raises Fault where that is impossible."""
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
    """What an engine did not hold to; it is judged again, in pixels and ION, where the record is made."""
    judged = case["judged"]
    lines = []
    if not found["off"]["max"] <= case["limit"]:  # not a number is off
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
    """Runs all inputs, so many at once, the last ones repeated to fill up; inputs repeated where there are fewer."""
    parts: list[Arrays] = []
    for start in range(0, len(inputs), size):
        chunk = inputs[start : start + size]
        filled = np.resize(chunk, (size, *chunk.shape[1:]))
        parts.append({name: value[: len(chunk)] for name, value in engine.run({"input": filled}).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def apart(found: Any, expected: Any) -> dict[str, float]:
    """Largest and mean absolute difference; not a number where either is."""
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return {"max": float(off.max()), "mean": float(off.mean())}


def leak(engine: Engine, inputs: Any) -> dict[str, int]:
    """Bytes of device memory and of this process that many calls with changing batches cost."""
    import pycuda.driver as cuda

    def used() -> dict[str, int]:
        free, _ = cuda.mem_get_info()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return {"device": -free, "host": pages * os.sysconf("SC_PAGE_SIZE")}

    sizes = (2, 1, 2)
    for size in sizes * 200:  # what libraries keep for good, they have by then
        engine.run({"input": inputs[:size]})
    before = used()
    for call in range(CALLS):
        engine.run({"input": inputs[: sizes[call % len(sizes)]]})
    after = used()
    return {what: after[what] - before[what] for what in before}


def timed(commands: dict[str, list[str]], batch: int) -> Json:
    """Times all contestants in turn at a batch size: what `lmconv.trt.turns.in_turn` gives, as JSON."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(command, name)) for name, command in commands.items()]
        found = in_turn(workers, batch, SAMPLES, BLOCKS)
    return {**found._asdict(), "faults": {name: str(fault) for name, fault in found.faults.items()}}


def mistakes(folder: Path, cases: Json) -> Json:
    """What users do wrong: each has to end in a Fault of the right kind, never in a crash."""
    path = engine_file(folder, cases["engine"])
    rows: Json = {}

    def attempt(name: str, kind: str, action: Callable[[], object], names: Sequence[str] = ()) -> None:
        try:
            action()
            rows[name] = {"ok": False, "said": "nothing was refused"}
        except Fault as fault:
            named = all(node in fault.nodes for node in names)
            rows[name] = {"ok": fault.kind == kind and named, "kind": fault.kind, "said": str(fault)}
        except Exception as error:  # no Fault: that is what it is to find
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
    """What is kept of a build."""
    return {"seconds": round(plan.seconds, 3), "bytes": len(plan.engine), "layers": plan.layers, "memory": plan.memory}


def summary(found: Json) -> Json:
    """What is said of a case while it runs."""
    built = {"build_s": found["build"]["seconds"]} if "build" in found else {}
    return {**built, **{key: found[key] for key in ("off", "leak", "failed") if key in found}}


if __name__ == "__main__":
    sys.exit(main())
