"""One construct by one route: the source is made, converted six times, and every artefact is judged."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tests.corpus import judge
from tests.corpus.coverage import Coverage, coverage
from tests.corpus.registry import FILE, OWN, Case, Route, cases, place_of, settled

from lmconv.building.assembling import build
from lmconv.building.plain import plain_graph
from lmconv.building.request import Conversion, Crops
from lmconv.console import one_line
from lmconv.errors import LmconvError
from lmconv.options import SourceOptions
from lmconv.sources.resolve import resolve
from lmconv.types import Precision, Source, Variant

ARTEFACTS = tuple(f"{target}-{precision}" for target in ("onnx", "openvino") for precision in ("fp32", "fp16", "int8"))
OK = "ok"
ENOUGH = 0.8
"""Smallest share of the multiply-accumulates in int8 that counts as an int8 artefact."""
CALIBRATION, HELD_OUT = 32, 8
"""Number of faces to calibrate on, and to judge on."""


class NotExported(Exception):
    """PyTorch's exporter cannot write the network at this opset, or ONNX Runtime cannot load the written file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Results of the six artefacts: `ok`, the line that lmconv prints, or the difference."""

    lines: dict[str, str]
    coverage: dict[str, Coverage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A source: its name, as typed, the options, and a function that runs the source on inputs of the artefact."""

    model: str
    options: dict[str, Any]
    run: judge.Run


def attempt(case: Case, route: Route) -> Result:
    """Converts one construct by one route, and judges the artefacts.

    Raises:
        NotExported: The exporter of the route cannot write the network.
    """
    with tempfile.TemporaryDirectory() as place, _quiet():
        made = _made(case, route, Path(place))
        lines, covered = _converted(case, made, Path(place))
    for text, name in ((made.model, "FILE.py:NAME" if route == OWN else "FILE"), (place, "DIR")):
        lines = {artefact: line.replace(text, name) for artefact, line in lines.items()}
    return Result(lines=lines, coverage=covered)


def _made(case: Case, route: Route, folder: Path) -> Made:
    kind, _, opset = route.partition("-")
    if kind == OWN:
        return _own(case, folder)
    content = case.build(int(opset)).SerializeToString() if kind == FILE else _exported(case, kind, int(opset))
    path = folder / "net.onnx"
    path.write_bytes(content)

    def run(inputs: judge.Array) -> judge.Array:
        return np.asarray(case.expected(judge.onnx_run(content)(case.feed(inputs))))

    return Made(model=str(path), options=_options(case), run=run)


def _options(case: Case) -> dict[str, Any]:
    """Returns the arguments of `resolve`, parsed as the command line parses them."""
    typed: dict[str, Any] = dict.fromkeys(each.name for each in fields(SourceOptions)) | {"constants": ()}
    return SourceOptions(**typed | {"landmarks": case.points} | case.options).source_arguments()


def _network(case: Case) -> Any:
    import torch

    torch.manual_seed(0)
    network = case.build()
    noise = np.random.default_rng(7).random((CALIBRATION, 3, *case.size), dtype=np.float32) * np.float32(case.white)
    images = 0.7 * faces(case) + 0.3 * noise  # as training with noise: a network of clean faces alone is brittle
    return settled(network, torch.from_numpy(images).to(_dtype(network)))


def _dtype(network: Any) -> Any:
    """Returns the type of numbers that a network takes."""
    import torch

    return next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)


def _own(case: Case, folder: Path) -> Made:
    """Saves the weights of a network, which lmconv builds itself."""
    import torch

    network = _network(case)
    weights = folder / "weights.pth"
    torch.save(network.state_dict(), weights)
    options = _options(case) | {"weights": weights, "size": case.size, "name": "net"}
    return Made(model=place_of(case), options=options, run=_eager(network, case))


def _eager(network: Any, case: Case) -> judge.Run:
    import torch

    dtype = _dtype(network)

    def run(inputs: judge.Array) -> judge.Array:
        parts = np.split(inputs, len(inputs)) if case.alone else [inputs]
        with torch.no_grad():
            outputs = [case.expected(network(torch.from_numpy(part.copy()).to(dtype))) for part in parts]
        arrays = [output.float().numpy().reshape(len(part), -1) for output, part in zip(outputs, parts, strict=True)]
        return np.concatenate(arrays)

    return run


def _exported(case: Case, kind: str, opset: int) -> bytes:
    """Returns the file that one of PyTorch's exporters writes, with a free batch."""
    import torch

    try:
        if kind == "dynamo":
            written: Any = torch.onnx.export(_program(case.name), opset_version=opset, verbose=False)
            return bytes(written.model_proto.SerializeToString())
        content: Any = io.BytesIO()
        x = torch.from_numpy(faces(case)[:2].copy())
        axes = {"x": {0: "N"}, "y": {0: "N"}}
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
        torch.onnx.export(_network(case), (x,), content, dynamo=False, opset_version=opset, **names)
        judge.onnx_run(content.getvalue())  # some files are invalid at an old opset
    except Exception as error:
        raise NotExported(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return bytes(content.getvalue())


@lru_cache(maxsize=1)
def _program(name: str) -> Any:
    """Returns the program that the newer exporter captures, once for all opsets."""
    import torch

    case = cases()[name]
    x = torch.from_numpy(faces(case)[:2].copy())
    return torch.export.export(_network(case), (x,), dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},))


