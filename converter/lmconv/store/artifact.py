"""The folder of an artefact: writes, reads and checks manifest.json, and replaces the folder as a whole.

Layout of the manifest (format 1): `digest` is the sha256 of everything but `measured`, `seal` the sha256 of
the whole document. The file must be the canonical JSON of its content, so that every changed byte is noticed.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmconv.errors import InputError
from lmconv.networks.heads import head_of
from lmconv.networks.interfaces import interface_of
from lmconv.store.files import canonical_of, canonical_parts, replace_text, sha256, text_digest, writing
from lmconv.types import (
    Artifact,
    ChosenOutputs,
    Crop,
    Decode,
    Json,
    ModelSpec,
    Precision,
    Preprocess,
    TensorSpec,
    Variant,
)

FORMAT = 1
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
LOCK = ".lock"
"""Lock file in the folder of a model, held while an artefact is built and moved into place."""
PLAIN = "plain"
"""Folder of the plain graph, beside the artefacts of a network."""
WHY = "why"
"""Folder of the node at which an artefact differs first, beside the artefacts of a network (docs/blame.md)."""
SEARCH = "tune-"
"""Beginning of the name of the folder with the measurements of `lmconv tune`, beside the artefacts of a network."""
BUILD = Path("build")
"""Folder of all artefacts by default, in the working folder."""
DEPTH = 3
"""Largest depth of an artefact below a folder that a user names: `.` has `build/MODEL/TARGET-PRECISION`."""


def spec_to_json(spec: ModelSpec) -> Json:
    """Returns a spec as plain JSON; `spec_from_json` is the inverse."""
    plain: Json = json.loads(json.dumps(asdict(spec)))
    if spec.chosen is None:  # absent, as from manifests older than the choice
        del plain["chosen"]
    return plain


def spec_from_json(data: Json) -> ModelSpec:
    """Inverse of `spec_to_json`.

    Raises:
        KeyError: An entry is missing.
        TypeError: An entry has another type or name.
    """

    def tensors(rows: list[Json]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)

    pre = data["preprocess"]
    parts = {
        "inputs": tensors(data["inputs"]),
        "outputs": tensors(data["outputs"]),
        "preprocess": Preprocess(**{**pre, "mean": tuple(pre["mean"]), "std": tuple(pre["std"])}),
        "crop": Crop(**data["crop"]),
        "heatmaps": Decode(**data["heatmaps"]) if data["heatmaps"] else None,
        "output_slice": tuple(data["output_slice"]) if data["output_slice"] else None,
        "sample": tuple(data["sample"])
        if data.get("sample")
        else None,  # absent from manifests older than the detectors
        "chosen": _chosen(data["chosen"]) if "chosen" in data else None,
    }
    return ModelSpec(**{**data, **parts})


def _chosen(data: Json) -> ChosenOutputs:
    return ChosenOutputs(**{**data, "names": tuple(data["names"]), "left_out": tuple(data["left_out"])})


def interface(spec: ModelSpec) -> Json:
    """Describes the inputs and outputs of an artefact, for callers in other languages; follows from the spec alone."""
    artefact = interface_of(spec)
    return {
        "inputs": [{**asdict(tensor), "shape": list(tensor.shape)} for tensor in artefact.inputs],
        "outputs": [{**asdict(tensor), "shape": list(tensor.shape)} for tensor in spec.outputs],
        "colour": spec.preprocess.colour,
        **dict.fromkeys(head_of(spec).coordinates, artefact.unit),
    }


def write(folder: Path, content: Json) -> None:
    """Writes the manifest of a finished folder; `content` is `Artifact` without path, digest and files."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    replace_text(folder / MANIFEST, _sealed({**content, "format": FORMAT, "files": files}))


def _sealed(document: Json) -> str:
    parts = canonical_parts({key: value for key, value in document.items() if key not in ("digest", "seal")})
    body = text_digest(canonical_of({key: text for key, text in parts.items() if key != "measured"}))
    parts |= canonical_parts({"digest": body})
    parts |= canonical_parts({"seal": text_digest(canonical_of(parts))})
    return canonical_of(parts)


def read(path: Path) -> Artifact:
    """Reads and checks an artefact; first completes or undoes the swap of a process that died.

    Raises:
        InputError: The artefact is missing, changed in any byte, or of a newer version.
    """
    repair(path)
    try:
        return _read(path)
    except InputError:
        if not (lock := path.parent / LOCK).exists():
            raise
        try:  # a writer may have replaced the folder during the first attempt
            with FileLock(lock, timeout=10):
                return _read(path)
        except (Timeout, OSError):
            pass
        raise


