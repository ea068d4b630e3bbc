from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from tests.helpers import Cli, contents, strays

from lmconv.building.recipe import resolve
from lmconv.building.request import Choices
from lmconv.errors import InputError
from lmconv.plugins import TARGETS
from lmconv.store import artifact as artifacts
from lmconv.store.files import canonical, digest
from lmconv.types import Artifact, Crop, Json, Precision, Preprocess, landmark_spec

NAMES = ["plain", "onnx-fp32", "openvino-fp32"]


def flips(path: Path, count: int) -> Iterator[tuple[int, int]]:
    """Yields seeded positions in a file, including the first and the last byte, and a change for each position."""
    size = path.stat().st_size
    random = np.random.default_rng(size)
    for place in [0, size - 1, *random.integers(0, size, count - 2).tolist()]:
        yield place, int(random.integers(1, 256))


# Content of a manifest


def test_an_artefact_is_read_as_it_was_written(small: Path) -> None:
    artifact = artifacts.read(small / "onnx-fp32")
    assert (artifact.target, artifact.precision) == ("onnx", Precision.FP32)
    assert sorted(artifact.files) == ["model.onnx", "reference.npz"]
    assert artifact.spec.name == "tiny"
    assert artifact.parents["source"]["file"] == "tiny.onnx"
    assert artifact.parents["plain"]["sha256"] == artifacts.read(small / "plain").files["model.onnx"]
    assert artifact.recipe["opset"] == 18
    target = TARGETS.load(artifact.target)
    passes = resolve(artifacts.variant_of(artifact), target, Choices()).passes
    assert [step["pass"] for step in artifact.recipe["passes"]] == ["simplify", *passes]
    assert artifact.parameters == 8 * 3 * 64 + 8 + 136 * 128 + 136
    assert artifact.flops == 2 * (8 * 16 * 3 * 64 + 136 * 128)


def test_the_digest_covers_everything_except_measurements(small: Path) -> None:
    document = json.loads((small / "onnx-fp32" / "manifest.json").read_text(encoding="utf-8"))
    body = {key: value for key, value in document.items() if key not in ("digest", "seal", "measured")}
    assert document["digest"] == digest(body)
    assert {"spec", "target", "precision", "files", "execution", "parents", "recipe", "versions"} <= set(body)


def test_every_field_of_an_artefact_is_in_the_manifest(small: Path) -> None:
    document = json.loads((small / "onnx-fp32" / "manifest.json").read_text(encoding="utf-8"))
    assert {field.name for field in fields(Artifact)} - {"path"} <= set(document)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_execution_has_the_settings_of_the_runtime(small: Path, target: str) -> None:
    expected = {
        "onnx": {"tf32": False},
        "openvino": {"device": "CPU", "INFERENCE_PRECISION_HINT": "f32", "static_batch": 1},
    }
    assert artifacts.read(small / f"{target}-fp32").execution == expected[target]


def test_bf16_is_a_hint_to_openvino_on_the_same_graph(small: Path) -> None:
    half, full = artifacts.read(small / "openvino-bf16"), artifacts.read(small / "openvino-fp32")
    assert half.execution["INFERENCE_PRECISION_HINT"] == "bf16"
    assert half.files["model.bin"] == full.files["model.bin"]
    assert half.digest != full.digest


def test_a_spec_is_unchanged_by_json() -> None:
    spec = landmark_spec(
        "x",
        "pfld",
        size=(56, 48),
        landmarks=98,
        preprocess=Preprocess(colour="RGB", scale=0.5, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
        crop=Crop(side="min", scale=1.0),
        decode="pixels",
        output_slice=(2, 198),
    )
    assert artifacts.spec_from_json(json.loads(json.dumps(artifacts.spec_to_json(spec)))) == spec


# A changed byte


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_in_any_file_is_noticed(small: Path, name: str) -> None:
    files = [path for path in sorted((small / name).iterdir()) if path.name != "manifest.json"]
    assert len(files) >= 2
    for path in files:
        content = path.read_bytes()
        for place, change in flips(path, 6):
            path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
            with pytest.raises(InputError, match=f"{path.name} was changed"):
                artifacts.read(small / name)
        path.write_bytes(content)
    artifacts.read(small / name)


def test_a_changed_byte_of_the_manifest_is_noticed(small: Path) -> None:
    path = small / "onnx-fp32" / "manifest.json"
    content = path.read_bytes()
    for place, change in flips(path, 300):
        path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"manifest\.json"):
            artifacts.read(small / "onnx-fp32")
    path.write_bytes(content)
    artifacts.read(small / "onnx-fp32")


