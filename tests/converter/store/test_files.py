from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.helpers import Cli, Ran, contents, python, strays

from lmconv.errors import InputError
from lmconv.store import files
from lmconv.types import Json

FULL = """
import resource, signal, sys
from lmconv.cli import run
import lmconv.pipeline, onnxsim, openvino  # imported first, because their caches on disk are not part of the test
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(run(sys.argv[2:]))
"""
"""Limits the size of files: the error of the operating system is then handled like the error of a full disk."""


def export_on_full_disk(limit: int, *arguments: str | Path) -> Ran:
    return python(FULL, str(limit), "export", *arguments)


def test_the_text_of_an_object_comes_from_the_texts_of_its_entries() -> None:
    value: Json = {"b": {"z": [1.5, {"x": []}], "a\n": "two\nlines"}, "ä": None, "a": [], '"': {}}
    assert files.canonical_of(files.canonical_parts(value)) == files.canonical(value)


def test_the_same_value_gives_the_same_text() -> None:
    assert files.canonical({"b": 1, "a": [1.5, "ä"]}) == '{\n "a": [\n  1.5,\n  "ä"\n ],\n "b": 1\n}\n'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical({"x": number})


def test_nan_and_infinity_become_null_at_any_depth() -> None:
    value = {"a": [1, float("nan"), (float("-inf"), "inf")], "b": {"c": float("inf"), "d": None, "e": True}}
    assert files.finite(value) == {"a": [1, None, [None, "inf"]], "b": {"c": None, "d": None, "e": True}}


def test_nan_and_infinity_may_become_words() -> None:
    assert files.finite([float("nan"), float("-inf"), 0.5], otherwise=str) == ["nan", "-inf", 0.5]


def test_a_failed_replacement_leaves_only_the_old_file(tmp_path: Path) -> None:
    def fail() -> None:
        with files.replacing(tmp_path / "x") as beside:
            beside.write_bytes(b"half")
            raise RuntimeError

    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(RuntimeError):
        fail()
    assert contents(tmp_path) == {"x": b"old"}


def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in (".a[1].json.123", ".b.json.123"):
        (place / name).write_bytes(b"half")
    files.replace_bytes(place / "a[1].json", b"one", sweep=False)
    assert sorted(contents(place)) == [".a[1].json.123", ".b.json.123", "a[1].json"]
    files.replace_bytes(place / "a[1].json", b"two")
    assert contents(place) == {".b.json.123": b"half", "a[1].json": b"two"}


def test_a_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "place" / "x.json"
    path.parent.mkdir()
    path.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError):
        files.replace_text(path, "half \ud800")
    assert contents(path.parent) == {"x.json": b"old"}


def test_an_os_error_becomes_an_input_error_that_names_the_path(tmp_path: Path) -> None:
    def fail() -> None:
        with files.writing(tmp_path / "place"):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*place: No space left .*free space there"):
        fail()


@pytest.mark.parametrize("deeper", ["", "below", "below/further"])
def test_refuses_an_output_folder_that_cannot_be_created(cli: Cli, tiny: Path, tmp_path: Path, deeper: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    out = tmp_path / "file" / deeper
    ran = cli("export", tiny, "--out", out, "--json")
    ran.refused(4, f"cannot write {out}")
    assert ran.document["error"]["kind"] == "input"
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize(("target", "limit"), [("onnx", 1000), ("openvino", 30_000)])
def test_a_full_disk_leaves_nothing_half_written(tiny: Path, tmp_path: Path, target: str, limit: int) -> None:
    ran = export_on_full_disk(limit, tiny, "--to", target, "--out", tmp_path / "out", "--quiet")
    ran.refused(4, "cannot write", "free space there")
    assert contents(tmp_path / "out") == {}
    assert strays(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_disk_that_becomes_full_leaves_the_old_artefact(cli: Cli, small: Path, tiny: Path, target: str) -> None:
    before = contents(small / f"{target}-fp32")
    # The plain graph is reused, and the first file to be written is the model of the artefact.
    ran = export_on_full_disk(30_000, tiny, "--to", target, "--out", small.parent, "--quiet")
    ran.refused(4, "cannot write", "free space there")
    assert contents(small / f"{target}-fp32") == before
    assert strays(small) == []
    assert cli("verify", small / f"{target}-fp32").code == 0


def test_a_truncated_jpeg_is_detected() -> None:
    whole = cv2.imencode(".jpg", np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))[1].tobytes()
    assert not files.jpeg_breaks_off(whole)
    assert not files.jpeg_breaks_off(whole + b"what a camera adds")
    assert not files.jpeg_breaks_off(b"\x89PNG" + whole[:-9])
    assert all(files.jpeg_breaks_off(whole[:length]) for length in (100, len(whole) // 2, len(whole) - 2))
    thumbnail = b"\xff\xd8\xff\xe1" + whole + whole[2:-2]
    assert files.jpeg_breaks_off(thumbnail)