def _read(path: Path) -> Artifact:
    manifest = path / MANIFEST
    try:
        _regular(manifest)
        text = manifest.read_bytes().decode("utf-8")  # read_text hides a changed line ending
        document = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _absent(path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{manifest} cannot be read: {error}", hint="export again") from error
    _check(path, text, document)
    try:
        plain = {field.name: document[field.name] for field in fields(Artifact) if field.name not in ("path", "spec")}
        plain["precision"] = Precision(plain["precision"])
        _shaped(plain)
        return Artifact(path=path, spec=spec_from_json(document["spec"]), **plain)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{manifest} is not a manifest of format {FORMAT}: {error!r}", hint="export again") from error


def _absent(path: Path) -> InputError:
    """Returns the error for a path that is no artefact."""
    inner = [] if path.is_file() else [each for each in _below(path) if each != path]
    if path.is_file():
        reason = "it is a file"
    elif not path.exists():
        reason = "there is no such folder"
    else:
        reason = f"it has no {MANIFEST}" + ("" if inner else ", and no folder below it has one")
    hint = f"name one of the {len(inner)} artefacts below it, such as {inner[0]}" if inner else ""
    hint = hint or "name a folder that lmconv export has made, such as build/pfld/onnx-fp32"
    return InputError(f"{path} is not an artefact: {reason}", hint=hint)


def _check(path: Path, text: str, document: Any) -> None:
    version = document.get("format") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT:
        hint = "update lmconv, or export again with this one"
        raise InputError(f"{path / MANIFEST} has format {version}; this lmconv reads up to {FORMAT}", hint=hint)
    if version != FORMAT or "measured" not in document or text != _sealed(document):
        raise InputError(f"{path / MANIFEST} was changed after it was written", hint="export again")
    for name, expected in document["files"].items():
        file = path / name
        if Path(name).name != name:
            raise InputError(f"{path / MANIFEST} names {name!r}, a file outside the artefact", hint="export again")
        try:
            _regular(file)
            actual = sha256(file)
        except OSError as error:
            raise InputError(f"{file} is missing or cannot be read: {error.strerror}", hint="export again") from error
        if actual != expected:
            raise InputError(f"{file} was changed after it was written: its sha256 differs", hint="export again")


def _regular(file: Path) -> None:
    """Refuses a file whose content may never end, such as a pipe or a link to a device."""
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(file))


def _shaped(plain: Json) -> None:
    """Checks the entries of a sealed manifest that every command reads.

    Raises:
        KeyError: An entry is missing.
        TypeError: An entry has another type.
    """
    machine, engine = plain["machine"], plain["recipe"].get("engine")
    for part in (plain["execution"], plain["parents"]["source"], machine or {}, engine or {}):
        if not isinstance(part, dict):
            raise TypeError(f"not an object: {part!r:.60}")
    source = plain["parents"]["source"]
    if not isinstance(source["sha256"], str) or not isinstance(source["file"], str) == (source.get("seed") is None):
        raise TypeError("its source is neither a file nor a seed")
    for step in plain["recipe"]["passes"]:
        _ = (step["pass"], step["decisions"], step["refused"])
    for name, kind in (("batches", list), ("workspace", int), ("builder_level", int)):
        if engine and not isinstance(engine.get(name), kind | None):
            raise TypeError(f"an engine's {name} is {engine[name]!r:.60}")


def record(artifact: Artifact, **measured: Json) -> Artifact:
    """Adds measurements to the manifest and keeps the digest; a read-only folder stays unchanged."""
    manifest = artifact.path / MANIFEST
    document = json.loads(manifest.read_bytes())
    document["measured"] |= measured
    try:
        replace_text(manifest, _sealed(document))
    except OSError:
        return artifact
    return read(artifact.path)


def model_file(artifact: Artifact, suffix: str) -> Path:
    """Returns the model file with this ending.

    Raises:
        InputError: There is no such file.
    """
    for name in sorted(artifact.files):
        if name.startswith("model.") and name.endswith(suffix):
            return artifact.path / name
    raise InputError(f"{artifact.path} has no model{suffix}", hint="export again")


def size(artifact: Artifact) -> int:
    """Returns the bytes of the deployed files: without manifest, reference and module table."""
    deployed = [name for name in artifact.files if name.startswith("model.")]
    return sum((artifact.path / name).stat().st_size for name in deployed)


def plain_beside(artifact: Artifact) -> Artifact | None:
    """Returns the plain graph of an artefact, an artefact in the same folder; None if it is missing or another one."""
    beside = artifact.path.parent / PLAIN
    try:
        plain = artifact if artifact.path == beside else read(beside)
    except InputError:
        return None
    known = artifact.parents.get("plain", {"sha256": plain.files["model.onnx"]})["sha256"]
    return plain if plain.files["model.onnx"] == known else None