def _converted(case: Case, made: Made, folder: Path) -> tuple[dict[str, str], dict[str, Coverage]]:
    lines: dict[str, str] = {}
    covered: dict[str, Coverage] = {}
    calibration = faces(case)
    crops = Crops(cut=lambda: calibration, pictures=lambda: ["0" * 16] * len(calibration))
    try:
        source = resolve(made.model, **made.options)
        base = plain_graph(source, folder / "out", crops=crops)
    except Exception as error:
        return dict.fromkeys(ARTEFACTS, _line(error)), {}
    conversion = Conversion(base=base, out=folder / "out", crops=crops)
    for name in ARTEFACTS:
        target, _, precision = name.partition("-")
        try:
            artefact = build(conversion, Variant(target=target, precision=Precision(precision))).path
        except Exception as error:
            lines[name] = _line(error)
            continue
        lines[name] = _judged(case, source, made, artefact, precision)
        if precision == "int8":
            covered[name] = coverage(artefact)
            if lines[name] == OK and covered[name].share < ENOUGH:
                lines[name] = f"ok, with {covered[name].share:.0%} of the work in int8"
    return lines, covered


def _judged(case: Case, source: Source, made: Made, artefact: Path, precision: str) -> str:
    output = "heatmaps" if source.spec.heatmaps else "landmarks"
    noise = np.random.default_rng(5).integers(0, 256, (3, 3, *case.size)).astype(np.float32) * np.float32(
        case.white / 255
    )
    try:
        held_out = faces(case, held_out=True)
        wrong = judge.difference(artefact, precision, made.run, held_out, noise, output, slack=case.slack)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"WRONG: {wrong}" if wrong else OK


def _line(error: Exception) -> str:
    """Returns the line that the command line prints for an error, with its exit code."""
    if isinstance(error, LmconvError):
        return one_line(f"exit {error.exit_code}: {error}")
    return one_line(f"exit 70: {type(error).__name__}: {error}")


def faces(case: Case, *, held_out: bool = False) -> judge.Array:
    """Returns drawn faces as inputs of artefacts, (N, 3, H, W) float32, BGR: to calibrate on, or never seen before."""
    return _drawn(case.size, held_out) * np.float32(case.white / 255)


@cache
def _drawn(size: tuple[int, int], held_out: bool) -> judge.Array:
    import cv2

    from lmconv.synthetic import picture

    split = "testset" if held_out else "trainset"
    drawn = []
    for number in range(HELD_OUT if held_out else CALIBRATION):
        image, _ = picture.face(picture.SPLITS[split], picture.stream(0, split, number), side=96)
        drawn.append(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 3, 1, 2), np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters and runtimes, which print much, in part from C++."""
    kept = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        try:
            for number in kept:
                os.dup2(nowhere.fileno(), number)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