def test_changed_whitespace_of_the_manifest_is_noticed(small: Path) -> None:
    path = small / "onnx-fp32" / "manifest.json"
    text = path.read_text(encoding="utf-8")
    places = [place for place, letter in enumerate(text) if letter in " \n"]
    for changed in [
        *(text[:place] + "\t" + text[place + 1 :] for place in places[:: len(places) // 20]),
        text + "\n",
        text[:-1],
        " " + text,
        text.replace("\n", "\r\n"),
        text.replace("\n", "\r", 1),
    ]:
        path.write_bytes(changed.encode())
        with pytest.raises(InputError, match=r"manifest\.json"):
            artifacts.read(small / "onnx-fp32")


def test_a_changed_measurement_is_noticed(small: Path) -> None:
    path = small / "onnx-fp32" / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["measured"]["seconds"] = 0.0
    path.write_text(canonical(document), encoding="utf-8")
    with pytest.raises(InputError, match="was changed after it was written"):
        artifacts.read(small / "onnx-fp32")


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", "3", '{"format": 1}', '{"format": "1"}', "{", "\x00", "[" * 100_000],
    ids=lambda text: repr(text[:9]),
)
def test_a_manifest_with_other_content_is_refused(small: Path, content: str) -> None:
    (small / "onnx-fp32" / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.json"):
        artifacts.read(small / "onnx-fp32")


def test_a_manifest_that_is_not_text_is_refused(small: Path) -> None:
    (small / "onnx-fp32" / "manifest.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        artifacts.read(small / "onnx-fp32")


def test_a_manifest_of_a_newer_version_asks_for_an_update(small: Path) -> None:
    path = small / "onnx-fp32" / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8")) | {"format": artifacts.FORMAT + 1, "new": "thing"}
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match=r"has format 2; this lmconv reads up to 1 \(update lmconv"):
        artifacts.read(small / "onnx-fp32")


def test_a_missing_file_is_named(small: Path) -> None:
    (small / "openvino-fp32" / "model.bin").unlink()
    with pytest.raises(InputError, match=r"model\.bin is missing"):
        artifacts.read(small / "openvino-fp32")


@pytest.mark.parametrize("name", ["", "nothing"])
def test_a_folder_that_is_not_an_artefact_is_refused(small: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not an artefact"):
        artifacts.read(small / name)


def test_a_file_that_is_not_an_artefact_is_refused(small: Path) -> None:
    with pytest.raises(InputError):
        artifacts.read(small / "onnx-fp32" / "model.onnx")


# Measurements


def test_a_new_measurement_keeps_the_digest_and_earlier_measurements(small: Path) -> None:
    before = artifacts.read(small / "onnx-fp32")
    after = artifacts.record(before, latency={"median_ms": 1.5})
    assert after.digest == before.digest
    assert after.measured == {**before.measured, "latency": {"median_ms": 1.5}}
    assert artifacts.read(small / "onnx-fp32") == after
    assert strays(small) == []


def test_a_measurement_on_a_read_only_file_system_is_dropped(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(30, "Read-only file system")

    before = artifacts.read(small / "onnx-fp32")
    monkeypatch.setattr(artifacts, "replace_text", refuse)
    assert artifacts.record(before, latency={"median_ms": 1.5}) == before


def test_an_artefact_in_a_read_only_folder_is_read(small: Path) -> None:
    folder = small / "onnx-fp32"
    for path in [*folder.iterdir(), folder]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert artifacts.read(folder).spec.name == "tiny"
    finally:
        folder.chmod(0o755)


# Replacing an artefact


def put(path: Path, text: str) -> None:
    with artifacts.staged(path) as new:
        (new / "model.txt").write_text(text, encoding="utf-8")
        (new / "manifest.json").write_text("{}", encoding="utf-8")


def test_a_new_artefact_replaces_every_file_of_the_old_artefact(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x", "old")
    (tmp_path / "a" / "x" / "extra").touch()
    put(tmp_path / "a" / "x", "new")
    assert sorted(contents(tmp_path / "a")) == ["x/manifest.json", "x/model.txt"]
    assert contents(tmp_path / "a")["x/model.txt"] == b"new"
    assert strays(tmp_path) == []


def test_a_failure_leaves_the_old_artefact_as_it_was(tmp_path: Path) -> None:
    put(tmp_path / "x", "old")
    before = contents(tmp_path)

    def fail() -> None:
        with artifacts.staged(tmp_path / "x") as new:
            (new / "model.txt").write_text("half", encoding="utf-8")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert contents(tmp_path) == before
    assert strays(tmp_path) == []


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (["x"], "x"),
        (["x", ".x.new"], "x"),
        ([".x.old", ".x.new"], ".x.new"),
        (["x", ".x.old"], "x"),
        ([".x.old"], ".x.old"),
    ],
    ids=["whole", "while building", "between the renames", "before the old one is gone", "after a lost rename"],
)
def test_an_interrupted_replacement_is_repaired(tmp_path: Path, here: list[str], expected: str) -> None:
    for name in here:
        put(tmp_path / "store" / "y", name)
        (tmp_path / "store" / "y").rename(tmp_path / "store" / name)
    artifacts.repair(tmp_path / "store" / "x")
    assert (tmp_path / "store" / "x" / "model.txt").read_text(encoding="utf-8") == expected
    assert strays(tmp_path / "store") == []


def test_a_folder_names_the_artefacts_below_it_without_plain_graphs_and_temporary_folders(small: Path) -> None:
    (small / "onnx-fp32").rename(small / ".onnx-fp32.old")
    expected = [small / "openvino-bf16", small / "openvino-fp32"]
    assert artifacts.below([small]) == artifacts.below([small.parent]) == artifacts.below([small.parent.parent])
    assert artifacts.below([small, small.parent, expected[0]]) == expected


def test_the_folders_that_lmconv_writes_beside_artefacts_are_no_artefacts(small: Path) -> None:
    for name in ("why", "tune-onnx"):
        (small / name).mkdir()
    everything = sorted(path for path in small.iterdir() if not path.name.startswith("."))  # as a shell expands small/*
    assert artifacts.below(everything) == artifacts.below([small])


@pytest.mark.parametrize("name", ["plain", "tune-onnx", "why", "nothing", "onnx-fp32/model.onnx"])
def test_a_path_without_artefacts_beside_it_stays_for_its_reading(small: Path, name: str) -> None:
    assert artifacts.below([small / name]) == [small / name]


# Through the command line


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "manifest.json"])
def test_every_command_refuses_a_changed_artefact(cli: Cli, small: Path, name: str) -> None:
    path = small / "onnx-fp32" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for command in ("verify", "bench", "inspect"):
        cli(command, small / "onnx-fp32").refused(4, name, "export again")


def test_every_command_refuses_a_newer_artefact(cli: Cli, small: Path) -> None:
    (small / "onnx-fp32" / "manifest.json").write_text('{"format": 2}', encoding="utf-8")
    for command in ("verify", "bench", "inspect"):
        cli(command, small / "onnx-fp32").refused(4, "has format 2", "update lmconv")


# Artefacts made by hand


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "a GPU"},
        {"execution": []},
        {"parents": {}},
        {"parents": {"source": {"file": None, "sha256": "0"}}},
        {"recipe": {}},
        {"recipe": {"passes": [{}]}},
        {"recipe": {"passes": [], "engine": {"workspace": "much"}}},
    ],
    ids=str,
)
def test_a_sealed_manifest_of_another_shape_is_refused_by_every_command(small: Path, cli: Cli, change: Json) -> None:
    document = json.loads((small / "onnx-fp32" / "manifest.json").read_text(encoding="utf-8"))
    artifacts.write(small / "onnx-fp32", document | change)
    cli("inspect", small / "onnx-fp32").refused(4, "is not a manifest of format 1")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_an_endless_file_is_not_read(small: Path, cli: Cli, name: str) -> None:
    (small / "onnx-fp32" / name).unlink()
    (small / "onnx-fp32" / name).symlink_to("/dev/zero")
    cli("inspect", small / "onnx-fp32").refused(4, "no regular file")