def modules(artifact: Artifact) -> dict[str, str]:
    """Returns the PyTorch module that computes each value; empty without the artefact's plain graph beside it."""
    plain = plain_beside(artifact)
    if plain is None:
        return {}
    table: dict[str, str] = json.loads((plain.path / "modules.json").read_text(encoding="utf-8"))
    return table


def bound_px(artifact: Artifact) -> float | None:
    """Returns the bound of compaction on the movement of a landmark, input pixels; None if compaction was exact."""
    frozen = decided(artifact.recipe, "freeze")
    return float(frozen["bound_px"]) if frozen and frozen["channels"] else None


def decided(recipe: Json, name: str) -> Json | None:
    """Returns the recorded decisions of a pass; None if the pass was refused or did not run."""
    decisions = {step["pass"]: step["decisions"] for step in recipe["passes"] if not step["refused"]}
    return decisions.get(name)


def variant_of(artifact: Artifact) -> Variant:
    """Returns the variant that an artefact is."""
    spec = artifact.spec
    return Variant(target=artifact.target, precision=artifact.precision, io=spec.io, batch=spec.batch)


def forced_reason(artifact: Artifact) -> str:
    """Returns the reason of the guard for refusing an artefact that `--force` wrote all the same; else empty."""
    figures = artifact.measured.get("guard") or {}
    return f"written by --force although it {figures['reason']}" if figures.get("forced") else ""


def trained(artifact: Artifact) -> bool:
    """True if the weights are trained; for random weights no ION is reported."""
    return artifact.parents["source"].get("seed") is None


def weights(artifact: Artifact) -> str:
    """Returns the origin of the weights, in words."""
    parent = artifact.parents["source"]
    return str(parent["file"]) if trained(artifact) else f"random weights, seed {parent['seed']}"


def below(paths: Iterable[Path]) -> list[Path]:
    """Returns the folders of all artefacts at and below some paths, for every command that takes several artefacts.

    Plain graphs and the folders of tune and blame are left out if the result has an artefact beside them:
    `build/pfld/*` is the same as `build/pfld`, and `build/pfld/plain` alone is the plain graph. A path without any
    artefact stays in the result: reading this path raises the error with the reason.

    Returns:
        The folders in the order of `paths`, below a path in the order of the names, without duplicates.
    """
    listed = dict.fromkeys(found for path in paths for found in _below(path) or [path])
    networks = {path.absolute().parent for path in listed if (path / MANIFEST).exists() and path.name != PLAIN}
    return [path for path in listed if not (_companion(path) and path.absolute().parent in networks)]


def below_or_all(paths: Sequence[Path]) -> list[Path]:
    """Returns the artefacts at and below some paths; without paths, all artefacts below `build`.

    Raises:
        InputError: There are no paths, and no artefact below `build`.
    """
    if paths:
        return below(paths)
    if not (found := _below(BUILD)):
        raise _absent(BUILD)
    return found


def _below(path: Path, depth: int = 0) -> list[Path]:
    try:
        if (path / MANIFEST).exists():
            return [] if depth and path.name == PLAIN else [path]
        if depth == DEPTH or not path.is_dir():
            return []
        inner = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    except OSError:  # the reading of a path that the user named raises the error with the reason
        return [] if depth else [path]
    return [found for each in inner for found in _below(each, depth + 1)]


def _companion(path: Path) -> bool:
    """True for a folder that lmconv writes beside the artefacts of a network."""
    return path.name in (PLAIN, WHY) or path.name.startswith(SEARCH)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, which replaces `path` if the block ends without an error.

    At any death of the process, the old or the new artefact is whole on disk; `repair` restores its name.

    Raises:
        InputError: The folder cannot be written.
    """
    new, old = _beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / LOCK):
            _mend(path)
            new.mkdir()
            try:
                yield new
                if path.exists():
                    path.rename(old)
                new.rename(path)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def repair(path: Path) -> None:
    """Completes or undoes the swap of a dead process and removes temporary folders; never disturbs a living process."""
    new, old = _beside(path)
    if not (new.exists() or old.exists()):
        return
    try:
        # A living process is between two renames for an instant only, but may build for minutes.
        with FileLock(path.parent / LOCK, timeout=0 if path.exists() else 10):
            _mend(path)
    except (Timeout, OSError):
        return


def _beside(path: Path) -> tuple[Path, Path]:
    path = path.absolute()  # "." has no name; "/" has none in any form
    return path.parent / f".{path.name}.new", path.parent / f".{path.name}.old"


def _mend(path: Path) -> None:
    new, old = _beside(path)
    if old.exists() and not path.exists():
        # The old artefact was moved away, so the new artefact was complete.
        (new if (new / MANIFEST).exists() else old).rename(path)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
