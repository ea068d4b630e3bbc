"""Results of a GPU host: broken files are refused, and outputs are replayed in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmconv.errors import InputError
from lmconv.gpu_record import host


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Folder with a preparation without networks, and a host's folder without results."""
    for folder in ("part0", "host"):
        (tmp_path / folder).mkdir()
    (tmp_path / "part0" / "cases.json").write_text('{"digest": "a", "models": [], "made": {}}', encoding="utf-8")
    return tmp_path


def write(out: Path, text: str) -> None:
    (out / "host" / "found.json").write_text(text, encoding="utf-8")


def test_the_hint_for_missing_results_names_the_files_to_copy(results: Path) -> None:
    with pytest.raises(InputError) as raised:
        host.read(results)
    assert raised.value.hint == f"copy found.json and found.npz from the host to {results / 'host'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"digest": ', "is no whole JSON file"),
        ('{"digest": "a"}', "has not all of digest, machine, models"),
        ('{"digest": "b", "machine": {}, "models": {}}', "is of other graphs"),
    ],
)
def test_a_broken_document_is_refused(results: Path, text: str, message: str) -> None:
    write(results, text)
    with pytest.raises(InputError, match=message):
        host.read(results)


def test_a_truncated_file_of_arrays_is_refused(results: Path) -> None:
    write(results, '{"digest": "a", "machine": {}, "models": {}}')
    (results / "host" / "found.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(InputError, match=r"found.npz is no whole file"):
        host.read(results)


def test_outputs_of_a_case_exclude_a_case_with_a_longer_name() -> None:
    arrays = {"pfld-fp16/landmarks": np.zeros(1), "pfld-fp16-plain/landmarks": np.ones(1)}
    read = host.Results(cases={}, document={}, arrays=arrays)
    assert read.outputs("pfld-fp16") == {"landmarks": np.zeros(1)}
    assert not read.outputs("pfld-int8")


def test_a_replay_continues_after_the_last_run() -> None:
    outputs = np.arange(10.0)
    with host.Replay({"landmarks": outputs}) as session:
        runs = [session.run({"input": np.empty((size, 3, 8, 8))})["landmarks"] for size in (8, 2)]
    assert np.array_equal(np.concatenate(runs), outputs)
