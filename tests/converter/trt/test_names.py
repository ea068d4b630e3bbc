"""Every used name of TensorRT exists in 8.6, 10 and 11, or is on a line marked for the versions with the name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.converter.trt.reading import FILES, MARK, TREE, complaints, listed, marks, names_in

FIRST = {"8.6.0": 8, "10.0.1": 10, "10.16.1": 10, "11.4.0": 11}
"""Versions with a list of names beside the repository, and their major versions."""


def used(line: str, *, marked: str = "") -> list[str]:
    """Complaints about a line in a function with a builder configuration."""
    source = f"import tensorrt as trt\n\ndef f(config: trt.IBuilderConfig) -> None:\n    {line}{marked}\n"
    return complaints(source, listed())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_name_is_listed_and_exists_in_the_versions_of_its_line(file: Path) -> None:
    assert complaints(file.read_text(encoding="utf-8"), listed()) == []


def test_every_listed_name_is_used() -> None:
    assert sorted(set(listed()) - set(names_in(FILES))) == []


def test_few_lines_are_marked_for_some_versions() -> None:
    counts = {file.stem: len(marks(file.read_text(encoding="utf-8"))) for file in FILES}
    assert {stem for stem, count in counts.items() if count} == {"build", "engine"}
    assert sum(counts.values()) <= 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.max_workspace_size = 1 << 30", "IBuilderConfig.max_workspace_size is not in names.toml"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 is not in 11"),
        ("config.set_flag(trt.BuilderFlag.BF16)", "BuilderFlag.BF16 is not in names.toml"),
        ("config.get_timing_cache().query(0)", "ITimingCache.query is not in names.toml"),
        ("trt.Builder(0).create_network(0).get_layer(0).precision = 1", "ILayer.precision is not in 11"),
        ("trt.Runtime(0).deserialize_cuda_engine(b'').get_binding_name(0)", "ICudaEngine.get_binding_name is not"),
        ("trt.OnnxParser(0, 1).parse_from_file('')", "OnnxParser.parse_from_file is not in names.toml"),
        ("[layer.precision for layer in config.get_timing_cache().layers]", "ITimingCache.layers is not in names.toml"),
    ],
)
def test_a_name_that_a_version_lacks_is_a_complaint(line: str, message: str) -> None:
    assert [message in complaint for complaint in used(line)] == [True]


def test_a_marked_line_may_use_names_of_its_versions() -> None:
    line = "config.set_flag(trt.BuilderFlag.FP16)"
    assert used(line, marked="  # trt: 8") == []
    assert used(line, marked="  # trt: 10, 11") == ["line 4: BuilderFlag.FP16 is not in 11"]


# With the lists and stubs beside the repository


@pytest.fixture(scope="session")
def tensorrt(shared: Path) -> Path:
    folder = shared.parent / "tensorrt"
    if not folder.is_dir():
        pytest.skip("no lists of TensorRT's names beside the repository")
    return folder


def members(document: Any) -> set[str]:
    classes = document["classes"]
    return {*document["module"], *classes, *(f"{name}.{member}" for name in classes for member in classes[name])}


@pytest.mark.realdata
def test_names_toml_agrees_with_tensorrt(tensorrt: Path) -> None:
    documents = {path.stem: json.loads(path.read_text()) for path in (tensorrt / "api").glob("[0-9]*.json")}
    assert set(documents) == set(FIRST)
    lists = {version: members(document) for version, document in documents.items()}
    for name, entry in listed().items():
        having = {FIRST[version] for version, names in lists.items() if name in names}
        assert having == entry.versions, name
    every = [name for name, entry in listed().items() if entry.versions == {8, 10, 11}]
    assert all(name in names for name in every for names in lists.values())


def checked(tensorrt: Path, major: int, cache: Path, file: Path = TREE) -> list[str]:
    """Errors of mypy in the tree with the stubs of a version, without lines that are marked for other versions."""
    environment = {**os.environ, "MYPYPATH": os.pathsep.join([str(tensorrt / "typing" / f"v{major}"), "converter"])}
    flags = ["--config-file=", "--python-version=3.12", "--explicit-package-bases", "--check-untyped-defs"]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, "--ignore-missing-imports", f"--cache-dir={cache}", str(file)],
        cwd=TREE.parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in (0, 1), process.stdout + process.stderr
    errors = [line for line in process.stdout.splitlines() if ": error: " in line]
    return [line for line in errors if major in _versions(line)]


def _versions(complaint: str) -> set[int]:
    """Versions for which the line of an error is marked."""
    place = re.match(r"(.*?):(\d+):", complaint)
    assert place
    path = TREE.parents[2] / place[1]
    text = path.read_text(encoding="utf-8").splitlines()[int(place[2]) - 1]
    mark = MARK.search(text)
    return set(map(int, mark[1].split(", "))) if mark else {8, 10, 11}


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("major", [10, 11])
def test_the_types_agree_with_the_stubs_of_tensorrt(tensorrt: Path, tmp_path: Path, major: int) -> None:
    assert checked(tensorrt, major, tmp_path) == []
    removed = tmp_path / "removed.py"
    removed.write_text("import tensorrt as trt\ntrt.Builder(trt.Logger()).max_batch_size = 1\n", encoding="utf-8")
    assert len(checked(tensorrt, major, tmp_path, removed)) == 1
